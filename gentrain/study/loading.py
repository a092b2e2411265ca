"""Read study files: YAML 1.2, `--set a.b=value`, the section `smoke`, settings under old names; explain errors.

Every layer (the file, its smoke section, each --set) gets its current names first; then the layers are put together
and validated as a whole. Unknown keys are refused with the nearest valid ones.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gentrain.errors import ConfigError, cut, shown
from gentrain.models.registry import search_functions
from gentrain.study.documents import MAX_CHARACTERS, MAX_DEPTH, DocumentError, LimitError, read_yaml, write_yaml
from gentrain.study.schema import Study
from gentrain.study.sections import RECORDED
from gentrain.study.settings import current_form, held_sections

_FUNCTION = re.compile(r"[\w.]+:\w+")
"""A network's name that is a function's."""
MOST_PROBLEMS = 20
"""Most mistakes of a study that are listed."""


def load_study(
    path: str | Path | None = None,
    *,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    smoke: bool = False,
    notify: Callable[[str], None] = lambda _: None,
    **settings: Any,
) -> Study:
    """Read a study file, apply overrides in order, then dotted keyword settings that are not None.

    The section `smoke` of a file is no setting but overrides for `smoke=True`; they come first, and the study is then
    named `<name>-smoke`, so that it can't be mixed up with the whole one.

    Args:
        path: of the file, beside which `dataset.path` and the modules of package.module:function are found; by
            default the study has the paper's settings.
        overrides: such as "recipe.epochs=10", read as YAML; or values by their dotted names, {"recipe.epochs": 10}.
        smoke: apply the file's section `smoke`.
        notify: gets a line for settings under an old name, and one for values that YAML 1.1 read otherwise.
        settings: by name, with `__` for a dot.

    Raises:
        ConfigError: naming the file, key, value and remedy.
    """
    where = str(path) if path else "default study"
    text = _read(Path(path)) if path else ""
    folder = Path(path).absolute().parent if path else None
    sources = (text, overrides if isinstance(overrides, Mapping) else tuple(overrides), settings, folder)
    renamed: list[str] = []
    mapping = _assemble(*sources, where=where, smoke=smoke, read=read_yaml, renamed=renamed)
    if folder and any(map(_FUNCTION.fullmatch, _texts(mapping))):
        search_functions(str(folder))
    changed = _read_otherwise(mapping, *sources, where=where, smoke=smoke)
    try:
        study = parse_study(mapping, where=where)
    except ConfigError as error:
        raise ConfigError(f"{error} ({changed})" if changed else str(error)) from None
    if renamed:
        notify(f"{where}: {'; '.join(dict.fromkeys(renamed))}; the old names are still read")
    if changed:
        notify(f"{where}: {changed}")
    return study


def _assemble(
    text: str,
    overrides: Iterable[str] | Mapping[str, Any],
    settings: Mapping[str, Any],
    folder: Path | None,
    *,
    where: str,
    smoke: bool,
    read: Callable[[str], Any],
    renamed: list[str],
) -> dict[str, Any]:
    """Return the settings of all layers as one mapping, which is not validated yet."""
    loaded = _document(text, read, where)
    changes = loaded.pop("smoke", None)
    mapping = current_form(Study, loaded, renamed=renamed)
    if smoke:
        if not isinstance(changes, dict) or not changes:
            raise ConfigError(f"{where}: --smoke: the study has no section `smoke`; shrink it with --set instead")
        for key, value in changes.items():
            _assign(mapping, str(key), value, where=f"{where}: smoke.{cut(str(key))}", renamed=renamed)
        mapping["name"] = f"{mapping.get('name', Study.model_fields['name'].default)}-smoke"
    if folder is not None:
        _find_dataset(mapping.get("dataset"), folder)
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            _assign(mapping, str(key), value, where=f"overrides: {cut(str(key))}", renamed=renamed)
        overrides = ()
    for override in overrides:
        key, sign, value_text = override.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--set {cut(override)}: expected key=value, such as --set recipe.epochs=10")
        try:
            value = read(value_text)
        except LimitError as error:
            raise ConfigError(f"--set {cut(override)}: {error}") from None
        except DocumentError:
            value = value_text
        _assign(mapping, key.strip(), value, where=f"--set {cut(override)}", renamed=renamed)
    for key, value in settings.items():
        if value is not None:
            _assign(mapping, key.replace("__", "."), value, where=where, renamed=renamed)
    return mapping


def _find_dataset(dataset: Any, folder: Path) -> None:
    """Make a study file's `dataset.path` absolute: it is relative to the file's folder.

    It was relative to the working folder, where it is still found if it isn't beside the file.
    """
    path = dataset.get("path") if isinstance(dataset, dict) else None
    if isinstance(path, str) and not path.startswith("~") and not os.path.isabs(path):
        beside = os.path.join(folder, path)
        if os.path.isdir(beside) or not os.path.isdir(path):  # never raise
            dataset["path"] = beside


def dump_study(study: Study) -> str:
    """Return the study as a YAML file that YAML 1.1 and 1.2 read alike."""
    return write_yaml(study.dump())


def source_settings(source: str) -> list[str]:
    """Return the overrides that make the default study one of a source; of class-per-folder trees as whole images."""
    whole = ["dataset.storage=jpeg", "recipe.images={}", "recipe.padding=0"] if source == "imagefolder" else []
    return [f"dataset.source={source}", f"name={source}", *whole]


def parse_study(mapping: Mapping[str, Any], *, where: str, recorded: bool = False) -> Study:
    """Validate a mapping, under current or old names, as a study.

    Args:
        mapping: of settings.
        where: names it in errors.
        recorded: whether it was run before: then its networks need not be importable here.

    Raises:
        ConfigError: with a line for every mistake.
    """
    try:
        return Study.model_validate(current_form(Study, mapping), context=RECORDED if recorded else None)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        problems = [f"{where}: {_explain(e)}" for e in errors[:MOST_PROBLEMS]]
        left = len(errors) - len(problems)
        raise ConfigError("\n".join(problems + [f"{where}: and {left:,} mistakes more"] * bool(left))) from None


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(MAX_CHARACTERS + 1)  # the rest of a text that is too long anyway is not read
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"{path}: no such study file{hint}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 ({error.reason} at byte {error.start:,}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from None


def _document(text: str, read: Callable[[str], Any], where: str) -> dict[str, Any]:
    try:
        loaded = read(text)
    except DocumentError as error:
        raise ConfigError(f"{where}: {error}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{where}: expected a mapping of settings, found {type(loaded).__name__}")
    return loaded


def _read_otherwise(
    mapping: Mapping[str, Any],
    text: str,
    overrides: Iterable[str] | Mapping[str, Any],
    settings: Mapping[str, Any],
    folder: Path | None,
    *,
    where: str,
    smoke: bool,
) -> str:
    """Return what YAML 1.1 reads otherwise where that is a valid study, and another one; else an empty text."""
    try:
        before = _assemble(
            text,
            overrides,
            settings,
            folder,
            where=where,
            smoke=smoke,
            read=partial(read_yaml, version="1.1"),
            renamed=[],
        )
        if before == mapping or _same(parse_study(before, where=where), mapping):
            return ""
    except ConfigError:
        return ""
    old, new = flat_settings(before), flat_settings(mapping)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    values = [f"{cut(k)} is {shown(new.get(k))} (as YAML 1.1: {shown(old.get(k))})" for k in changed[:MOST_PROBLEMS]]
    return f"read as YAML 1.2: {'; '.join(values)}{'; …' if len(changed) > len(values) else ''}"


def _same(study: Study, mapping: Mapping[str, Any]) -> bool:
    try:
        return study == Study.model_validate(mapping)
    except ValidationError:
        return False


def _texts(value: Any) -> Iterable[str]:
    """Yield the texts in nested settings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def flat_settings(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= flat_settings(inner, f"{prefix}.{name}".lstrip("."))
    return flat


def _assign(mapping: dict[str, Any], dotted: str, value: Any, *, where: str, renamed: list[str]) -> None:
    """Set the value at a dotted name, old or current, of a mapping by current names."""
    change: Any = value
    if dotted.count(".") >= MAX_DEPTH:
        raise ConfigError(f"{where}: a key of more than {MAX_DEPTH} parts")
    for part in reversed(dotted.split(".")):
        change = {part: change}
    change = current_form(Study, change, renamed=renamed)
    for _ in dotted.split(".")[:-1]:
        ((parent, change),) = change.items()
        mapping = mapping.setdefault(parent, {})
        if not isinstance(mapping, dict):
            raise ConfigError(f"{where}: {shown(parent)} is a value, not a section")
    mapping.update(change)


def _explain(error: Any) -> str:
    location = ".".join(cut(str(part)) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{location}: unknown key; {_nearest(error['loc'])}"
    message = error["msg"].removeprefix("Value error, ")
    value = error.get("input")
    said = isinstance(value, dict | BaseModel) or shown(value) in message
    got = "" if said else f" (got {_value(value)}{_hint(error['type'], value)})"
    return f"{location + ': ' if location else ''}{message[:1].lower() + message[1:]}{got}"


def _value(value: Any) -> str:
    return f"the date {value}" if isinstance(value, date) else shown(value)


def _hint(kind: str, value: Any) -> str:
    """Return what to do where YAML takes a text for a number, a date or nothing."""
    plain = isinstance(value, bool | int | float | date) or value is None
    return "; put it in quotes if it is a text" if kind == "string_type" and plain else ""


def _nearest(location: tuple[Any, ...]) -> str:
    model: type[BaseModel] = Study
    for part in location[:-1]:
        annotation = next((f.annotation for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        model = next(iter(held_sections(annotation)), model)  # an index into a list leaves us in the list's own section
    valid = [field.alias or name for name, field in model.model_fields.items()]
    wanted, everywhere = str(location[-1]), {leaf: path for path, leaf in _leaves(Study)}
    abbreviated = [leaf for leaf in (*valid, *everywhere) if "_" in leaf and wanted == _initials(leaf)]
    if path := everywhere.get(wanted):
        return f"did you mean {path}?"
    if abbreviated:
        return f"did you mean {abbreviated[0] if abbreviated[0] in valid else everywhere[abbreviated[0]]}?"
    if near := difflib.get_close_matches(cut(str(location[-1])), valid, n=2, cutoff=0.5):
        return "did you mean " + " or ".join(near) + "?"
    return "valid keys here: " + ", ".join(valid)


def _initials(name: str) -> str:
    return "".join(word[0] for word in name.split("_"))


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, field in model.model_fields.items():
        key = field.alias or name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", key
