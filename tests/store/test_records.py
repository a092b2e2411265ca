"""Records vouch for themselves: no flipped bit of DONE.json or spec.json is accepted, old records get digests."""

import contextlib
import json
import multiprocessing
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gentrain.errors import ConfigError, StoreError
from gentrain.events import Note
from gentrain.results.chain import Generations
from gentrain.running.chain import ensure_generation
from gentrain.running.records import mend_records
from gentrain.store.done import DONE, SPEC
from gentrain.store.run import RunStore
from gentrain.store.study_record import (
    RESULTS,
    StudyRecord,
    decode_rows,
    recorded_chains,
    recorded_study,
)
from gentrain.study.lineage import build_chain
from gentrain.study.loading import load_study
from tests.conftest import SMALL
from tests.finished import SCORES, finish


@pytest.fixture
def generation(tmp_path):
    """Return a store, the spec of a finished generation, and its folder."""
    store = RunStore(str(tmp_path))
    study = load_study(overrides=[*SMALL])
    spec = build_chain(study, data="d", num_classes=10).specs[0]
    finish(store, spec, seconds=1.25, validation_scores=SCORES)
    return store, spec, store.generation(spec.key)


def flips(content):
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def parsed(content):
    try:
        return json.dumps(json.loads(content), sort_keys=True)
    except ValueError:
        return None


def test_no_flipped_bit_of_the_record_is_accepted(generation):
    _, _, folder = generation
    content = folder.read(DONE)
    assert folder.inspect().valid
    same = 0
    for changed in flips(content):
        if parsed(changed) == parsed(content):
            same += 1
            continue
        assert type(folder.inspect().done).parse(changed, key=folder.key) is None, changed
    assert same < len(content)


def test_no_flipped_bit_of_the_spec_is_accepted(generation):
    _, spec, folder = generation
    content = folder.read(SPEC)
    for changed in random.Random(0).sample(list(flips(content)), 500):
        folder.write(SPEC, changed)
        assert folder.inspect().damaged == (SPEC,)
        assert folder.spec() in (None, spec)


@pytest.mark.parametrize(
    "change",
    [
        {"scores": SCORES | {"top1_error": 1.5}},
        {"scores": SCORES | {"nll": float("nan")}},
        {"scores": {"top1_error": 0.5}},
        {"scores": {**SCORES, "other": 0.5}},
        {"workers": 0},
        {"more": 1},
    ],
)
def test_a_record_without_digest_is_still_checked(generation, change):
    _, _, folder = generation
    old = as_written_by_version_0_1(folder)
    assert folder.inspect().valid
    folder.write_json(DONE, old | change)
    assert folder.inspect().damaged == (DONE,)


def test_a_score_that_cannot_be_recorded_is_said_in_one_line(generation):
    store, spec, _ = generation
    with pytest.raises(StoreError, match="can't record") as error:
        finish(store, spec, seconds=float("nan"))
    assert "\n" not in str(error.value)


def test_a_damaged_spec_is_restored_and_said(generation):
    store, spec, folder = generation
    sound = folder.read(DONE)
    for content in (b"{}", b"", None):
        folder.delete(SPEC) if content is None else folder.write(SPEC, content)
        events = []
        mend_records([spec], Generations(store, []), store=store, observe=events.append)
        assert [event.level for event in events] == ["warning"]
        assert "spec.json was damaged and is restored" in events[0].text
        assert folder.inspect().valid
        assert folder.spec() == spec
    mend_records([spec], Generations(store, []), store=store, observe=pytest.fail)
    assert json.loads(folder.read(DONE))["scores"] == json.loads(sound)["scores"]


def test_a_spec_that_is_damaged_during_a_run_is_restored_without_training(generation):
    from gentrain.running.chain import lease_by_claim

    store, spec, folder = generation
    folder.write(SPEC, b"{}")

    class Runner:
        lease = staticmethod(lease_by_claim(store))
        run_generation = staticmethod(lambda *_, **__: pytest.fail("trained"))

    events = []
    assert ensure_generation(spec, store=store, runner=Runner(), observe=events.append)
    assert [type(event) for event in events] == [Note]
    assert folder.spec() == spec


def test_old_records_get_their_digests_once(generation):
    store, spec, folder = generation
    as_written_by_version_0_1(folder)
    assert folder.inspect().valid
    events = []
    mend_records([spec], Generations(store, []), store=store, observe=events.append)
    assert ["without digests by an older version" in event.text for event in events] == [True]
    assert folder.done().digest
    assert SPEC in folder.done().files
    assert folder.inspect().valid
    mend_records([spec], Generations(store, []), store=store, observe=pytest.fail)


def test_a_record_that_lost_its_digest_is_not_an_old_one(generation):
    _, _, folder = generation
    record = json.loads(folder.read(DONE))
    del record["digest"]
    folder.write_json(DONE, record)
    assert folder.inspect().damaged == (DONE,)


def as_written_by_version_0_1(folder):
    record = json.loads(folder.read(DONE))
    del record["digest"], record["files"][SPEC]
    folder.write_json(DONE, record)
    return record


ROWS = 8


def _add(runs, chain):
    record = StudyRecord(load_study(overrides=[*SMALL]), store=RunStore(runs))
    for generation in range(ROWS):
        record.add([{"chain": chain, "generation": generation, "key": "k"}])


def test_processes_that_add_rows_at_once_lose_none(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_add, args=(str(tmp_path), f"c{i}")) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    (path,) = tmp_path.glob("studies/*/results.parquet")
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == 4 * ROWS


def test_checks_at_once_do_not_delete_each_others_file(tmp_path, monkeypatch):
    names = []
    write = type(RunStore(str(tmp_path)).root).write
    monkeypatch.setattr(type(RunStore(str(tmp_path)).root), "write", lambda s, n, c: (names.append(n), write(s, n, c)))
    for _ in range(2):
        RunStore(str(tmp_path)).check_writable()
    assert len(set(names)) == 2
    assert not list(tmp_path.iterdir())


def test_a_flipped_bit_of_a_study_record_is_damage(tmp_path):
    """study.yaml, chains/*.json and results.parquet: none is read with another content."""
    store = RunStore(str(tmp_path))
    study = load_study(overrides=[*SMALL])
    chain = build_chain(study, data="d", num_classes=10)
    record = StudyRecord(study, store=store)
    record.begin([chain])
    row = {"chain": chain.name, "generation": 0, "key": chain.keys[0], "top1_error": 0.25, "seed": 0}
    record.add([row])
    (rows,) = [decode_rows(record.folder.read("results.parquet"), "small")]
    entries = recorded_chains(store, "small", warn=pytest.fail)

    def sampled(content):
        return random.Random(0).sample(list(flips(content)), 150)

    for changed in sampled(record.folder.read("study.yaml")):
        record.folder.write("study.yaml", changed)
        with contextlib.suppress(StoreError, ConfigError):
            assert recorded_study(store, "small") == study
    record.begin([chain])
    chains, name = record.folder / "chains", f"{chain.name}.json"
    for changed in sampled(chains.read(name)):
        chains.write(name, changed)
        assert recorded_chains(store, "small", warn=lambda _: None) in (entries, {})
    for changed in sampled(record.folder.read("results.parquet")):
        assert decode_rows(changed, "small") in (rows, None)
    assert decode_rows(record.folder.read("results.parquet"), "another study") is None


def test_records_of_version_0_1_without_digests_are_read(tmp_path):
    store = RunStore(str(tmp_path))
    study = load_study(overrides=[*SMALL])
    chain = build_chain(study, data="d", num_classes=10)
    record = StudyRecord(study, store=store)
    record.begin([chain])
    content = record.folder.read("study.yaml")
    record.folder.write("study.yaml", content.partition(b"\n")[2])
    chains, name = record.folder / "chains", f"{chain.name}.json"
    entry = json.loads(chains.read(name))
    del entry["digest"]
    chains.write_json(name, entry)
    assert recorded_study(store, "small") == study
    assert recorded_chains(store, "small", warn=pytest.fail)[chain.name].keys == chain.keys
    row = {"chain": chain.name, "generation": 0, "key": chain.keys[0]}
    record.folder.write_table("results.parquet", pa.Table.from_pylist([row], RESULTS))
    record.add([row | {"generation": 1}])
    rows = decode_rows(record.folder.read("results.parquet"), "small")
    assert [row["generation"] for row in rows] == [0, 1]
