"""Every view says for which generation a run waits, who trains it, and since when."""

import io

import pytest

from gentrain.events import ChainStarted, GenerationWaiting, InChain, SweepStarted
from gentrain.view import ChainLines, ChainTable, SweepLines, SweepTable

WAITING = GenerationWaiting(0, "k0", "figure2, process 7 on a, since 2026-11-25 13:53:37")
LINE = "generation 0 (k0) is being trained by figure2, process 7 on a, since 2026-11-25 13:53:37: waiting"
CHAIN = [ChainStarted("c", 10, (0.6,), ("k0",), "runs"), WAITING]
SWEEP = [SweepStarted("s", 10, {"c": ("k0",)}, "runs"), InChain("c", WAITING)]


@pytest.mark.parametrize(
    ("view", "events", "line"),
    [(ChainLines, CHAIN, LINE), (ChainTable, CHAIN, LINE),
     (SweepLines, SWEEP, f"c: {LINE}"), (SweepTable, SWEEP, f"c: {LINE}")],
)  # fmt: skip
def test_the_holder_is_named(view, events, line):
    stream = io.StringIO()
    shown = view(stream)
    for event in events:
        shown(event)
    assert line in stream.getvalue().splitlines()


def test_a_holder_that_is_not_known_is_another_process():
    stream = io.StringIO()
    view = ChainLines(stream)
    for event in (CHAIN[0], GenerationWaiting(0, "k0")):
        view(event)
    assert stream.getvalue().splitlines()[-1] == "generation 0 (k0) is being trained by another process: waiting"
