"""Sources of the user's own, by import path: docs/sources.md as it stands, and what is refused."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gentrain import SourceData, Split, load_study
from gentrain.data.prepare.dataset import prepare, prepared_name
from gentrain.data.sources.registry import load_source
from gentrain.errors import ConfigError, DataError
from gentrain.study.sections import DatasetConfig
from tests.conftest import SMALL
from tests.data.test_source_case import SourceCase

PAGE = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(STUDY,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Return the page's study file, with its module beside it, which this process forgets afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mydata", raising=False)
    (tmp_path / "mydata.py").write_text(CODE)
    (tmp_path / "study.yaml").write_text(STUDY)
    yield tmp_path / "study.yaml"
    sys.modules.pop("mydata", None)


class TestThePagesSource(SourceCase):
    @pytest.fixture(autouse=True)
    def _study(self, study):
        self.study = study

    def config(self, folder):
        return load_study(self.study).dataset


def test_a_study_of_it_runs_from_another_folder(study, tmp_path_factory):
    settings = [option for line in SMALL[3:] for option in ("--set", line)]
    command = ["chain", str(study), "--local", "--json", "--runs", "runs", *settings, "--set", "recipe.epochs=2"]
    process = subprocess.run(
        [sys.executable, "-m", "gentrain", *command, "--set", "recipe.milestones=[]"],
        cwd=(elsewhere := tmp_path_factory.mktemp("elsewhere")), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stdout.count('"generation"') == 2
    (prepared,) = (elsewhere / "runs" / "data").glob("[!.]*")
    assert prepared.name.startswith("mydata-stripes-")


def test_other_code_is_another_dataset_and_the_same_pixels_keep_their_fingerprint(study, tmp_path):
    config = load_study(study).dataset
    before = prepare(config, tmp_path / "data")
    (tmp_path / "mydata.py").write_text(f"# the same pixels\n{CODE}")
    after = prepare(config, tmp_path / "data")
    assert before.folder != after.folder
    assert before.manifest.fingerprint == after.manifest.fingerprint


def test_classes_limit_and_validation_work_as_for_other_sources(study):
    config = load_study(study, overrides=["dataset.limit=50", "dataset.validation=0.2"]).dataset
    counts = {name: len(split.labels) for name, split in load_source(config).splits.items()}
    assert counts == {"train": 80, "validation": 20, "test": 100}


ONE = Split(np.zeros((4, 8, 8, 3), np.uint8), np.arange(4) % 2)
WRONG = {
    "it returned dict": {},
    r"its splits must be train and test, not 'train' \(dataset.validation": SourceData({"train": ONE}, ("a", "b")),
    "its classes must be texts": SourceData({"train": ONE, "test": ONE}, (0, 1)),
    r"train: images are float64 of shape \(4, 8, 8\), not uint8 \(N, H, W, 3\)": SourceData(
        {"train": Split(np.zeros((4, 8, 8)), ONE.labels), "test": ONE}, ("a", "b")
    ),
    r"test: labels are int64 of shape \(3,\), not whole numbers \(4,\)": SourceData(
        {"train": ONE, "test": Split(ONE.images, np.arange(3))}, ("a", "b")
    ),
    "test: labels go from 0 to 1, with 1 classes": SourceData(
        {"train": Split(ONE.images, ONE.labels * 0), "test": ONE}, ("a",)
    ),
    "train and test images differ in size": SourceData(
        {"train": ONE, "test": Split(ONE.images[:, :4], ONE.labels)}, ("a", "b")
    ),
    "must be gentrain.Split of two NumPy arrays": SourceData({"train": ONE, "test": (1, 2)}, ("a", "b")),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_no_source_is_refused_in_one_line(message, monkeypatch):
    monkeypatch.setattr("tests.conftest.source", lambda _: WRONG[message], raising=False)
    with pytest.raises(DataError, match=rf"^dataset.source: tests.conftest:source must return .*: (\w+: )?{message}"):
        load_source(DatasetConfig(source="tests.conftest:source"))


def test_a_source_that_fails_or_is_nowhere_is_named(monkeypatch):
    monkeypatch.setattr("tests.conftest.source", lambda _: int("x"), raising=False)
    with pytest.raises(DataError, match=r"tests.conftest:source fails: ValueError: invalid literal for int"):
        load_source(DatasetConfig(source="tests.conftest:source"))
    with pytest.raises(DataError, match=r"dataset.source: tests.conftest has no function 'none'"):
        load_source(DatasetConfig(source="tests.conftest:none"))
    with pytest.raises(DataError, match=r"module nowhere can't be imported: No module .*; its module may lie beside"):
        prepared_name(DatasetConfig(source="nowhere:read"))
    for source in ("cifar", "a:b:c", "a b:c", ":c", "../a:b"):
        with pytest.raises(
            ConfigError, match=r"dataset.source: input should be 'digits', .* or package.module:function"
        ):
            load_study(overrides={"dataset.source": source})
    with pytest.raises(ConfigError, match="`storage: jpeg` is for source imagefolder; mydata:read is stored raw"):
        load_study(
            overrides={
                "dataset.source": "mydata:read",
                "dataset.storage": "jpeg",
                "recipe.images": {},
                "recipe.padding": 0,
            }
        )
