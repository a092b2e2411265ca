"""Read study files: YAML 1.2, `--set a.b=value`, the section `smoke`, settings under old names; explain errors.

Every layer (the file, its smoke section, each --set) gets its current names first; then the layers are put together
and validated as a whole. Unknown keys are refused with the nearest valid ones.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from gentrain.errors import ConfigError
from gentrain.study.schema import Study
from gentrain.study.settings import current_form, held_sections


def load_study(
    path: str | Path | None = None,
    *,
    overrides: Iterable[str] = (),
    smoke: bool = False,
    notify: Callable[[str], None] = lambda _: None,
    **settings: Any,
) -> Study:
    """Read a study file, apply `a.b=value` overrides in order, then dotted keyword settings that are not None.

    The section `smoke` of a file is no setting but overrides for `smoke=True`; they come first, and the study is then
    named `<name>-smoke`, so that it can't be mixed up with the whole one.

    Args:
        path: of the file; by default the study has the paper's settings.
        overrides: such as "recipe.epochs=10".
        smoke: apply the file's section `smoke`.
        notify: gets a line for settings under an old name, and one for values that YAML 1.1 read otherwise.
        settings: by name, with `__` for a dot.

    Raises:
        ConfigError: naming the file, key, value and remedy.
    """
    where = str(path) if path else "default study"
    text = _read(Path(path)) if path else ""
    sources = (text, tuple(overrides), settings)
    renamed: list[str] = []
    mapping = _assemble(*sources, where=where, smoke=smoke, read=_yaml_1_2, renamed=renamed)
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
    overrides: Iterable[str],
    settings: Mapping[str, Any],
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
            _assign(mapping, str(key), value, where=f"{where}: smoke.{key}", renamed=renamed)
        mapping["name"] = f"{mapping.get('name', Study.model_fields['name'].default)}-smoke"
    for override in overrides:
        key, sign, value_text = override.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--set {override}: expected key=value, such as --set recipe.epochs=10")
        try:
            value = read(value_text)
        except (YAMLError, yaml.YAMLError, ValueError):
            value = value_text
        _assign(mapping, key.strip(), value, where=f"--set {override}", renamed=renamed)
    for key, value in settings.items():
        if value is not None:
            _assign(mapping, key.replace("__", "."), value, where=where, renamed=renamed)
    return mapping


def dump_study(study: Study) -> str:
    """Return the study as a YAML file that YAML 1.1 and 1.2 read alike."""
    return yaml.dump(study.dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def source_settings(source: str) -> list[str]:
    """Return the overrides that make the default study one of a source; of class-per-folder trees as whole images."""
    whole = ["dataset.storage=jpeg", "recipe.images={}", "recipe.padding=0"] if source == "imagefolder" else []
    return [f"dataset.source={source}", f"name={source}", *whole]


def parse_study(mapping: Mapping[str, Any], *, where: str) -> Study:
    """Validate a mapping, under current or old names, as a study; `where` names it in errors.

    Raises:
        ConfigError: with a line for every mistake.
    """
    try:
        return Study.model_validate(current_form(Study, mapping))
    except ValidationError as error:
        raise ConfigError("\n".join(f"{where}: {_explain(e)}" for e in error.errors())) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"{path}: no such study file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from None


def _document(text: str, read: Callable[[str], Any], where: str) -> dict[str, Any]:
    try:
        loaded = read(text)
    except DuplicateKeyError as error:
        raise ConfigError(f"{where}: not valid YAML: {_duplicate(error)}; remove one of the two") from None
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{where}: not valid YAML: {_problem(error)}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{where}: expected a mapping of settings, found {type(loaded).__name__}")
    return loaded


class _Dumper(yaml.SafeDumper):
    """Quotes texts that only YAML 1.2 takes for a number, such as 1e3."""


_FLOAT = re.compile(r"[-+]?[0-9._]+(e[-+]?[0-9]+)?", re.IGNORECASE)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"0o[0-7]+"), ["0"])


def _yaml_1_2(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)  # ruamel's C loader reads YAML 1.1


def _yaml_1_1(text: str) -> Any:
    return yaml.safe_load(text)


def _duplicate(error: MarkedYAMLError) -> str:
    key = str(error.problem).partition('"')[2].partition('"')[0]
    first = f" (first in line {error.context_mark.line + 1})" if error.context_mark else ""
    return f"line {error.problem_mark.line + 1}: key {key!r} is given twice{first}"


def _problem(error: Exception) -> str:
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    context = f"{error.context}: " if error.context else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {context}{error.problem}"


def _read_otherwise(
    mapping: Mapping[str, Any],
    text: str,
    overrides: Iterable[str],
    settings: Mapping[str, Any],
    *,
    where: str,
    smoke: bool,
) -> str:
    """Return what YAML 1.1 reads otherwise where that is a valid study, and another one; else an empty text."""
    try:
        before = _assemble(text, overrides, settings, where=where, smoke=smoke, read=_yaml_1_1, renamed=[])
        if before == mapping or _same(parse_study(before, where=where), mapping):
            return ""
    except (yaml.YAMLError, ConfigError, ValueError):
        return ""
    old, new = flat_settings(before), flat_settings(mapping)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    values = "; ".join(f"{key} is {new.get(key)!r} (as YAML 1.1: {old.get(key)!r})" for key in changed)
    return f"read as YAML 1.2: {values}"


def _same(study: Study, mapping: Mapping[str, Any]) -> bool:
    try:
        return study == Study.model_validate(mapping)
    except ValidationError:
        return False


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
    for part in reversed(dotted.split(".")):
        change = {part: change}
    change = current_form(Study, change, renamed=renamed)
    for _ in dotted.split(".")[:-1]:
        ((parent, change),) = change.items()
        mapping = mapping.setdefault(parent, {})
        if not isinstance(mapping, dict):
            raise ConfigError(f"{where}: {parent!r} is a value, not a section")
    mapping.update(change)


def _explain(error: Any) -> str:
    location = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{location}: unknown key; {_nearest(error['loc'])}"
    message = error["msg"].removeprefix("Value error, ")
    value = error.get("input")
    shown = "" if isinstance(value, (dict, BaseModel)) else f" (got {value!r})"
    return f"{location + ': ' if location else ''}{message[:1].lower() + message[1:]}{shown}"


def _nearest(location: tuple[Any, ...]) -> str:
    model: type[BaseModel] = Study
    for part in location[:-1]:
        annotation = next((f.annotation for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        model = next(iter(held_sections(annotation)), model)  # an index into a list leaves us in the list's own section
    valid = [field.alias or name for name, field in model.model_fields.items()]
    everywhere = {leaf: path for path, leaf in _leaves(Study)}
    if path := everywhere.get(str(location[-1])):
        return f"did you mean {path}?"
    if near := difflib.get_close_matches(str(location[-1]), valid, n=2, cutoff=0.5):
        return "did you mean " + " or ".join(near) + "?"
    return "valid keys here: " + ", ".join(valid)


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, field in model.model_fields.items():
        key = field.alias or name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", key
