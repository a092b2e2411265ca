"""A generation's folder says what its data was; few classes have no top-5 error anywhere."""

import json
import shutil

import pytest
import torch

import gentrain
from gentrain import cli
from gentrain.data.prepare.manifest import Manifest
from gentrain.errors import ConfigError
from gentrain.events import Note
from gentrain.store.done import DATA
from gentrain.study.loading import dump_study
from gentrain.train import exported
from tests.conftest import SMALL

STUDY = gentrain.load_study(
    overrides=[*SMALL, "dataset.classes=['0','1','2','3','4','5']", "recipe.epochs=1", "recipe.milestones=[]"]
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a folder with a finished study of six classes: its file and its run folder, and what `chain` printed."""
    folder = tmp_path_factory.mktemp("six")
    (folder / "study.yaml").write_text(dump_study(STUDY))
    gentrain.run(STUDY, runs=str(folder / "runs"), local=True)
    return folder


@pytest.fixture
def runs(finished, tmp_path):
    """Return a copy of the run folder without its prepared data."""
    shutil.copytree(finished / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("*.beton", "manifest.json"))
    return tmp_path / "runs"


def test_a_folder_has_classes_size_mean_and_std(finished):
    (manifest,) = (finished / "runs" / "data").glob("*/manifest.json")
    for folder in (finished / "runs" / "generations").iterdir():
        assert (folder / DATA).read_bytes() == manifest.read_bytes()
    assert Manifest.parse((folder / DATA).read_bytes()).classes == tuple("012345")


def test_networks_reports_and_evaluations_need_the_prepared_data_no_more(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exported, "_programs", lambda *_, **__: {})
    chain = gentrain.open_run(str(runs)).chain("small")
    assert chain.generation(1).module()(torch.zeros(1, 8, 8, 3, dtype=torch.uint8)).shape == (1, 6)
    chain.ensemble().export(tmp_path / "model")
    assert gentrain.load_model(tmp_path / "model").classes == tuple("012345")
    assert gentrain.open_run(str(runs)).evaluate("small").manifest.classes == tuple("012345")
    assert cli.run(["evaluate", "small", "--split", "train", "--runs", str(runs)]) == 2
    assert "no prepared dataset of D(0.6,0.6)-resnet8-s0; run gentrain prepare on its study" in capsys.readouterr().err
    assert cli.run(["report", "small", "--no-training-scores", "--runs", str(runs)]) == 0
    page = (runs / "studies" / "small" / "report" / "report.html").read_text()
    assert "8 × 8" in page


def test_a_copy_of_other_data_or_damaged_is_not_believed(runs):
    network = gentrain.open_run(str(runs)).chain("small").generation(0)
    file = runs / "generations" / network.specs[0].key / DATA
    other = json.loads(file.read_text()) | {"fingerprint": "0" * 64}
    file.write_bytes(Manifest.model_validate({k: v for k, v in other.items() if k != "digest"}).file_content())
    with pytest.raises(ConfigError, match="no prepared dataset"):
        network.module()


def test_a_run_adds_it_to_generations_of_before(finished, tmp_path):
    shutil.copytree(finished / "runs", tmp_path / "runs")
    files = sorted((tmp_path / "runs" / "generations").glob(f"*/{DATA}"))
    before = files[0].read_bytes()
    files[0].unlink()
    files[1].write_bytes(before[:-9])
    events = []
    gentrain.run(STUDY, runs=str(tmp_path / "runs"), local=True, progress=events.append)
    assert [file.read_bytes() for file in files] == [before, before]
    (line,) = [event.text for event in events if isinstance(event, Note) and DATA in event.text]
    assert line.endswith(f"{DATA} and 1 more: missing or damaged; written again")
    gentrain.run(STUDY, runs=str(tmp_path / "runs"), local=True, progress=events.append)
    assert sum(isinstance(event, Note) and DATA in event.text for event in events) == 1


def test_six_classes_have_no_top_5_error(finished, capsys):
    runs = str(finished / "runs")
    assert cli.run(["chain", str(finished / "study.yaml"), "--local", "--runs", runs]) == 0
    assert cli.run(["evaluate", "small", "--runs", runs]) == 0
    assert cli.run(["report", "small", "--no-training-scores", "--runs", runs]) == 0
    printed = capsys.readouterr().out
    assert "top-1 error" in printed
    assert "top-5" not in printed
    assert "top-5" not in (finished / "runs" / "studies" / "small" / "report" / "report.html").read_text()
