"""Write the JSON Schema of study files, by which editors complete, explain and check them (yaml-language-server).

It is of draft 7, which all editors read. It says less than the settings' own checks: what goes together isn't in it,
nor are old names, so an editor underlines these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gentrain.models.registry import model_names
from gentrain.study.schema import Study

DRAFT = "http://json-schema.org/draft-07/schema#"
SCHEMA_FILE = Path(__file__).with_name("study.schema.json")
"""The schema as the package has it; a test holds it equal to `schema_text`."""
FUNCTION = r"^[\w.]+:\w+$"
"""A class or function by its import path."""


def schema_line(schema: str | Path = SCHEMA_FILE) -> str:
    """Return the first line of a study file that names its schema, a path or a URL, to editors."""
    return f"# yaml-language-server: $schema={schema}\n"


def schema_text() -> str:
    """Return the content of the schema's file."""
    return json.dumps(study_schema(), indent=1, ensure_ascii=False) + "\n"


def study_schema() -> dict[str, Any]:
    """Return the JSON Schema of study files."""
    schema = Study.model_json_schema(by_alias=True, ref_template="#/definitions/{model}")
    schema["definitions"] = schema.pop("$defs")
    for name in ("ImportedPatriarch", "ImportedStudent"):
        schema["definitions"][name]["properties"]["name"]["pattern"] = FUNCTION
    for name in ("name", "students"):
        _offer_networks(schema["definitions"]["NetworkConfig"]["properties"], name)
    schema["properties"]["smoke"] = _smoke(schema)
    drafted: dict[str, Any] = _draft_7(schema)
    return {"$schema": DRAFT, "title": "A study of gentrain", **drafted}


def _offer_networks(properties: dict[str, Any], name: str) -> None:
    """Let editors offer the registered networks; any other text stays valid."""
    field = properties[name]
    kinds = field.pop("anyOf", None) or [{"type": field.pop("type")}]
    properties[name] = {"anyOf": [{"enum": list(model_names())}, *kinds], **field}


def _smoke(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of the section `smoke`: settings by their dotted names."""
    settings = dict(_dotted(schema, schema))
    mappings = [re.escape(name) for name, value in settings.items() if "anyOf" in value or value.get("items")]
    return {
        "type": "object",
        "description": "Settings by their dotted names, such as `recipe.epochs: 1`, that --smoke changes.",
        "properties": settings,
        "patternProperties": {rf"^({'|'.join(mappings)})\.": {}},
        "additionalProperties": False,
    }


def _dotted(section: Mapping[str, Any], schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of a section and of the sections within by their dotted names."""
    for name, value in section["properties"].items():
        yield f"{prefix}{name}", value
        if "$ref" in value:
            inner = schema["definitions"][value["$ref"].rpartition("/")[2]]
            yield from _dotted(inner, schema, f"{prefix}{name}.")


def _draft_7(value: Any) -> Any:
    """Return a schema of draft 2020-12 as one of draft 7: tuples, and what stands beside a reference."""
    if isinstance(value, list):
        return [_draft_7(part) for part in value]
    if not isinstance(value, dict):
        return value
    form = {key: _draft_7(part) for key, part in value.items() if not (key == "title" and isinstance(part, str))}
    if isinstance(form.get("description"), str):
        form["description"] = form["description"].partition("\n\nRaises:")[0]
    if "prefixItems" in form:
        form["items"], form["additionalItems"] = form.pop("prefixItems"), False
    if "$ref" in form and len(form) > 1:
        form["allOf"] = [{"$ref": form.pop("$ref")}]
    return form
