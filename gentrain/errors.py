"""Define the errors that a user can cause; each message is one line: what is wrong, where, and what to do.

Names and values in messages come from elsewhere: `shown` cuts them, `printable` escapes what would break a line.
"""

from __future__ import annotations

import reprlib
import unicodedata

SHOWN = 80
"""Most characters of a value in a message."""
_BREAKING = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode's categories of control characters, lone surrogates (bytes that aren't UTF-8), line and paragraph ends."""
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = SHOWN
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = SHOWN


def shown(value: object) -> str:
    """Return a value as Python writes it, at most `SHOWN` characters."""
    try:
        return cut(_short.repr(value))
    except (ValueError, RecursionError):  # Python refuses to write integers of thousands of digits
        return f"a value of type {type(value).__name__} that is too long to print"


def cut(text: str) -> str:
    """Return a text as `printable`, at most `SHOWN` characters."""
    text = printable(text[: 2 * SHOWN])
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or the error's type where it has none."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def shown_path(path: str) -> str:
    """Return a path as `printable`; of more than 240 characters the first 80 and the last 159."""
    text = printable(path)
    return text if len(text) <= 3 * SHOWN else f"{text[:SHOWN]}…{text[1 - 2 * SHOWN :]}"


def printable(text: str) -> str:
    """Return a text with the characters escaped that control a terminal, end a line or can't be encoded."""
    if text.isprintable():
        return text
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in _BREAKING else c for c in text)


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


class NotAFileError(StoreError):
    """A folder, or anything else that is no file, has a file's name in the run folder."""


class TakenOverError(StoreError):
    """Another process has taken over training this generation, so this one stops."""


class TrainingError(GentrainError):
    """A generation can't continue; its last good checkpoint stays."""


class DivergedError(TrainingError):
    """A loss, weight or prediction of a generation is not finite.

    Args:
        message: the line.
        reason: its part that says at which step, and what isn't finite.
    """

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
