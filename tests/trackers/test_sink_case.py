"""The events of a chain, and what every tracker must have got of them: each sink's test inherits the same case."""

import pytest

from gentrain.events import ChainStarted, EpochDone, GenerationDone, GenerationStarted, InChain, Note, Progress
from gentrain.trackers.feed import Feed
from gentrain.trackers.ledger import Ledger

CHAIN = "D(0.6,0.6)-resnet8-s0"
KEYS = ("00000000000000aa", "00000000000000bb")
START = ChainStarted(
    CHAIN, 3, (0.6, 0.76), KEYS, "runs", ((), (0,)), {"name": "s", "process.f_a1": 0.6, "patience": None}
)


def epoch_row(generation, epoch):
    return {
        "epoch": epoch, "seconds": 2.0, "images": 100, "images_per_second": 50.0, "learning_rate": 0.1,
        "loss": generation + 1 / epoch, "hard": 2.0, "soft": 0.5, "train_error": 0.5, "primary_score": 0.4,
        "test_error": 0.25 if epoch == 3 else None, "validation_error": None,
    }  # fmt: skip


def done_row(generation):
    ensemble = 0.125 if generation else None
    return {"chain": CHAIN, "generation": generation, "key": KEYS[generation], "top1_error": 0.25, "seed": 0,
            "ensemble_top1_error": ensemble, "ensemble_weights": None, "network": "resnet8"}  # fmt: skip


def trained(generation, epochs=(1, 2, 3), *, begun=0, ends=True):
    """Return the events of a generation; `epochs` are those that are trained now."""
    return [
        GenerationStarted(generation, KEYS[generation], begun),
        Progress(generation, 1, 50, 100, 49.0, 1.6, 2.1, 0.6, 0.41, 0.55),
        *(EpochDone(generation, epoch_row(generation, epoch)) for epoch in epochs),
        *([GenerationDone(generation, done_row(generation), False)] if ends else []),
    ]


STORY = [Note("preparing"), START, *trained(0), *trained(1)]
LOSSES = {f"{CHAIN}-g{generation}": {e: generation + 1 / e for e in (1, 2, 3)} for generation in (0, 1)}


def feed_events(sink, folder, events, *, epochs=lambda _: [], notes=None):
    """Give events to a sink, as a run does."""
    seen = [] if notes is None else notes
    ledger = Ledger(folder / "ledger.jsonl", sink.destination)
    feed = Feed("tested", sink, ledger=ledger, study="tracked", epochs=epochs, observe=seen.append)
    for event in events:
        feed(event)
    feed.close()
    if notes is None:
        assert seen == []


class SinkCase:
    """What any sink must do. `sink(folder)` opens one; `read(folder)` returns what its tracker has got.

    That is, by a run's name: pairs of epoch and loss, as they were written; the final top-1 and ensemble errors; the
    teacher's name.
    """

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr("gentrain.trackers.feed.CLOSE_SECONDS", 120.0)  # a loaded machine is no fault
        self.folder = tmp_path

    def expect(self, runs=LOSSES):
        stored = self.read(self.folder)
        assert {name: dict(run["losses"]) for name, run in stored.items()} == {
            name: pytest.approx(losses) for name, losses in runs.items()
        }
        assert [name for name, run in stored.items() if len(run["losses"]) != len(dict(run["losses"]))] == []
        return stored

    def test_every_epoch_the_scores_and_the_teacher_arrive(self):
        feed_events(self.sink(self.folder), self.folder, STORY)
        stored = self.expect()
        assert [stored[name]["errors"] for name in LOSSES] == [(0.25, None), (0.25, 0.125)]
        assert [stored[name]["teacher"] for name in LOSSES] == ["", f"{CHAIN}-g0"]

    def test_a_resumed_run_adds_its_epochs_and_repeats_none(self):
        feed_events(self.sink(self.folder), self.folder, [START, *trained(0, (1, 2), ends=False)])
        resumed = [START, *trained(0, (2, 3), begun=1), *trained(1)]
        feed_events(self.sink(self.folder), self.folder, resumed)
        reused = [GenerationDone(generation, done_row(generation), True) for generation in (0, 1)]
        feed_events(self.sink(self.folder), self.folder, [START, *reused])
        self.expect()

    def test_chains_side_by_side_stay_apart(self):
        other = ChainStarted("D(1,0)-resnet8-s0", 3, (1.0,), ("00000000000000cc",), "runs", ((),), {})
        mixed = [InChain(CHAIN, START), InChain(other.chain, other)]
        for event in trained(0):
            mixed += [InChain(CHAIN, event), InChain(other.chain, event)]
        feed_events(self.sink(self.folder), self.folder, mixed)
        self.expect({f"{CHAIN}-g0": LOSSES[f"{CHAIN}-g0"], f"{other.chain}-g0": LOSSES[f"{CHAIN}-g0"]})
