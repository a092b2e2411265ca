"""What a person waits for: which libraries the commands import, and how often a large plan does costly things."""

import gc
import subprocess
import sys
from collections import Counter

import pytest

from gentrain import api, cli
from gentrain.results import status
from gentrain.running.plan import make_plan
from gentrain.store.folder import Folder
from gentrain.store.run import RunStore
from gentrain.store.study_record import StudyRecord
from gentrain.study import lineage
from gentrain.study.lineage import GenerationSpec, build_forest
from gentrain.study.loading import load_study
from tests.finished import finish

LISTED = """
import contextlib, io, sys
from gentrain.cli import app
with contextlib.redirect_stdout(io.StringIO()):
    try:
        app(sys.argv[2:])
    except SystemExit as end:
        assert not end.code, end.code
print([name for name in sys.argv[1].split(",") if name in sys.modules])
"""
HEAVY = "torch,ray,matplotlib,numba,sklearn,PIL,jinja2,scipy"


@pytest.mark.parametrize(
    ("libraries", "arguments"),
    [(f"{HEAVY},pyarrow,numpy,pydantic", ["--help"]), (HEAVY, ["status"])],
)
def test_commands_that_only_look_import_nothing_heavy(tmp_path, libraries, arguments):
    process = subprocess.run(
        [sys.executable, "-c", LISTED, libraries, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert process.stdout == "[]\n", process.stderr


def test_a_plan_of_a_network_that_was_counted_before_imports_no_torch(tmp_path, monkeypatch):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    settings = ["dataset.source=digits", "network.name=resnet26"]
    assert api.plan(load_study(overrides=settings)).footprint
    options = [part for setting in settings for part in ("--set", setting)]
    process = subprocess.run(
        [sys.executable, "-c", LISTED, HEAVY, "plan", *options], capture_output=True, text=True, check=False
    )
    assert process.stdout == "[]\n", process.stderr


def test_plan_and_status_search_for_garbage_rarely(tmp_path, monkeypatch):
    seen, before = [], gc.get_threshold()
    monkeypatch.setattr(api, "open_run", lambda runs: seen.append(gc.get_threshold()) or api.RunFolder(runs))
    assert cli.run(["status", "--runs", str(tmp_path)]) == 0
    assert [threshold for threshold, *_ in seen] == [cli.OBJECTS_BETWEEN_COLLECTIONS]
    assert gc.get_threshold() == before
    assert cli.run(["plan", "--gpus", "0", "--runs", str(tmp_path)]) == 2
    assert gc.get_threshold() == before


def test_a_plan_of_1000_chains_hashes_every_generation_once_and_reads_every_file_once(tmp_path, monkeypatch):
    process = [{"f_a1": f, "lambda": lam} for f in (0.5, 0.6, 0.7, 0.8, 0.9) for lam in (0.2, 0.4, 0.6, 0.8)]
    networks = ["resnet8", "resnet14", "resnet20", "resnet26", "resnet32"]
    grid = {"network": networks, "seed": list(range(10)), "process": process}
    study = load_study(overrides={"grid": grid, "dataset.source": "digits"})
    store = RunStore(str(tmp_path))
    finished = list(build_forest(study, data="d", num_classes=10).specs.values())[:40]
    for spec in finished:
        finish(store, spec, seconds=1.0)
    calls = Counter()

    def counted(owner, name):
        original = getattr(owner, name)

        def call(*rest, **named):
            calls[name] += 1
            return original(*rest, **named)

        monkeypatch.setattr(owner, name, call)

    counted(lineage, "stored_form")
    counted(Folder, "read_record")
    counted(GenerationSpec, "parse")
    forest = build_forest(study, data="d", num_classes=10)
    plan = make_plan(forest, study, store=store, devices=8)
    assert (len(forest.chains), len(forest.specs), len(plan.finished)) == (1000, 5250, 40)
    assert calls["stored_form"] == 5250
    assert calls["read_record"] == 2 * 40  # the record and the spec
    assert calls["parse"] == 0


def test_status_reads_nothing_of_generations_that_were_never_begun(tmp_path, monkeypatch):
    study = load_study(overrides={"grid": {"seed": list(range(5))}, "dataset.source": "digits", "generations": 2})
    store = RunStore(str(tmp_path))
    forest = build_forest(study, data="d", num_classes=10)
    StudyRecord(study, store=store).begin(forest.chains)
    (begun, *_) = forest.specs.values()
    finish(store, begun, seconds=1.0)
    read = []
    original = status._generation
    monkeypatch.setattr(status, "_generation", lambda store, key: read.append(key) or original(store, key))
    cells = [cell for chain in status.study_status(store, study.name).chains.values() for cell in chain]
    assert read == [begun.key]
    assert [cell.state for cell in cells] == ["done", *["waiting"] * 14]
