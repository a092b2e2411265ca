"""A run folder that version 0.1 made, before the modules moved into rooms: found, reused and reported as before.

old-store.tar.gz holds the generations and studies of five small studies (`as-written.yaml`), and what the old commands
printed of each: `gentrain status --json`, and the report's tables.csv.
"""

import csv
import json
import math
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gentrain import cli
from gentrain.events import GenerationDone, GenerationStarted, InChain
from gentrain.running.local import LocalExecutor
from gentrain.running.study import run_study
from gentrain.store.run import RunStore
from gentrain.study.loading import load_study

ARCHIVE = Path(__file__).with_name("old-store.tar.gz")
STUDIES = ("grid", "beyond", "given", "given-file", "begun")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    runs = tmp_path_factory.mktemp("old") / "runs"
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(runs, filter="data")
    return runs


def written(runs, study, name):
    return (runs / "studies" / study / name).read_text()


def run(runs, study, monkeypatch):
    """Run a study's file as it was written, in this process; return its rows and events."""
    monkeypatch.chdir(runs.parent)
    events = []
    path = runs / "studies" / study / "as-written.yaml"
    rows = run_study(
        load_study(path), store=RunStore(str(runs)), executor=LocalExecutor(), observe=events.append, on_change="keep"
    )
    return rows, [event.event if isinstance(event, InChain) else event for event in events]


@pytest.mark.parametrize("study", STUDIES)
def test_its_status_is_read_as_before(unpacked, study, capsys):
    assert cli.run(["status", study, "--runs", str(unpacked), "--json"]) == 0
    ours, theirs = (
        list(map(json.loads, text.splitlines()))
        for text in (capsys.readouterr().out, written(unpacked, study, "expected-status.jsonl"))
    )
    assert [_named(row, theirs[0]) for row in ours] == theirs


@pytest.mark.parametrize("study", STUDIES)
def test_its_report_says_what_it_said(unpacked, study, capsys):
    options = ["--runs", str(unpacked), "--no-training-scores", "--format", "csv"]
    assert cli.run(["report", study, *options]) == 0
    ours, theirs = (
        list(csv.DictReader(text.splitlines()))
        for text in (capsys.readouterr().out, written(unpacked, study, "expected-tables.csv"))
    )
    theirs = [row for row in theirs if not predicted_at_another_temperature(row)]
    assert [{**_named(row, theirs[0]), "mean": ""} for row in ours] == [{**row, "mean": ""} for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert math.isclose(float(one["mean"]), float(other["mean"]), rel_tol=1e-9), (one, other)


def _named(row, names):
    """Return the fields of a row that version 0.1 had."""
    return {name: row[name] for name in names}


def predicted_at_another_temperature(row):
    """Return whether the row of a report is a student's predicted score at T ≠ 1, which no formula gives."""
    return row["row"] == "predicted" and "T2.0" in row["process"] and row["column"] != "Gen #0"


@pytest.mark.parametrize("study", ["grid", "beyond", "given", "given-file"])
def test_what_is_finished_is_reused(unpacked, study, monkeypatch):
    before = pq.read_table(unpacked / "studies" / study / "results.parquet").to_pylist()
    rows, events = run(unpacked, study, monkeypatch)
    assert not [event for event in events if isinstance(event, GenerationStarted)]
    assert all(event.reused for event in events if isinstance(event, GenerationDone))
    for row in rows:
        old = next(r for r in before if (r["chain"], r["generation"]) == (row["chain"], row["generation"]))
        if study == "beyond" and row["generation"]:  # at T = 2, where version 0.1 predicted as at T = 1
            assert (row["primary_predicted"], old.pop("primary_predicted") > 0) == (None, True)
        for name, value in old.items():
            assert row[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), name
    (settings,) = {json.dumps(row["settings"] is not None) for row in _chains(unpacked, study, rows)}
    assert settings == "true"  # recorded from now on, so that nobody needs to guess them


def _chains(runs, study, rows):
    for name in {row["chain"] for row in rows}:
        yield json.loads((runs / "studies" / study / "chains" / f"{name}.json").read_text())


def test_what_was_begun_goes_on_from_its_checkpoint(unpacked, monkeypatch):
    rows, events = run(unpacked, "begun", monkeypatch)
    assert [(e.generation, e.epoch) for e in events if isinstance(e, GenerationStarted)] == [(1, 2), (2, 0)]
    assert [e.reused for e in events if isinstance(e, GenerationDone)] == [True, False, False]
    planned = [json.loads(line)["key"] for line in written(unpacked, "begun", "expected-status.jsonl").splitlines()]
    assert [row["key"] for row in rows] == planned
