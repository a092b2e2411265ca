"""Test records and tables of a report: the paper's figures beside ours, spread over seeds, text in every format."""

import csv
import io
import re
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gentrain.data.prepare.manifest import Duplicates, Manifest
from gentrain.report.formats import FORMATS, latex, markdown
from gentrain.report.gather import gather_study
from gentrain.report.matrix import SHOWN, _order, matrix_plot
from gentrain.report.records import ChainRecord, GenerationRecord, Group, StudyReport, baseline
from gentrain.report.rows import Cell, ReportTable, Row
from gentrain.report.tables import build_tables
from gentrain.report.training import TrainingScores
from gentrain.report.tree import build_trees
from gentrain.results.published import PUBLISHED, deviations, paper_recipe, published_rows
from gentrain.scores.confusion import score_by_rank, second_class_matrix
from gentrain.scores.metrics import calibration_error, reliability, top_k_error
from gentrain.scores.spread import Spread
from gentrain.store.run import RunStore
from gentrain.store.study_record import StudyRecord
from gentrain.study.lineage import build_forest
from gentrain.study.loading import load_study, parse_study
from gentrain.view import show
from gentrain.view.report import report_tables

TABLES = {
    ("cifar100", "densenet100", "top1_error"): """
        22.88
        23.96 21.29 20.51 20.83 21.01 21.27
        - 20.22 18.29 17.62 17.32 17.05
        23.96 21.72 20.77 21.02 21.47 21.61
        - 20.57 19.19 18.63 17.94 17.42""",
    ("cifar100", "densenet190", "top1_error"): """
        17.17
        18.87 17.42 17.26 17.13 17.24 17.01
        - 16.64 16.00 15.41 15.24 15.11
        18.87 17.81 17.55 17.51 17.37 17.50
        - 16.91 16.12 15.72 15.15 14.85""",
    ("imagefolder", "resnet18", "top1_error"): """
        30.50
        32.52 30.28 30.12 29.92 29.77 29.60
        - 30.01 28.94 28.51 28.23 28.08""",
    ("imagefolder", "resnet18", "top5_error"): """
        11.07
        11.23 10.23 10.15 10.25 10.19 10.11
        - 9.98 9.53 9.36 9.28 9.23""",
}
"""The paper's tables 1 and 2, row by row: baseline, then each process alone and with its ensemble."""
PAPER_GRID = [{"f_a1": 1.0, "lambda": 0.0}, {"f_a1": 0.6, "lambda": 0.6}, {"f_a1": 0.6, "lambda": 0.7}]


def figures(text):
    return [[None if word == "-" else float(word) for word in line.split()] for line in text.strip().splitlines()]


def test_every_published_number_is_there_once():
    counted = 0
    for (source, network, measure), text in TABLES.items():
        rows = published_rows(source, network)
        for row, wanted in zip(rows, figures(text), strict=True):
            assert [row.at(measure, g) for g in range(len(wanted))] == wanted
            assert row.at(measure, len(wanted)) is None
            counted += sum(figure is not None for figure in wanted)
    held = sum(figure is not None for row in PUBLISHED for errors in row.errors.values() for figure in errors)
    assert held == counted + 9 == 70 + 9  # those of tests/report/test_published.py
    assert [(row.label, row.ensemble) for row in published_rows("cifar100", "densenet190")] == [
        ("D(1.0,0.0)", False), ("D(0.6,0.6)", False), ("D(0.6,0.6)", True), ("D(0.6,0.7)", False), ("D(0.6,0.7)", True),
    ]  # fmt: skip
    assert published_rows("cifar100", "resnet20") == ()


def begin(store, **settings):
    """Record a study as a run does before it trains anything."""
    study = parse_study({"name": "paper", "generations": 5, **settings}, where="test")
    StudyRecord(study, store=store).begin(build_forest(study, data="none", num_classes=100).chains)
    return study


DENSENETS = {
    "recipe": {"epochs": 300, "batch_size": 64, "milestones": [150, 225]},
    "grid": {"process": PAPER_GRID, "network": ["densenet100", "densenet190"]},
}
ILSVRC2012 = {
    "dataset": {"source": "imagefolder", "storage": "jpeg"},
    "network": {"name": "resnet18"},
    "recipe": {"epochs": 100, "batch_size": 1024, "learning_rate": 0.6, "milestones": [30, 60, 90], "padding": 0,
               "images": {}},
    "grid": {"process": PAPER_GRID[:1]},
}  # fmt: skip


def test_students_at_another_temperature_have_no_prediction(tmp_path):
    store = RunStore(str(tmp_path))
    begin(store, grid={"process": [{"f_a1": 0.6, "lambda": 0.5, "temperature": t} for t in (1, 2)]}, generations=2)
    report = gather_study(store, "paper")
    measures = next(table for table in build_tables(report) if table.id == "measures-0")
    predicted = [line.texts for line in measures.lines() if line.label == "  predicted"]
    assert predicted == [("0.600", "0.800", "0.900"), ("0.600", "–", "–")]
    assert "which holds for student loss kl at temperature 1 (– elsewhere)" in measures.notes[1]


@pytest.mark.parametrize("settings", [DENSENETS, ILSVRC2012])
def test_published_numbers_stand_beside_a_place_for_ours_before_anything_is_trained(tmp_path, settings):
    """The second study has only the baseline; the paper's other rows are shown too, marked as not in this study."""
    store = RunStore(str(tmp_path))
    study = begin(store, **settings)
    tables = build_tables(gather_study(store, "paper"))
    text = FORMATS["markdown"][1](tables)
    source, checked = study.dataset.source, 0
    for (their_source, network, measure), wanted in TABLES.items():
        if their_source != source:
            continue
        name = {"top1_error": "top-1", "top5_error": "top-5"}[measure]
        section = next(part for part in text.split("## ") if part.startswith(f"{network}: {name} error"))
        paper = re.findall(r"^\| &nbsp;&nbsp;paper \|(.*)\|$", section, re.MULTILINE)
        cells = [[cell.strip() for cell in line.split("|")] for line in paper]
        dashed = [[f"{f:.2f}" if f is not None else "–" for f in [*row, *[None] * (6 - len(row))]]
                  for row in figures(wanted)]  # fmt: skip
        assert sorted(cells) == sorted(dashed)
        checked += 1
    assert checked == 2
    assert ("not in this study" in text) == (settings is ILSVRC2012)
    from_a_website = (
        "takes table 1's from a website (github.com/bearpaw/pytorch-classification); its own reimplementation"
    )
    assert text.count(from_a_website) == (2 if settings is DENSENETS else 0)
    assert "| 0.00" not in text
    records = list(csv.DictReader(io.StringIO(FORMATS["csv"][1](tables))))
    assert all(record["mean"] == record["difference"] == "" for record in records if record["published"])
    assert sum(bool(record["published"]) for record in records) == {"cifar100": 46, "imagefolder": 24}[source]


def test_an_ensemble_is_bold_only_where_it_is_better():
    single = Row("x", (Cell(2.0), Cell(2.0), Cell(2.0), Cell()), process="p")
    ensemble = Row("  + ensemble", (Cell(), Cell(1.5), Cell(2.5), Cell(1.0)), "ensemble", process="p")
    table = ReportTable("t", "t", "n", ("a", "b", "c", "d"), (single, ensemble))
    assert [list(line.bold()) for line in table.lines()] == [
        [("2.00", False), ("2.00", False), ("2.00", False), ("–", False)],
        [("–", False), ("1.50", True), ("2.50", False), ("1.00", False)],
    ]
    assert "| – | **1.50** | 2.50 | 1.00 |" in markdown([table])
    assert r"\textbf{1.50}" in latex([table])


def test_differences_are_ours_minus_the_papers_in_points():
    row = Row("D", (Cell(21.79, 0.1, 3, 21.29), Cell(None, published=20.51), Cell(20.0)))
    ours, paper, difference = row.lines()
    assert ours.texts == ("21.79 ± 0.10", "–", "20.00")
    assert paper.texts == ("21.29", "20.51", "–")
    assert difference.texts == ("+0.50", "–", "–")


def test_missing_seeds_are_marked():
    whole, part = Cell(1, 0.5, 3), Cell(2, 0.5, 2, partial=True)
    assert next(Row("x", (part, Cell(), part)).lines()).label == "x, n=2"
    assert next(Row("x", (whole, part)).lines()).texts == ("1.00 ± 0.50", "2.00 ± 0.50 (n=2)")
    assert next(Row("x", (whole, Cell())).lines()).label == "x"


def test_settings_that_differ_from_the_papers_are_listed():
    point = parse_study(DENSENETS | {"grid": {}, "network": {"name": "densenet100"}}, where="test")
    assert deviations(point, num_classes=100) == ()
    assert deviations(parse_study({}, where="test"), num_classes=100) == ()  # the defaults are the paper's
    ilsvrc = parse_study(ILSVRC2012 | {"grid": {}}, where="test")
    assert deviations(ilsvrc, num_classes=1000) == ()
    assert deviations(ilsvrc, num_classes=10, images=1000) == (
        "1,000 training images (the paper: 1,281,167)", "10 classes (ILSVRC2012: 1,000)",
    )  # fmt: skip
    changed = load_study(
        overrides=["recipe.epochs=6", "recipe.milestones=[3]", "dataset.limit=10", "dataset.groups=[fish]",
                   "process.k=3", "dataset.validation=0.1", "network.students=resnet8"]
    )  # fmt: skip
    text = " ".join(deviations(changed, num_classes=5))
    for part in ("recipe.epochs is 6 (the paper: 164)", "[3] (the paper: [82, 123])", "subset of the classes",
                 "10 images a class", "process.k is 3", "validation is 0.1", "students is resnet8"):  # fmt: skip
        assert part in text
    assert paper_recipe("digits", "resnet20") is None
    assert paper_recipe("cifar100", "resnet8") is None


def made(name, process, seeds, values, *, series="p0"):
    """Return a group without a store: `values` are errors by generation, or None where it isn't trained."""
    chains = []
    for seed in seeds:
        study = parse_study({"process": process, "seed": seed, "network": {"name": "resnet8"}}, where="test")
        records = tuple(
            GenerationRecord(g, f"{name}{seed}{g}", "waiting" if value is None else "done", 0, 0.5,
                             values={} if value is None else {"top1_error": value + seed / 100})
            for g, value in enumerate(values)
        )  # fmt: skip
        chains.append(ChainRecord(f"{study.process.label}-resnet8-s{seed}", study, records))
    return Group(series, tuple(chains))


def report_of(*groups):
    study = parse_study({"dataset": {"source": "cifar100"}, "network": {"name": "resnet8"}}, where="test")
    return StudyReport(study, "runs", groups, {}, (), None, None)


def test_spread_is_the_sample_standard_deviation_over_seeds():
    group = made("a", {"f_a1": 0.6, "lambda": 0.6}, (0, 1, 4), [0.3, 0.2, None])
    spread = group.spread("top1_error", 1)
    assert (spread.n, spread.mean) == (3, pytest.approx(statistics.fmean([0.2, 0.21, 0.24])))
    assert spread.std == pytest.approx(statistics.stdev([0.2, 0.21, 0.24]))
    assert group.spread("top1_error", 2) is None
    assert group.last == 1
    assert Spread({0: 1.0}).std is None


def test_the_ensemble_gain_is_the_networks_error_minus_the_ensembles():
    """An ensemble that errs less gains: 30 % alone and 20 % together are +10 points; seeds without one don't count."""
    group = made("a", {"f_a1": 0.6, "lambda": 0.6}, (0, 1), [0.4, 0.3])
    first = group.chains[0].generations[1]
    values = {"top1_error": 0.3, "ensemble_top1_error": 0.2, "ensemble_nll": 1.5}
    better = replace(first, values=values)
    chain = replace(group.chains[0], generations=(group.chains[0].generations[0], better))
    group = Group("p0", (chain, group.chains[1]))
    assert group.gain(0) is None
    assert group.gain(1).values == {0: pytest.approx(0.1)}
    measures = build_tables(report_of(group))[-1]
    lines = {line.label: line.texts for line in measures.lines()}
    assert lines["D(0.6,0.6) ensemble gain, points, n=1"] == ("–", "+10.00")  # of two seeds


def test_the_baseline_is_the_patriarch_of_any_strict_chain():
    strict = made("a", {"f_a1": 1.0, "lambda": 0.5}, (0, 1), [0.3, 0.2])
    tolerant = made("b", {"f_a1": 0.6, "lambda": 0.5}, (0,), [0.4, 0.1], series="p1")
    assert baseline((tolerant,), "top1_error") is None
    assert baseline((strict, tolerant), "top1_error").mean == pytest.approx(0.305)
    tables = build_tables(report_of(strict, tolerant))
    lines = {line.label: line.texts for line in tables[1].lines()}
    assert lines["Baseline D(1.0,0.0)"] == ("30.50 ± 0.71", "–")
    assert lines["BornAgain D(1.0,0.5)"] == ("30.50 ± 0.71", "20.50 ± 0.71")
    overview = {line.label: line.texts for line in tables[0].lines()}
    assert overview["D(0.6,0.5), n=1"][-1] == "-20.00"  # of seed 0 alone, which both have


def test_missing_generations_are_listed_by_chain():
    report = report_of(made("a", {"f_a1": 0.6, "lambda": 0.6}, (0,), [0.3, None, None]))
    assert report.missing == ("D(0.6,0.6)-resnet8-s0: Gen #1 to #2 not trained yet",)
    assert report.finished == 1


def test_text_formats_hold_any_name_and_stay_rectangular(capsys):
    group = made("a", {"f_a1": 1.0, "lambda": 0.5}, (0, 1), [0.3, None])
    chain = group.first
    network = chain.study.network.model_copy(update={"name": "a|b_c&d%<e>"})
    renamed = ChainRecord(chain.name, chain.study.model_copy(update={"network": network}), chain.generations)
    tables = build_tables(report_of(Group("p0", (renamed, *group.chains[1:]))))
    text = FORMATS["markdown"][1](tables)
    assert r"a\|b\_c&d%\<e>" in text
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
    assert len(set(bars)) <= 2  # the overview's columns and the generations'
    latex = FORMATS["latex"][1](tables)
    assert r"a|b\_c\&d\%$<$e$>$" in latex
    for part in latex.split(r"\begin{tabular}")[1:]:
        body = part.split(r"\end{tabular}")[0]
        columns = body[: body.index("\n")].count("r") + 1
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {columns}
    records = list(csv.DictReader(io.StringIO(FORMATS["csv"][1](tables))))
    first = next(record for record in records if record["table"] == "top1-0" and record["column"] == "Gen #0")
    assert float(first["mean"]) == pytest.approx(30.5)
    assert first["n"] == "2"
    show(*report_tables(tables))
    assert "30.50" in capsys.readouterr().out


SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4]], dtype=np.float32)


def test_figure_1_by_hand():
    assert score_by_rank(SCORES) == pytest.approx([(0.7 + 0.5 + 0.4) / 3, (0.2 + 0.4 + 0.3) / 3, (0.1 + 0.1 + 0.3) / 3])
    second = second_class_matrix(SCORES, np.array([0, 2, 2]))
    assert second.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 1]]  # of equal scores the lower class comes first


@given(arrays.arrays(np.float64, (9, 4), elements=st.floats(0, 1)), st.lists(st.integers(0, 3), min_size=9, max_size=9))
def test_reliability_and_ranks_agree_with_the_metrics(scores, labels):
    labels = np.array(labels)
    count, confidence, hits = reliability(scores, labels)
    assert count.sum() == 9
    assert np.abs(hits - confidence).sum() / 9 == pytest.approx(calibration_error(scores, labels))
    assert hits.sum() / 9 == pytest.approx(1 - top_k_error(scores, labels, k=1))
    assert score_by_rank(scores).sum() == pytest.approx(scores.sum() / 9)
    assert np.trace(second_class_matrix(scores, labels)) / 9 == pytest.approx(
        top_k_error(scores, labels, k=1) - top_k_error(scores, labels, k=2)
    )


def manifest_of(classes, groups=None):
    return Manifest(
        version=1, source="imagefolder", fingerprint="f", classes=tuple(f"class {i}" for i in range(classes)),
        groups=None if groups is None else tuple(f"group {i}" for i in range(max(groups) + 1)),
        class_groups=groups, height=8, width=8, mean=(0, 0, 0), std=(1, 1, 1), splits={},
        duplicates=Duplicates(within={}, across={}), skipped=(),
    )  # fmt: skip


def scores_of(classes):
    second = np.random.default_rng(0).integers(0, 9, (classes, classes))
    second[7, 8], second[3, 900 % classes] = 99, 98
    return TrainingScores("k", "resnet8", "D(0.6,·)", 0, int(second.sum()), 0.1, np.full(classes, 1 / classes), second)


def test_matrices_of_many_classes_stay_readable():
    groups = tuple(i % 20 for i in range(100))
    order = _order([scores_of(100)], manifest_of(100, groups))
    assert [groups[index] for index in order] == sorted(groups)
    thousand = manifest_of(1000)
    order = _order([scores_of(1000)], thousand)
    assert len(order) <= SHOWN
    assert {3, 7, 8, 900} <= set(order.tolist())
    assert f"Of 1,000 classes the {len(order)}" in matrix_plot([scores_of(1000)], thousand).caption
    assert matrix_plot([], thousand) is None


def test_the_lineage_shows_every_generation_once_and_without_overlap(tmp_path):
    store = RunStore(str(tmp_path))
    process = [*PAPER_GRID, {"f_a1": 1.0, "lambda": 0.5}]
    begin(
        store,
        network={"name": "resnet8"},
        grid={"process": process, "seed": [0, 1], "network": ["resnet8", "resnet14"]},
    )
    report = gather_study(store, "paper")
    trees = build_trees(report)
    assert [tree.network for tree in trees] == ["resnet8", "resnet14"]
    for tree in trees:
        keys = [node.record.key for node in tree.nodes]
        assert len(keys) == len(set(keys)) == 2 * (1 + 5 + 1 + 2 * 5)
        places = [(node.x, node.y) for node in tree.nodes]
        assert len(set(places)) == len(places)
        assert all(node.parent in places for node in tree.nodes if node.record.generation)
        shared = [node for node in tree.nodes if len(node.chains) > 1]
        assert [(node.record.generation, len(node.chains)) for node in shared] == [(0, 2)] * 4
        assert max(y for _, y in places) < tree.height
    assert len(report.distinct) == sum(len(tree.nodes) for tree in trees)
