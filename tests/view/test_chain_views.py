"""What a chain shows: plain lines, the live table, the table of results."""

import io

from rich.text import Text

from gentrain.events import ChainStarted, EpochDone, GenerationDone, GenerationStarted, Note, Progress, TargetsKnown
from gentrain.view import ChainLines, ChainTable, results_table

ROW = {
    "chain": "D(0.6,0.6)-resnet8-s0", "generation": 0, "key": "k0", "top1_error": 0.25, "top5_error": 0.05, "nll": 1.0,
    "ece": 0.1, "ensemble_top1_error": None, "ensemble_top5_error": None, "ensemble_nll": None, "ensemble_ece": None,
    "primary_measured": 0.61, "primary_predicted": 0.6, "train_seconds": 61.0,
}  # fmt: skip


EPOCH = {
    "epoch": 1, "seconds": 2.0, "images": 100, "images_per_second": 50.0, "learning_rate": 0.1, "loss": 1.5,
    "hard": 2.0, "soft": 0.5, "train_error": 0.5, "primary_score": 0.4, "test_error": None, "validation_error": None,
}  # fmt: skip


STORY = [
    Note("preparing"),
    ChainStarted("D(0.6,0.6)-resnet8-s0", 10, (0.6, 0.76), ("k0", "k1"), "runs/studies/x"),
    GenerationStarted(0, "k0", 0),
    Progress(0, 1, 50, 100, 49.0, 1.6, 2.1, 0.6, 0.41, 0.55),
    EpochDone(0, EPOCH),
    Note("careful", "warning"),
    GenerationDone(0, ROW, False),
]


def test_the_plain_view_tells_every_epoch():
    stream = io.StringIO()
    with ChainLines(stream) as view:
        for event in STORY:
            view(event)
    assert stream.getvalue().splitlines() == [
        "preparing",
        "D(0.6,0.6)-resnet8-s0: 2 generations of 10 epochs; results in runs/studies/x",
        "generation 0 (k0)",
        "generation 0 epoch 1/10  loss 1.5000 = hard 2.0000, soft 0.5000  primary 0.400 (target 0.600)"
        "  error: train 50.00% test –  50 images/s  38s left",
        "warning: careful",
        "generation 0 done: test error 25.00%",
    ]


def test_the_live_view_shows_every_generation():
    stream = io.StringIO()
    view = ChainTable(stream)
    for event in STORY[:4]:
        view(event)
    view.console.width = 200
    view.console.print(view._render())
    shown = stream.getvalue()
    for text in ("0.410 → 0.600", "1.600 = 2.100, 0.600", "49", "55.00%", "– → 0.760", "running", "waiting"):
        assert text in shown


def test_names_are_shown_as_they_are():
    odd = "[/b] [red]x :smile: \x1b[2J"
    shown = r"[/b] [red]x :smile: \x1b[2J"
    stream = io.StringIO()
    with ChainLines(stream) as view:
        view(Note(odd))
    assert stream.getvalue() == f"{shown}\n"
    stream = io.StringIO()
    view = ChainTable(stream)
    view(Note(odd, "warning"))
    view(ChainStarted("[/c]", 10, (0.6,), ("k0",), "[/d] :x:"))
    view.console.print(view._render())
    view.console.print(results_table([ROW | {"chain": "[/c]"}]))
    assert shown in stream.getvalue()
    assert stream.getvalue().count("[/c]") == 2
    assert "[/d] :x:" in stream.getvalue()


def test_the_views_tell_predictions_once_given_networks_are_measured():
    for kind in (ChainLines, ChainTable):
        stream = io.StringIO()
        view = kind(stream)
        view(ChainStarted("D(given-01234567,0.6)-resnet8-s0", 10, (None, None), ("k0", "k1"), "runs/studies/x"))
        if kind is ChainTable:
            view.console.width = 200
            view.console.print(view._render())
            assert "– → –" in stream.getvalue()
        view(TargetsKnown((0.7, 0.82)))
        view(GenerationStarted(1, "k1", 0))
        view(EpochDone(1, EPOCH))
        if kind is ChainTable:
            view.console.print(view._render())
        assert ("0.400 → 0.820" if kind is ChainTable else "primary 0.400 (target 0.820)") in stream.getvalue()


def test_a_chain_without_predictions_shows_dashes():
    for kind in (ChainLines, ChainTable):
        stream = io.StringIO()
        view = kind(stream)
        view(ChainStarted("D(given-01234567,0.6,T2.0)-resnet8-s0", 10, (None, None), ("k0", "k1"), "runs/studies/x"))
        view(TargetsKnown((0.7, None)))
        view(GenerationStarted(1, "k1", 0))
        view(EpochDone(1, EPOCH))
        if kind is ChainTable:
            view.console.width = 200
            view.console.print(view._render())
        assert ("0.400 → –" if kind is ChainTable else "primary 0.400 (target –)") in stream.getvalue()


def test_the_table_has_what_the_papers_tables_have():
    stream = io.StringIO()
    view = ChainLines(stream)
    other = ROW | {"generation": 1, "ensemble_top1_error": 0.2, "ensemble_top5_error": 0.04, "ensemble_nll": 0.9,
                   "ensemble_ece": 0.05}  # fmt: skip
    view.console.print(results_table([ROW, other]))
    shown = stream.getvalue()
    for text in ("Gen #0", "Gen #1", "25.00", "20.00", "predicted", "1m 01s", "+ ensemble", "–"):
        assert text in shown


def test_an_ensemble_is_bold_only_where_it_is_better():
    worse = ROW | {"ensemble_top1_error": ROW["top1_error"], "ensemble_top5_error": 0.04, "ensemble_nll": 2.0,
                   "ensemble_ece": None}  # fmt: skip
    cells = [cell for cell in results_table([worse]).columns[1].cells if isinstance(cell, Text)]
    assert [str(cell.style) for cell in cells] == ["", "bold", "", ""]


def test_markup_in_names_is_shown_not_obeyed():
    stream = io.StringIO()
    with ChainLines(stream) as view:
        view(Note("[red]class[/red] [link=x]"))
    assert stream.getvalue() == "[red]class[/red] [link=x]\n"
