"""What holds of every tracker: it ends nothing, delays nothing, misses nothing, and is no part of what is trained."""

import json
import threading

import pytest

from gentrain import api
from gentrain.cli import run
from gentrain.events import EpochDone, GenerationDone, Note
from gentrain.study.lineage import build_chain
from gentrain.study.loading import load_study
from gentrain.trackers import session
from gentrain.trackers.feed import Feed
from gentrain.trackers.ledger import DONE, Ledger
from gentrain.trackers.sink import Training
from tests.conftest import SMALL
from tests.trackers.test_sink_case import (
    CHAIN,
    KEYS,
    LOSSES,
    START,
    STORY,
    SinkCase,
    done_row,
    epoch_row,
    feed_events,
    trained,
)  # fmt: skip


class ListSink:
    """Keeps what it gets, in memory: the simplest sink."""

    destination = "memory"

    def __init__(self, folder=None, runs=None):
        self.runs = {} if runs is None else runs
        self.closed = False

    def epoch(self, training, epoch, values):
        run = self.runs.setdefault(training.name, {"losses": [], "teacher": ", ".join(training.teachers)})
        run["losses"].append((epoch, values["loss"]))

    def done(self, training, epoch, values):
        run = self.runs[training.name]
        run["errors"] = (values.get("top1_error"), values.get("ensemble_top1_error"))
        run["last"] = epoch

    def close(self):
        self.closed = True


class TestListSink(SinkCase):
    @pytest.fixture(autouse=True)
    def _kept(self):
        self.runs = {}

    def sink(self, folder):
        return ListSink(folder, self.runs)

    def read(self, _):
        return self.runs


class BrokenSink(ListSink):
    def epoch(self, training, epoch, values):
        raise OSError("the server is down\nits traceback")


class HangingSink(ListSink):
    released = threading.Event()
    reached = threading.Event()

    def epoch(self, training, epoch, values):
        self.reached.set()
        self.released.wait()


def test_what_was_missed_is_written_when_the_generation_ends(tmp_path):
    rows = [epoch_row(0, epoch) for epoch in (1, 2, 3)]
    sink, asked = ListSink(), []
    events = [START, *trained(0, (2,))]  # the first came while the tracker was down, the last was lost

    def epochs(key):
        asked.append(key)
        return rows

    feed_events(sink, tmp_path, events, epochs=epochs)
    assert dict(sink.runs[f"{CHAIN}-g0"]["losses"]) == LOSSES[f"{CHAIN}-g0"]
    assert len(sink.runs[f"{CHAIN}-g0"]["losses"]) == 3
    assert sink.runs[f"{CHAIN}-g0"]["last"] == 3
    assert asked == [KEYS[0]]
    feed_events(sink, tmp_path, [START, GenerationDone(0, done_row(0), True)], epochs=pytest.fail)
    assert sink.closed


def test_a_sink_that_raises_costs_one_line(tmp_path):
    notes = []
    feed_events(BrokenSink(), tmp_path, STORY, notes=notes)
    assert notes == [
        Note(
            "tracker tested: OSError: the server is down; training goes on, and the next run writes what is missing "
            "there",
            "warning",
        )
    ]
    sink = ListSink()
    feed_events(sink, tmp_path, STORY)  # the next run
    assert {name: dict(run["losses"]) for name, run in sink.runs.items()} == LOSSES


def test_a_sink_that_hangs_delays_nothing_and_its_end_waits_not_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("gentrain.trackers.feed.CLOSE_SECONDS", 0.0)
    monkeypatch.setattr("gentrain.trackers.feed.MOST_WAITING", 3)
    sink, notes = HangingSink(), []
    sink.reached.clear()
    sink.released.clear()
    feed = Feed("tested", sink, ledger=Ledger(tmp_path / "l", "d"), study="s", epochs=pytest.fail, observe=notes.append)
    for event in STORY:
        feed(event)
    assert sink.reached.wait(60)
    for event in STORY * 10:  # were it waited for, this would not end
        feed(event)
    assert feed._queue.qsize() <= 3
    feed.close()
    assert [note.text.partition(";")[0] for note in notes] == [
        f"tracker tested: no answer for 0 s, {feed._queue.qsize()} entries wait"
    ]
    sink.released.set()
    feed._thread.join(60)
    assert len(notes) == 1


def test_a_line_of_the_ledger_that_a_kill_cut_off_counts_for_nothing(tmp_path):
    path, training = tmp_path / "trackers" / "x.jsonl", Training("s", CHAIN, 0, KEYS[0])
    Ledger(path, "here").add(training, 1)
    path.write_bytes(path.read_bytes() + path.read_bytes()[:20])
    ledger = Ledger(path, "here")
    assert ledger.has(training) == {1}
    ledger.add(training, 2)
    ledger.add(training, DONE)
    assert Ledger(path, "here").has(training) == {1, 2, DONE}
    assert Ledger(path, "elsewhere").has(training) == frozenset()
    assert Ledger(path, "here").has(Training("s", CHAIN, 0, KEYS[1])) == frozenset()


def test_processes_that_share_a_ledger_see_what_the_others_add(tmp_path):
    ours, theirs = Ledger(tmp_path / "l", "d"), Ledger(tmp_path / "l", "d")
    training = Training("s", CHAIN, 0, KEYS[0])
    ours.add(training, 1)
    assert theirs.has(training) == {1}
    theirs.add(training, 2)
    assert ours.has(training) == {1, 2}


def test_an_address_with_a_password_is_not_written(tmp_path):
    Ledger(tmp_path / "l", "http://me:secret@server").add(Training("s", CHAIN, 0, KEYS[0]), 1)
    assert b"secret" not in (tmp_path / "l").read_bytes()


def test_trackers_are_no_part_of_a_key_and_of_no_file_where_they_are_not_used(small):
    plain, tracked = small(), small("trackers=[tensorboard, mlflow]")
    keys = [build_chain(study, data="d", num_classes=10).keys for study in (plain, tracked)]
    assert keys[0] == keys[1]
    assert "trackers" not in plain.dump()
    assert load_study(overrides=tracked.dump()) == tracked


def test_a_run_goes_on_to_the_same_results_whatever_its_tracker_does(small, tmp_path, monkeypatch):
    plain = api.run(small(), runs=str(tmp_path / "plain"), local=True)
    tracked, runs = small("trackers=[tensorboard]"), {}
    for place, kind in (("broken", BrokenSink), ("listed", lambda folder: ListSink(folder, runs))):
        monkeypatch.setattr("gentrain.trackers.tensorboard.TensorBoardSink", kind)
        events = []
        rows = api.run(tracked, runs=str(tmp_path / place), local=True, progress=events.append)
        assert [row["key"] for row in rows] == [row["key"] for row in plain]
        assert [row["top1_error"] for row in rows] == [row["top1_error"] for row in plain]
        lines = [event.text for event in events if isinstance(event, Note) and "tracker tensorboard" in event.text]
        assert len(lines) == (place == "broken")
    epochs = [(e.generation, e.row["epoch"], e.row["loss"]) for e in events if isinstance(e, EpochDone)]
    names = [f"{plain[0]['chain']}-g{generation}" for generation in (0, 1)]
    assert [(g, *pair) for g, name in enumerate(names) for pair in runs[name]["losses"]] == epochs
    assert runs[names[1]]["teacher"] == names[0]
    assert runs[names[1]]["errors"] == (plain[1]["top1_error"], plain[1]["ensemble_top1_error"])


def test_the_real_tensorboard_gets_a_run_that_was_finished_before(small, tmp_path):
    from tests.trackers.test_sinks import TestTensorBoard

    rows = api.run(small(), runs=str(tmp_path), local=True)
    for _ in range(2):  # the second time nothing is missing
        api.run(small("trackers=[tensorboard]"), runs=str(tmp_path), local=True)
    stored = TestTensorBoard.read(tmp_path / "studies" / "small")
    assert {name: [epoch for epoch, _ in run["losses"]] for name, run in stored.items()} == {
        f"{row['chain']}-g{row['generation']}": [1, 2, 3] for row in rows
    }
    lines = (tmp_path / "studies" / "small" / "trackers" / "tensorboard.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, DONE] * 2


def test_a_tracker_that_is_not_installed_is_refused_before_anything_starts(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "find_spec", lambda library: None)
    settings = [part for setting in SMALL for part in ("--set", setting)]
    assert run(["chain", *settings, "--local", "--runs", str(tmp_path / "runs"), "--track", "mlflow"]) == 2
    message = capsys.readouterr().err
    assert message == (
        "gentrain: trackers: mlflow: mlflow isn't installed here; pip install mlflow, or leave mlflow out\n"
    )
    assert not (tmp_path / "runs").exists()
    assert run(["chain", *settings, "--local", "--runs", str(tmp_path / "runs"), "--track", "comet"]) == 2
    assert "trackers.0: input should be 'tensorboard', 'mlflow', 'wandb' or 'trackio'" in capsys.readouterr().err
