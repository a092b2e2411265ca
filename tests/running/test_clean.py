"""`gentrain clean` lists exactly what nothing needs, and removes it whole; studies lose nothing."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest

from gentrain import api
from gentrain.cli import run
from gentrain.events import EpochDone, GenerationDone
from gentrain.report.write import write_report
from gentrain.running.clean import find_unneeded, remove_unneeded
from gentrain.store.done import DONE, MODEL
from gentrain.store.folder import Folder
from gentrain.store.removal import files_below
from gentrain.store.run import RunStore
from gentrain.store.study_record import StudyRecord
from gentrain.study.lineage import build_chain
from tests.finished import finish
from tests.s3 import s3_server

SHORT = ("recipe.epochs=1", "recipe.milestones=[]")


class StopError(Exception):
    pass


def after_the_patriarch(event):
    if isinstance(event, GenerationDone):
        raise StopError


def quiet(_event):
    pass


def listed(store, **options):
    root = f"{store.root}/"
    return {item.path.removeprefix(root): item.kind for item in find_unneeded(store, older_than=0, **options).items}


def specs_of(study, data="d" * 64):
    return build_chain(study, data=data, num_classes=10).specs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder with a finished study, an unfinished one, and an orphan generation and dataset; and their names."""
    from gentrain.study.loading import load_study
    from tests.conftest import SMALL

    runs = tmp_path_factory.mktemp("clean") / "runs"

    def small(*overrides):
        return load_study(overrides=[*SMALL, *SHORT, *overrides])

    api.run(small("name=finished"), runs=str(runs), local=True)
    with pytest.raises(StopError):
        api.run(small("name=unfinished", "seed=1"), runs=str(runs), local=True, observe=after_the_patriarch)
    (row,) = api.run(small("name=gone", "seed=2", "generations=0"), runs=str(runs), local=True)
    shutil.rmtree(runs / "studies" / "gone")
    data = api.prepare(small("dataset.limit=5"), runs=str(runs)).folder.name
    for name in ("finished", "unfinished"):
        (runs / "studies" / name / "ray.log").write_text("Ray said much")
    return runs, {f"generations/{row['key']}": "generation", f"data/{data}": "prepared data"}, small


@pytest.fixture
def runs(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "runs")
    return tmp_path / "runs"


def test_exactly_what_nothing_needs_is_listed_and_removed_on_yes_alone(trained, runs, capsys):
    _, orphans, small = trained
    store = RunStore(str(runs))
    orphans = orphans | {"studies/finished/ray.log": "log"}
    assert listed(store) == orphans
    before = sorted(runs.rglob("*"))
    assert run(["clean", "--runs", str(runs), "--older-than", "0"]) == 0
    assert "nothing is removed without --yes" in capsys.readouterr().out
    assert sorted(runs.rglob("*")) == before
    assert run(["clean", "--runs", str(runs), "--older-than", "0", "--json", "--yes"]) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert {row["path"].removeprefix(f"{runs}/") for row in rows} == set(orphans)
    assert err.startswith("gentrain: removed: ")
    assert [path for path in before if not path.exists()]
    assert not any((runs / path).exists() for path in orphans)
    assert listed(store) == {}
    events = []
    folder = api.open_run(str(runs))
    assert [cell.state for cell in next(iter(folder.status("finished").chains.values()))] == ["done", "done"]
    api.run(small("name=finished"), runs=str(runs), local=True, observe=events.append)
    assert [event for event in events if isinstance(event, EpochDone)] == []
    assert write_report(store, "finished", training=False).report.missing == ()
    api.run(small("name=unfinished", "seed=1"), runs=str(runs), local=True, observe=events.append)
    assert [event.generation for event in events if isinstance(event, EpochDone)] == [1]


def test_what_changed_lately_is_only_counted(runs, capsys):
    assert find_unneeded(RunStore(str(runs))).items == ()
    assert run(["clean", "--runs", str(runs), "--yes"]) == 0
    out, err = capsys.readouterr()
    assert err == "gentrain: 3 more changed less than 1 day ago (--older-than)\n"
    assert out == f"nothing to remove in {runs}\n"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("studies/finished/study.yaml", lambda path: path.write_text("name: [")),
        ("studies/finished/study.yaml", Path.unlink),
        ("studies/unfinished/chains", lambda path: next(path.iterdir()).write_text("{")),
        ("studies/unfinished/chains", shutil.rmtree),
    ],
)
def test_where_a_study_cant_be_read_no_generation_and_no_data_is_listed(runs, name, damage):
    damage(runs / name)
    leftovers = find_unneeded(RunStore(str(runs)), older_than=0)
    assert {item.kind for item in leftovers.items} <= {"log"}
    assert leftovers.notes[-1] == "so no generation and no prepared data is listed: it may be needed"
    assert str(runs / Path(name).parent) in leftovers.notes[0] or "unfinished" in leftovers.notes[0]


def test_what_isnt_gentrains_is_kept_and_named(trained, runs):
    _, orphans, _ = trained
    generation, data = orphans
    (runs / generation / "notes.txt").write_text("mine")
    (runs / data / "notes.txt").write_text("mine")
    (runs / "generations" / "thesis").mkdir()
    (runs / "elsewhere").mkdir()
    (runs / "generations" / ("0" * 16)).symlink_to(runs / "elsewhere")
    leftovers = find_unneeded(RunStore(str(runs)), older_than=0)
    assert [item.kind for item in leftovers.items] == ["log"]
    assert sorted(note.removeprefix(f"{runs}/") for note in leftovers.notes) == [
        f"{data}/notes.txt: no file of a prepared dataset; the folder is kept",
        f"generations/{'0' * 16}: no generation's folder; kept",
        f"{generation}/notes.txt: no file of a generation; the folder is kept",
        "generations/thesis: no generation's folder; kept",
    ]


def test_what_a_process_is_at_work_on_is_kept(trained, runs):
    store = RunStore(str(runs))
    generation, data = trained[1]
    key = generation.rpartition("/")[2]
    items = find_unneeded(store, older_than=0).items
    lines = []
    lock = store.root / "data" / f".preparing-{data.removeprefix('data/')}"
    with store.generation(key).locked(waiting=pytest.fail), lock.locked(waiting=pytest.fail):
        assert listed(store) == {"studies/finished/ray.log": "log"}
        remove_unneeded(store, items[:2], notify=lines.append)
    assert [line.partition(": ")[2] for line in lines] == ["kept: it is needed, or worked on, by now"] * 2
    assert store.generation(key).inspect().valid
    assert (runs / data / "manifest.json").exists()


def test_a_study_that_began_after_the_list_was_made_keeps_its_own(trained, runs):
    store, small = RunStore(str(runs)), trained[2]
    items = find_unneeded(store, older_than=0).items
    events = []
    api.run(small("name=again", "seed=2", "generations=0"), runs=str(runs), local=True, observe=quiet)
    api.prepare(small("dataset.limit=5"), runs=str(runs))
    lines = []
    remove_unneeded(store, items, notify=lines.append)
    assert len(lines) == 1  # the generation; nobody needs the data
    api.run(small("name=again", "seed=2", "generations=0"), runs=str(runs), local=True, observe=events.append)
    assert [event for event in events if isinstance(event, EpochDone)] == []


def test_the_data_of_a_study_whose_source_is_gone_is_kept(small, tmp_path):
    study = small("dataset.source=cifar10", f"dataset.path={tmp_path / 'gone'}")
    store = RunStore(str(tmp_path / "runs"))
    StudyRecord(study, store=store).begin([build_chain(study, data="d" * 64, num_classes=10)])
    for source in ("cifar10", "cifar100"):
        (store.data / f"{source}-0123456789ab").mkdir(parents=True)
        (store.data / f"{source}-0123456789ab" / "train.beton").write_bytes(b"")
    assert listed(store) == {"data/cifar100-0123456789ab": "prepared data"}


def test_teachers_of_what_is_needed_are_kept(small, tmp_path):
    store, specs = RunStore(str(tmp_path)), specs_of(small("generations=2"))
    for spec in specs:
        finish(store, spec, seconds=1.0)
    chain = build_chain(small("generations=2"), data="d" * 64, num_classes=10)
    last = chain.model_copy(update={"specs": chain.specs[2:]})
    StudyRecord(small(), store=store).begin([last])
    assert listed(store) == {}


def test_old_checkpoints_and_temporary_files_are_listed_and_removed(trained, runs):
    store = RunStore(str(runs))
    (entry, *_) = sorted((runs / "studies/finished/chains").iterdir())
    key = json.loads(entry.read_text())["keys"][0]
    folder = store.generation(key)
    (folder.train).write("epoch-00001.0123456789abcdef.safetensors", b"x" * 1000)
    litter = runs / "studies" / "finished" / ".0123abcd-1-2.tmp"
    litter.write_bytes(b"half")
    os.utime(litter, (0, 0))
    shards = runs / "data" / ".shards-digits-000000000000"
    shards.mkdir()
    expected = trained[1] | {
        "studies/finished/ray.log": "log",
        f"generations/{key}/train": "checkpoints",
        "studies/finished/.0123abcd-1-2.tmp": "temporary file",
        "data/.shards-digits-000000000000": "temporary file",
    }
    assert listed(store) == expected
    lines = []
    assert remove_unneeded(store, find_unneeded(store, older_than=0).items, notify=lines.append) > 1000
    assert (lines, listed(store)) == ([], {})
    assert folder.inspect().valid


@pytest.mark.parametrize("at", range(6))
def test_a_removal_that_is_killed_leaves_no_half_generation(small, tmp_path, monkeypatch, at):
    store, (spec,) = RunStore(str(tmp_path)), specs_of(small("generations=0"))
    finish(store, spec, seconds=1.0)
    calls, unlink = [], os.unlink

    def killed(*arguments, **options):
        calls.append(arguments)
        if len(calls) > at:
            raise KeyboardInterrupt
        unlink(*arguments, **options)

    items = find_unneeded(store, older_than=0).items
    monkeypatch.setattr(os, "unlink", killed)
    with contextlib.suppress(KeyboardInterrupt):
        remove_unneeded(store, items, notify=pytest.fail)
    monkeypatch.undo()
    inspection = store.generation(spec.key).inspect()
    assert inspection.valid or (inspection.done is None and not store.generation(spec.key).names())
    remove_unneeded(store, find_unneeded(store, older_than=0).items, notify=pytest.fail)
    assert listed(store) == {}
    assert not list((tmp_path / "generations").glob(".removed-*"))
    finish(store, spec, seconds=1.0)  # and the name is free
    assert store.generation(spec.key).inspect().valid


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as monkeypatch, s3_server(monkeypatch) as bucket:
        yield bucket


def test_on_s3_a_removal_forgets_first_that_the_generation_is_finished(small, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path))
    store = RunStore(bucket("clean"))
    kept, orphan = specs_of(small())[0], specs_of(small("seed=1", "generations=0"))[0]
    for spec in (kept, orphan):
        finish(store, spec, seconds=1.0)
    data = api.prepare(small("dataset.limit=3"), runs=store.uri).folder.name
    StudyRecord(small(), store=store).begin([build_chain(small(), data="d" * 64, num_classes=10)])
    expected = {f"generations/{orphan.key}": "generation", f"data/{data}": "prepared data"}
    assert listed(store) == expected
    items = find_unneeded(store, older_than=0).items

    def killed(_folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "delete_all", killed)
        for item in items:
            with pytest.raises(KeyboardInterrupt):
                remove_unneeded(store, [item], notify=pytest.fail)
    folder = store.generation(orphan.key)
    assert folder.inspect().done is None
    assert any(file.name.startswith("model.") for file in files_below(folder))
    assert "manifest.json" not in (store.root / "data" / data).names()
    assert remove_unneeded(store, find_unneeded(store, older_than=0).items, notify=pytest.fail) > 0
    assert listed(store) == {}
    assert files_below(folder) == files_below(store.root / "data" / data) == []
    assert store.generation(kept.key).inspect().valid


def test_on_s3_a_claim_that_is_held_keeps_its_generation(small, bucket):
    store, (spec,) = RunStore(bucket("held")), specs_of(small("generations=0"))
    finish(store, spec, seconds=1.0)
    folder = store.generation(spec.key)
    with folder.claimed("another", waiting=pytest.fail):
        assert listed(store) == {}
    assert listed(store) == {f"generations/{spec.key}": "generation"}
    assert {DONE, MODEL}.isdisjoint(folder.names())
