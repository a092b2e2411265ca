"""What all settings have in common: frozen sections without unknown keys, and how their fields are stored.

A field says so in its annotation where spec.json and older study files have another name or value for it (`Stored`),
and where it came later than the hashes that name generations and prepared datasets (`Later`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A section of the study file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Stored:
    """Names a field as spec.json and older study files do.

    Args:
        name: of the field there.
        values: pairs of a value here and what stands for it there, where they differ.
    """

    name: str
    values: tuple[tuple[Any, Any], ...] = ()


@dataclass(frozen=True)
class Later:
    """Leaves a field that came later out of hashes where it isn't used, so that older hashes stay.

    Args:
        unused: the value that says so.
        of: the field that has that value; by default the annotated one.
        written: whether files have the field where it isn't used.
    """

    unused: Any
    of: str | None = None
    written: bool = True


@dataclass(frozen=True)
class _Field:
    name: str
    key: str
    stored: Stored
    later: Later | None
    sections: tuple[type[BaseModel], ...]


@cache
def _fields(model: type[BaseModel]) -> tuple[_Field, ...]:
    fields = []
    for name, info in model.model_fields.items():
        notes = {type(note): note for note in info.metadata}
        fields.append(
            _Field(
                name=name,
                key=info.alias or name,
                stored=notes.get(Stored, Stored(name)),
                later=notes.get(Later),
                sections=tuple(held_sections(info.annotation)),
            )
        )
    return tuple(fields)


@cache
def _fields_by_name(model: type[BaseModel]) -> dict[str, _Field]:
    """Return a section's fields by their stored names and by their keys."""
    return {name: field for field in _fields(model) for name in (field.stored.name, field.key)}


def held_sections(annotation: Any) -> Iterable[type[BaseModel]]:
    """Yield the sections that a field may hold: itself, an alternative, or the elements of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from held_sections(part)


def stored_form(model: BaseModel, *, hashed: bool = False, exclude: Collection[str] = ()) -> dict[str, Any]:
    """Return a section as plain JSON types under its stored names.

    Args:
        model: of numbers, strings, None, tuples of them and such sections.
        hashed: leave out the fields that came later and aren't used.
        exclude: names of fields to leave out as well.
    """
    form = {}
    for field in _fields(type(model)):
        value, later = getattr(model, field.name), field.later
        unused = later is not None and later.unused == (getattr(model, later.of) if later.of else value)
        if field.name in exclude or (later is not None and unused and (hashed or not later.written)):
            continue
        if isinstance(value, BaseModel):
            value = stored_form(value, hashed=hashed)
        elif isinstance(value, tuple):
            value = list(value)
        elif field.stored.values:
            value = dict(field.stored.values)[value]
        form[field.stored.name] = value
    return form


def current_form(
    model: type[BaseModel], mapping: Mapping[Any, Any], *, renamed: list[str] | None = None, at: str = ""
) -> dict[Any, Any]:
    """Return a mapping, not yet validated, under the current keys and values of a section and of the sections within.

    A stored name beside the current one stays as it is, so that validation refuses it.

    Args:
        model: the section.
        mapping: by stored names, current ones or both.
        renamed: gets a text such as "recipe.pad is now padding" for each setting that is renamed.
        at: the dotted name of the section, with a dot at its end.
    """
    known = _fields_by_name(model)
    form: dict[Any, Any] = {}
    for key, value in mapping.items():
        field = known.get(key) if isinstance(key, str) else None
        if field is None or (key != field.key and field.key in mapping):
            form[key] = value
            continue
        for section in field.sections:
            value = _current_part(section, value, renamed=renamed, at=f"{at}{key}")  # noqa: PLW2901
        if key != field.key:
            current = [here for here, there in field.stored.values if there == value]
            if renamed is not None:
                old, new = (f": {value}", f": {str(current[0]).lower()}") if current else ("", "")
                renamed.append(f"{at}{key}{old} is now {field.key}{new}")
            value = current[0] if current else value  # noqa: PLW2901
        form[field.key] = value
    return form


def _current_part(section: type[BaseModel], value: Any, *, renamed: list[str] | None, at: str) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return current_form(section, value, renamed=renamed, at=f"{at}.")
    if isinstance(value, list | tuple):
        return [_current_part(section, part, renamed=renamed, at=f"{at}.{i}") for i, part in enumerate(value)]
    return value
