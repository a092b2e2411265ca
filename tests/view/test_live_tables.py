"""Test that the live tables fit the terminal: narrow ones get fewer columns, never cut texts."""

import io

import pytest
from rich.console import Console

from gentrain.events import (
    CapacityChanged,
    ChainStarted,
    Compiling,
    EpochDone,
    FinishedBefore,
    GenerationDone,
    GenerationQueued,
    InChain,
    SweepStarted,
)
from gentrain.view import ChainLines, ChainTable, SweepLines, SweepTable

KEYS = ("a" * 16, "b" * 16)
EPOCH = {
    "epoch": 100, "images_per_second": 123_456.0, "loss": 2.271, "hard": 2.155, "soft": 0.947,
    "primary_score": 0.158, "train_error": 1.0, "test_error": 1.0, "seconds": 60.0,
}  # fmt: skip
DONE = {"top1_error": 1.0, "ensemble_top1_error": 1.0, "primary_measured": 0.158, "train_seconds": 9.0}


def shown(kind, events, *, width):
    """Return the lines of the table after the events, without title and caption."""
    view = kind(io.StringIO())
    view.console = Console(file=io.StringIO(), width=width, height=30)
    for event in events:
        view(event)
    view.console.print(view._render())
    text = view.console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    return text


@pytest.mark.parametrize(
    ("width", "there", "left_out"),
    [
        (140, ["━", "loss = hard, soft", "images/s"], []),
        (120, ["loss = hard, soft", "images/s", "train err"], ["━"]),
        (110, ["loss = hard, soft", "images/s"], ["━"]),
        (80, ["images/s", "train err", "primary→target", "test err", "ensemble"], ["━", "loss"]),
        (60, ["epoch", "primary→target", "test err", "ensemble"], ["images/s", "train err"]),
        (40, ["gen", "state", "epoch", "test err"], ["primary", "ensemble"]),
        (25, ["gen", "state", "epoch", "reused"], ["test err"]),
    ],
)
def test_a_chains_table_fits_the_terminal(width, there, left_out):
    start = ChainStarted("D(0.6,0.6)-resnet8-s0", 164, (0.6, 0.76), KEYS, "runs")
    events = [start, EpochDone(0, EPOCH), GenerationDone(1, DONE, reused=True)]
    text = shown(ChainTable, events, width=width)
    assert "…" not in text
    assert "100/164" in text
    assert [name for name in there if name not in text] == []
    assert [name for name in left_out if name in text] == []


def test_a_resumed_sweep_shows_at_once_what_is_done():
    keys = ("a" * 16, "b" * 16)
    events = [SweepStarted("s", 3, {"D(0.6,0.6)-resnet8-s0": keys}, "runs"), FinishedBefore({keys[0]: 0.25})]
    text = shown(SweepTable, events, width=100)
    assert "1 of 2 trainings done, 0 running" in text
    assert "25.00%" in text


@pytest.mark.parametrize(("width", "ensembles"), [(140, True), (80, False)])
def test_a_sweeps_table_fits_the_terminal(width, ensembles):
    chain = "D(0.6,0.6)-resnet8-s0"
    keys = tuple(character * 16 for character in "abcdef")
    events = [SweepStarted("figure2-digits", 164, {chain: keys}, "runs"), CapacityChanged(2)]
    events += [InChain(chain, GenerationDone(g, DONE, reused=False)) for g in range(5)]
    text = shown(SweepTable, [*events, InChain(chain, GenerationQueued(5))], width=width)
    assert "…" not in text
    assert ("100.00% (100.00%)" in text) == ensembles
    assert text.count("100.00%") == (10 if ensembles else 5)
    assert "starting" in text


def test_a_generation_that_is_compiled_is_shown_so():
    """In the tables as its state, in the lines of a chain and of a sweep."""
    chain = "D(0.6,0.6)-resnet8-s0"
    start, compiling = ChainStarted(chain, 164, (0.6, 0.76), KEYS, "runs"), Compiling(1, KEYS[1])
    line = f"generation 1 ({KEYS[1]}): compiling (once on this machine)"
    text = shown(ChainTable, [start, GenerationQueued(1), compiling], width=80)
    assert "1    compiling  0/164" in text
    sweep = [SweepStarted("figure2", 164, {chain: KEYS}, "runs"), InChain(chain, GenerationQueued(1))]
    text = shown(SweepTable, [*sweep, InChain(chain, compiling)], width=140)
    assert "compiling" in text
    assert "1 running" in text
    for kind, events, wanted in (
        (ChainLines, [start, compiling], line),
        (SweepLines, [*sweep, InChain(chain, compiling)], f"{chain}: {line}"),
    ):
        view = kind(io.StringIO())
        for event in events:
            view(event)
        assert view.console.file.getvalue().splitlines()[-1] == wanted
