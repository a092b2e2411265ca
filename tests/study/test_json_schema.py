"""The JSON Schema of study files: what editors take, complete and underline."""

import json
from pathlib import Path

import pytest

from gentrain.study.documents import read_yaml
from gentrain.study.json_schema import SCHEMA_FILE, schema_line, schema_text, study_schema
from gentrain.study.loading import load_study

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "experiments").glob("*.yaml"))
VALID = jsonschema.Draft7Validator(study_schema())


def problems(text):
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in VALID.iter_errors(read_yaml(text))]


def test_the_packages_schema_is_the_settings_own():
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run `make docs`"


def test_the_schema_is_one_of_draft_7():
    jsonschema.Draft7Validator.check_schema(study_schema())
    text = schema_text()
    assert '"prefixItems"' not in text  # of later drafts: draft 7 ignores it
    assert '"$defs"' not in text
    json.loads(text)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_experiment_is_valid_and_names_the_schema(path):
    text = path.read_text()
    assert problems(text) == []
    named = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == SCHEMA_FILE.resolve()
    assert schema_line(named) == text.splitlines(keepends=True)[0]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("recipe: {epoch: 1}", "recipe: Additional properties are not allowed ('epoch' was unexpected)"),
        ("recipe: {epochs: 0}", "recipe.epochs: 0 is less than the minimum of 1"),
        ("recipe: {epochs: many}", "recipe.epochs: 'many' is not of type 'integer'"),
        ("dataset: {source: cifar11}", "dataset.source: 'cifar11' is not"),
        ("recipe: {images: {scale: [0.1, 0.2, 0.3]}}", "recipe.images: "),
        ("process: {student: {name: klx}}", "process.student: "),
        ("grid: {process: [{lambda: much}]}", "grid.process.0.lambda: "),
        ("smoke: {recipe.epoch: 1}", "smoke: "),
        ("smoke: {recipe.epochs: 0}", "smoke.recipe.epochs: 0 is less than the minimum of 1"),
    ],
)
def test_what_is_wrong_is_underlined_where_it_stands(text, place):
    assert [line for line in problems(text) if line.startswith(place)]


@pytest.mark.parametrize(
    "text",
    [
        "network: {name: mynets:small, students: resnet8}",
        "process: {student: {name: mylosses:Focal, gamma: 2}, k: {top_p: 0.9}, lambda: [0.5, 0.4]}\ngenerations: 2",
        "smoke: {process.student.name: kl, grid.seed: [0], recipe.images: {}}",
        "dataset: {path: null}\npatience: null\ncompile: true",
    ],
)
def test_what_is_valid_is_not_underlined(text):
    assert problems(text) == []


def test_the_whole_default_study_is_valid():
    assert list(VALID.iter_errors(load_study().dump())) == []
