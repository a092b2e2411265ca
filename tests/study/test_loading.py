"""Study files are YAML 1.2; settings under old names are read, and one line says so for both."""

import sys

import pytest
import yaml

from gentrain.errors import ConfigError
from gentrain.models.registry import searched_folders
from gentrain.study.lineage import build_chain
from gentrain.study.loading import dump_study, load_study, parse_study


@pytest.fixture
def load(tmp_path):
    """Return a study read from a text, and the lines about it."""

    def read(text, **settings):
        path, lines = tmp_path / "study.yaml", []
        path.write_text(text)
        study = load_study(path, notify=lines.append, **settings)
        return study, [line.removeprefix(f"{path}: ") for line in lines]

    return read


def refused(load, text, **settings):
    with pytest.raises(ConfigError) as error:
        load(text, **settings)
    assert "\n" not in str(error.value)
    return str(error.value).partition("study.yaml: ")[2]


# Old names

OLD = """
dataset: {source: imagefolder, storage: jpeg}
recipe: {pad: 0, pictures: {scale: [0.2, 1]}}
process: {k: {mass: 0.9, most: 10}}
given: [{checkpoint: teacher.pt}]
grid:
  process: [{k: {mass: 0.8, by: class}}]
  points: [{process: {k: {most: 5, mass: 0.7}}}]
teacher_pass: folded
smoke: {recipe.pad: 0, teacher_pass: exact}
"""
NEW = """
dataset: {source: imagefolder, storage: jpeg}
recipe: {padding: 0, images: {scale: [0.2, 1]}}
process: {k: {top_p: 0.9, k_max: 10}}
pretrained: [{checkpoint: teacher.pt}]
grid:
  process: [{k: {top_p: 0.8, by: class}}]
  points: [{process: {k: {k_max: 5, top_p: 0.7}}}]
fold_batchnorm: true
smoke: {recipe.padding: 0, fold_batchnorm: false}
"""


def test_old_names_mean_the_new_ones_and_one_line_says_so(load):
    (old, lines), (new, none) = load(OLD), load(NEW)
    assert old == new
    assert none == []
    assert lines == [
        "recipe.pad is now padding; recipe.pictures is now images; process.k.mass is now top_p; process.k.most is now "
        "k_max; given is now pretrained; grid.process.0.k.mass is now top_p; grid.points.0.process.k.most is now "
        "k_max; "
        "grid.points.0.process.k.mass is now top_p; teacher_pass: folded is now fold_batchnorm: true; "
        "the old names are still read"
    ]


def test_old_names_in_a_smoke_section_and_overrides_replace_new_ones_in_the_file(load):
    study, lines = load("recipe: {padding: 3}\nsmoke: {recipe.pad: 1}", smoke=True)
    assert study.recipe.padding == 1
    assert lines == ["recipe.pad is now padding; the old names are still read"]
    study, lines = load("process: {k: {top_p: 0.9, k_max: 8}}", overrides=["process.k.mass=0.8", "teacher_pass=folded"])
    assert (study.process.k.top_p, study.process.k.k_max, study.fold_batchnorm) == (0.8, 8, True)
    assert lines == [
        "process.k.mass is now top_p; teacher_pass: folded is now fold_batchnorm: true; the old names are still read"
    ]
    assert load("", overrides=["recipe={pad: 2, epochs: 200}"])[0].recipe.padding == 2


def test_both_names_of_one_setting_are_refused(load):
    assert refused(load, "recipe: {pad: 1, padding: 2}") == "recipe.pad: unknown key; did you mean padding?"
    assert refused(load, "teacher_pass: fast").startswith("fold_batchnorm: input should be a valid boolean")


def test_recorded_studies_are_read_by_their_old_names():
    old, new = yaml.safe_load(OLD), yaml.safe_load(NEW)
    del old["smoke"], new["smoke"]
    assert parse_study(old, where="runs") == parse_study(new, where="runs")


def test_old_names_make_the_same_generations():
    old = load_study(overrides=["process.k={mass: 0.95, by: class, most: 7}", "teacher_pass=folded", "recipe.pad=2"])
    new = load_study(
        overrides=["process.k={top_p: 0.95, by: class, k_max: 7}", "fold_batchnorm=true", "recipe.padding=2"]
    )
    chains = [build_chain(study, data="d" * 64, num_classes=10) for study in (old, new)]
    assert chains[0] == chains[1]
    assert chains[0].keys == chains[1].keys


# YAML 1.2


def test_a_number_with_an_exponent_is_a_number_everywhere(load):
    text = "process: {lambda: 6e-1, k: {top_p: 9e-1}}\nrecipe: {learning_rate: 1e-1}\ngenerations: 2"
    study, lines = load(text, overrides=["recipe.weight_decay=1e-3", "grid.process=[{lambda: [5e-1, 1e0]}]"])
    assert (study.process.lam, study.process.k.top_p) == (0.6, 0.9)
    assert (study.recipe.learning_rate, study.recipe.weight_decay) == (0.1, 0.001)
    assert study.grid.process[0].lam == (0.5, 1.0)
    assert lines == []  # as YAML 1.1 they were no study


def test_words_are_strings(load):
    study, lines = load("description: no\ndataset: {source: digits, classes: [on, yes]}\nname: off")
    assert (study.description, study.dataset.classes, study.name) == ("no", ("on", "yes"), "off")
    assert lines == []


def test_merge_keys_join_mappings(load):
    study, _ = load(
        "generations: 1\ngrid:\n  process:\n  - &first {f_a1: 0.7, lambda: 0.5, temperature: 2}\n"
        "  - <<: *first\n    f_a1: 0.8\n"
    )
    first, second = study.grid.process
    assert second == first.model_copy(update={"f_a1": 0.8})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("recipe:\n  epochs: 3\n  flip: no\n  epochs: 4\n", "line 4: key 'epochs' is given twice (first in line 2)"),
        ("name: a\nseed: 1\nname: b\n", "line 3: key 'name' is given twice (first in line 1)"),
        ("grid:\n  seed: [1,\n", "line 3, column 1: while parsing a flow"),
        ("name: a: b\n", "line 1, column 8: mapping values are not allowed"),
        ("name: *a\n", "line 1, column 7: found undefined alias 'a'"),
        ("name: a\n--- \nname: b\n", "line 2, column 1: expected a single document in the stream"),
        ("name: \x01\n", "not valid YAML: "),
        ("description: 2001-13-01\n", "not valid YAML: "),
    ],
)  # fmt: skip
def test_bad_yaml_is_refused_in_one_line_that_names_its_own(load, text, expected):
    message = refused(load, text)
    assert message.startswith("not valid YAML: ")
    assert expected in message


def test_what_reads_otherwise_than_before_is_named_with_both_values(load):
    study, lines = load("seed: 010\nrecipe: {milestones: [010]}\n", overrides=["generations=03"])
    assert (study.seed, study.recipe.milestones, study.generations) == (10, (10,), 3)
    assert lines == ["read as YAML 1.2: seed is 10 (as YAML 1.1: 8); recipe.milestones is [10] (as YAML 1.1: [8])"]
    study, lines = load("", overrides=["seed=0o10"])
    assert (study.seed, lines) == (8, [])  # was no number
    assert refused(load, "seed: 1:30") == (
        "seed: input should be a valid integer, unable to parse string as an integer (got '1:30') "
        "(read as YAML 1.2: seed is '1:30' (as YAML 1.1: 90))"
    )
    assert load("recipe: {flip: no, nesterov: on}")[1] == []  # words that mean the same as a switch


def test_a_dumped_study_reads_the_same_by_either_yaml(tmp_path):
    study = load_study(name="1e3", description="0o17", dataset__classes=["1e-1", "no", "0x1f", "~"], seed=3)
    text = dump_study(study)
    assert parse_study(yaml.safe_load(text), where="1.1") == study
    path, lines = tmp_path / "study.yaml", []
    path.write_text(text)
    assert load_study(path, notify=lines.append) == study
    assert lines == []


def test_a_study_whose_networks_cannot_be_imported_here_is_read_but_has_no_points(load):
    study, _ = load("grid: {network: [resnet20, elsewhere.networks:build]}")
    with pytest.raises(ConfigError, match=r"grid: network 'elsewhere\.networks:build': module .* can't be imported"):
        study.points()


def test_a_networks_module_may_lie_beside_the_study_file(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("gentrain.models.registry._searched", [])
    (tmp_path / "beside_the_study.py").write_text("def small(num_classes): pass\n")
    (tmp_path / "plain.yaml").write_text("network: {name: resnet8}\n")
    load_study(tmp_path / "plain.yaml")
    assert searched_folders() == ()
    (tmp_path / "own.yaml").write_text("network: {name: 'beside_the_study:small'}\n")
    monkeypatch.chdir(tmp_path)
    assert load_study("own.yaml").network.name == "beside_the_study:small"
    assert searched_folders() == (str(tmp_path),)
    assert sys.path[-1] == str(tmp_path)


def test_the_datasets_path_is_relative_to_the_study_file(tmp_path, monkeypatch):
    def path_of(*overrides, **options):
        return load_study("here/study.yaml", overrides=overrides, **options).dataset.path

    here = tmp_path / "here"
    here.mkdir()
    (here / "study.yaml").write_text("dataset: {path: images}\nsmoke: {dataset.path: few}\n")
    monkeypatch.chdir(tmp_path)
    assert path_of() == str(here / "images")
    (tmp_path / "images").mkdir()
    assert path_of() == "images"  # as it was read before
    (here / "images").mkdir()
    assert path_of() == str(here / "images")
    assert path_of(smoke=True) == str(here / "few")
    assert path_of("dataset.path=images") == path_of(dataset__path="images") == "images"
    for path in ("~/images", "/images"):
        (here / "study.yaml").write_text(f"dataset: {{path: {path}}}\n")
        assert path_of() == path
