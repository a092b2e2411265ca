"""Damaged records of a study and its generations: what status says, what a run restores."""

import json

import pytest

from gentrain import api, cli
from gentrain.events import Note
from gentrain.results.status import study_status
from gentrain.running.chain import ensure_generation, lease_by_claim
from gentrain.store.done import DONE
from gentrain.store.run import RunStore
from gentrain.store.study_record import StudyRecord, decode_rows
from gentrain.study.lineage import build_chain
from tests.finished import finish


@pytest.fixture
def recorded(tmp_path, small):
    """Return a store with two studies of one finished generation, and its chain."""
    store = RunStore(str(tmp_path))
    for name in ("small", "other"):
        chain = build_chain(small("generations=0", f"name={name}"), data="d", num_classes=10)
        StudyRecord(chain.settings, store=store).begin([chain])
    finish(store, chain.specs[0], seconds=1.0)
    return store, chain


def test_a_study_that_cannot_be_read_does_not_hide_the_others(recorded, capsys):
    store, _ = recorded
    store.study("other").write("study.yaml", b"- damaged")
    (store.study("small") / "chains").write("notes.txt", b"")
    assert cli.run(["status", "--runs", store.uri, "--json"]) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["study"] for line in out.splitlines()] == ["small"]
    assert err.splitlines() == [
        f"gentrain: {store.study('other')}/study.yaml: damaged; run the study again to restore it",
        f"gentrain: {store.study('small')}/chains/notes.txt: damaged, or no chain's; run the study again to restore "
        "it, or delete it",
    ]
    assert cli.run(["status", "other", "--runs", store.uri]) == 1


@pytest.mark.parametrize("content", [None, b"{}"], ids=["missing", "damaged"])
def test_a_generation_whose_record_is_lost_is_called_damaged_and_trained_again(recorded, content):
    store, chain = recorded
    folder = store.generation(chain.keys[0])
    folder.delete(DONE) if content is None else folder.write(DONE, content)
    status = study_status(store, "small")
    assert [cell.state for cell in status.chains[chain.name]] == ["damaged"]
    (note,) = status.notes
    assert (
        f"{folder}: {DONE} is damaged or missing, so nothing vouches for the other files; run the study again" in note
    )
    trained, events = [], []

    class Runner:
        lease = staticmethod(lease_by_claim(store))

        def run_generation(self, spec, *, weights_done, **_):
            trained.append(weights_done)
            finish(store, spec, seconds=1.0)

    assert not ensure_generation(chain.specs[0], store=store, runner=Runner(), observe=events.append)
    assert trained == [False]
    lines = [event.text for event in events if isinstance(event, Note)]
    assert lines == [f"generation 0 ({folder}): {DONE} damaged or missing; it is trained again"]


@pytest.mark.parametrize("content", [None, b"damaged"], ids=["missing", "damaged"])
def test_a_lost_table_is_written_again_with_the_rows_of_chains_that_this_run_does_not_want(small, tmp_path, content):
    runs = str(tmp_path)
    api.run(small("generations=0", "recipe.epochs=1"), runs=runs, local=True)
    second = small("generations=0", "recipe.epochs=1", "process.f_a1=0.7")
    api.run(second, runs=runs, local=True, on_change="keep")
    folder = RunStore(runs).study("small")
    rows = decode_rows(folder.read("results.parquet"), "small")
    assert len({row["chain"] for row in rows}) == 2
    folder.delete("results.parquet") if content is None else folder.write("results.parquet", content)
    events = []
    api.run(second, runs=runs, local=True, observe=events.append, on_change="keep")
    assert decode_rows(folder.read("results.parquet"), "small") == rows
    lines = [event.text for event in events if isinstance(event, Note) and event.level == "warning"]
    line = f"{folder}/results.parquet: damaged; it is written again from the generations"
    assert [text for text in lines if "results" in text] == ([] if content is None else [line])
