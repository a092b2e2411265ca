"""Every study file explains itself, plans what its header says, and runs when it is shrunk."""

import functools
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from gentrain import api
from gentrain.cli import run
from gentrain.data.prepare.dataset import find_manifest
from gentrain.models.registry import build_model
from gentrain.running.pretrained import PretrainedNetworks
from gentrain.store.run import RunStore
from gentrain.store.study_record import recorded_study
from gentrain.study.lineage import build_forest
from gentrain.study.loading import load_study
from tests.images import halves, write_tree

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
STUDIES = sorted(EXPERIMENTS.glob("*.yaml"))
TRAININGS = {"figure1-cifar10": 2, "figure1-cifar100": 2, "figure2": 154, "table1": 24, "table2": 7} | {
    "kd": 9, "dist": 9, "dkd": 9, "dkd-standardised": 9, "atlas": 150, "rivals": 24,
}  # fmt: skip
"""Of the paper's own studies, and of others that are compared: patriarchs are shared."""
each = pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def data(tmp_path_factory, request):
    """Return a function that gives each source's folder; the real CIFAR-100 stands in for CIFAR-10's pixels."""

    @functools.cache
    def find(source):
        if source == "digits":
            return []
        if source == "imagefolder":
            return ["--data", str(write_tree(tmp_path_factory.mktemp("images"), halves()))]
        folder = request.getfixturevalue("cifar100")
        return ["--data", str(folder if source == "cifar100" else as_cifar10(folder, tmp_path_factory.mktemp("ten")))]

    return find


def as_cifar10(cifar100, folder):
    """Write the first ten classes of CIFAR-100 as Parquet in CIFAR-10's layout."""
    for split in ("train", "test"):
        table = pq.read_table(next(cifar100.glob(f"{split}-*.parquet")), columns=["img", "fine_label"])
        labels = table["fine_label"].to_numpy()
        table = table.take((labels < 10).nonzero()[0]).rename_columns(["img", "label"]).replace_schema_metadata()
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


@each
def test_a_study_says_what_it_reproduces_costs_and_how_to_run_it(path):
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert "Reproduces: " in header or "Shows: " in header
    assert "Costs: " in header
    assert "Run: " in header
    assert load_study(path).description
    for name in re.findall(r"experiments/([a-z0-9-]+\.yaml)", header):
        assert (EXPERIMENTS / name).exists()
    if path.stem != "quickstart":
        assert load_study(path).name == path.stem
        assert f"experiments/{path.name}" in header


@pytest.mark.parametrize(("name", "trainings"), TRAININGS.items())
def test_the_papers_studies_train_what_they_say(name, trainings):
    path = EXPERIMENTS / f"{name}.yaml"
    forest = build_forest(load_study(path), data="d", num_classes=100)
    assert len(forest.specs) == trainings
    assert f"{trainings} trainings" in path.read_text()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run folder for all: what one study has trained, the others don't."""
    folder = tmp_path_factory.mktemp("studies")
    torch.save(build_model("resnet8", num_classes=100).state_dict(), folder / "teacher.pt")
    return folder


def loaded(path, data):
    source = data(load_study(path, smoke=True).dataset.source)
    return load_study(path, smoke=True, dataset__path=source[1] if source else None), source


def check_finished(study, runs, rows):
    """Every generation of every chain is there, in the rows and in the store."""
    if study.search:  # its record has the proposals
        study = recorded_study(RunStore(str(runs)), study.name)
    manifest = find_manifest(study.dataset, runs / "data")
    given = PretrainedNetworks(RunStore(str(runs)), data=manifest.fingerprint, num_classes=len(manifest.classes))
    forest = build_forest(study, data=manifest.fingerprint, num_classes=len(manifest.classes), resolve=given)
    wanted = {(chain.name, key) for chain in forest.chains for key in chain.keys}
    assert {(row["chain"], row["key"]) for row in rows} == wanted
    assert all((runs / "generations" / key / "DONE.json").exists() for key in forest.specs)
    assert pq.read_table(runs / "studies" / study.name / "results.parquet").num_rows == len(rows) == len(wanted)


@each
def test_the_smoke_runs_the_same_path(path, data, runs, capsys, monkeypatch):
    """The whole command but for Ray, which test_sweep.py and `make slow` have."""
    monkeypatch.chdir(runs)
    study, source = loaded(path, data)
    assert run(["sweep", str(path), "--smoke", "--local", "--json", "--runs", str(runs), *source]) == 0
    check_finished(study, runs, [json.loads(line) for line in capsys.readouterr().out.splitlines()])


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@each
def test_the_smoke_runs_on_ray(path, data, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(runs)
    study, _ = loaded(path, data)
    check_finished(study, tmp_path, api.run(study, runs=str(tmp_path), observe=lambda _: None))
