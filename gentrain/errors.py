"""Define the errors that a user can cause; each message is one line: what is wrong, where, and what to do."""

from __future__ import annotations


class GentrainError(Exception):
    """Base of all errors that the command line prints as one line, without a traceback."""

    exit_status = 1


class ConfigError(GentrainError):
    """A study file, option or argument can't be used; the message names file, field, value and remedy."""

    exit_status = 2


class DataError(GentrainError):
    """A source or prepared dataset is missing, broken or doesn't fit the study."""

    exit_status = 2


class ResourceError(GentrainError):
    """The run needs more workers, devices or disk than there are; raised before training starts where possible."""

    exit_status = 2


class DependencyError(GentrainError):
    """A library is missing or has a version that gentrain can't use; the message names the remedy."""

    exit_status = 2


class StoreError(GentrainError):
    """The run folder can't be written, or a file in it is damaged and can't be restored."""


class TakenOverError(StoreError):
    """Another process has taken over training this generation, so this one stops."""


class TrainingError(GentrainError):
    """A generation can't continue (for example a non-finite loss); its last good checkpoint stays."""
