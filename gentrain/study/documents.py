"""Read the YAML texts of study files within limits, and write them; what can't be read is one line with its place.

A text is YAML 1.2, read by ruamel.yaml; PyYAML reads it as YAML 1.1, for what an earlier version made of it. The limits
are checked while the text is parsed, so that a short text that stands for millions of values is never built.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    NodeEvent,
    ScalarEvent,
)

from gentrain.errors import cut

NOT_YAML = "not valid YAML"
MAX_CHARACTERS = 1 << 20
MAX_NODES = 50_000
"""Most values of a text; an alias counts as much as what it stands for."""
MAX_DEPTH = 40
MAX_DIGITS = 40
_PLAIN_TAGS = {"!", "!!str", "!!int", "!!float", "!!bool", "!!null", "!!seq", "!!map"}
_NUMBER = re.compile(r"[-+]?(0x[0-9a-fA-F_]+|0o?[0-7_]+|[0-9_]*\.?[0-9_]*([eE][-+]?[0-9_]+)?)")
_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)(?:(?:[Tt]|[ \t]+)(\d\d?):(\d\d):(\d\d)(?:\.\d*)?[ \t]*(?:Z|[-+]\d\d?(?::?\d\d)?)?)?"
)


class DocumentError(Exception):
    """A text is no YAML; the message has the line and column where they are known."""


class LimitError(DocumentError):
    """A text is larger, deeper or longer than a study can be."""


def read_yaml(text: str, *, version: str = "1.2") -> Any:
    """Return what a YAML text says, as plain Python values.

    Args:
        text: one document.
        version: of YAML, 1.2 or 1.1.

    Raises:
        DocumentError, LimitError: see there.
    """
    try:
        _check_limits(text)
        if version == "1.1":
            return yaml.safe_load(text)
        return YAML(typ="safe", pure=True).load(text)  # ruamel's C loader reads YAML 1.1
    except DocumentError:
        raise
    except DuplicateKeyError as error:
        raise DocumentError(f"{NOT_YAML}: {_duplicate(error)}; remove one of the two") from None
    except Exception as error:  # a value under a wrong tag (!!bool maybe) makes the readers raise whatever it leads to
        raise DocumentError(f"{NOT_YAML}: {_problem(error)}") from None


def write_yaml(value: Any) -> str:
    """Return plain values as a YAML text that YAML 1.1 and 1.2 read alike."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quotes texts that only YAML 1.2 takes for a number, such as 1e3."""


_FLOAT = re.compile(r"[-+]?[0-9._]+(e[-+]?[0-9]+)?", re.IGNORECASE)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"0o[0-7]+"), ["0"])


def _check_limits(text: str) -> None:
    """Raise DocumentError where a text is larger or deeper than a study can be, or a scalar is no value."""
    if len(text) > MAX_CHARACTERS:
        raise LimitError(f"longer than {MAX_CHARACTERS:,} characters, so it is no study file")
    sizes: dict[str, int] = {}
    """How many values an anchor stands for, once its value has ended."""
    anchored: list[tuple[str | None, int]] = []
    """The collections that are open: their anchors, and how many values there were before them."""
    count = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, AliasEvent):
            if event.anchor in {anchor for anchor, _ in anchored}:
                raise LimitError(f"{_place(event)}: {cut(f'*{event.anchor}')} stands for what it lies in")
            count += sizes.get(event.anchor, 1)
        elif isinstance(event, NodeEvent):
            count += 1
        if count > MAX_NODES:
            raise LimitError(f"{_place(event)}: more than {MAX_NODES:,} values, each alias counted with all it means")
        tag = str(getattr(event, "tag", None) or "!").replace("tag:yaml.org,2002:", "!!", 1)
        if tag not in _PLAIN_TAGS:
            raise DocumentError(f"{_place(event)}: tag {cut(tag)}; a study file has plain values only, without tags")
        if isinstance(event, CollectionStartEvent):
            anchored.append((event.anchor, count - 1))
            if len(anchored) > MAX_DEPTH:
                raise LimitError(f"{_place(event)}: nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, CollectionEndEvent):
            anchor, before = anchored.pop()
            if anchor is not None:
                sizes[anchor] = count - before
        elif isinstance(event, ScalarEvent) and event.implicit[0]:
            _check_scalar(event)


def _check_scalar(event: ScalarEvent) -> None:
    """Raise DocumentError for an unquoted number or date that can't be one."""
    value: str = event.value
    if len(value) > MAX_DIGITS and _NUMBER.fullmatch(value):
        raise LimitError(f"{_place(event)}: a number of {len(value):,} characters, more than {MAX_DIGITS}")
    if match := _TIMESTAMP.fullmatch(value):
        try:
            datetime(*(int(part or 0) for part in match.groups()))  # type: ignore[arg-type]
        except ValueError as error:
            raise DocumentError(
                f"{NOT_YAML}: {_place(event)}: {cut(value)} is no date ({error}); put it in quotes if it is a text"
            ) from None


def _place(event: Event) -> str:
    return f"line {event.start_mark.line + 1}, column {event.start_mark.column + 1}"


def _duplicate(error: MarkedYAMLError) -> str:
    key = str(error.problem).partition('"')[2].partition('"')[0]
    first = f" (first in line {error.context_mark.line + 1})" if error.context_mark else ""
    return f"line {error.problem_mark.line + 1}: key '{cut(key)}' is given twice{first}"


def _problem(error: Exception) -> str:
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return cut(
            f"{'' if isinstance(error, YAMLError | ValueError) else 'a value that its tag does not fit: '}{error}"
        )
    mark = error.problem_mark
    context = f"{cut(error.context)}: " if error.context else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {context}{cut(str(error.problem))}"
