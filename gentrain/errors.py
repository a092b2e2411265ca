"""The few errors that a user can cause; each carries one line that names the culprit and the remedy."""

from __future__ import annotations


class GentrainError(Exception):
    """Base of all errors shown to users as one line, without a traceback."""

    exit_status = 1


class ConfigError(GentrainError):
    """A study, option or argument that can't be used; names the file, field, value and remedy."""

    exit_status = 2


class DataError(GentrainError):
    """A source or prepared dataset that is missing, broken or doesn't fit the study."""

    exit_status = 2


class ResourceError(GentrainError):
    """More workers, devices or disk than there are; said at once."""

    exit_status = 2


class DependencyError(GentrainError):
    """A library that is missing, or a version of it that gentrain can't use; names the remedy."""

    exit_status = 2


class StoreError(GentrainError):
    """The run folder can't be written, or a file in it is damaged beyond repair."""


class TakenOverError(StoreError):
    """Another process trains this generation now; this one has stopped."""


class TrainingError(GentrainError):
    """A generation that can't go on (a non-finite loss); the last good checkpoint stays."""
