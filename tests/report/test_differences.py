"""Test intervals and paired differences in the report's tables and figures: what is shown, and what is left out."""

import csv
import io
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from gentrain.report.differences import MOST_PAIRS, difference_table, reference_of
from gentrain.report.drawing import Pen, draw_inline
from gentrain.report.figures import build_plots
from gentrain.report.formats import FORMATS
from gentrain.report.tables import build_tables
from tests.report.test_report import made, report_of

STRICT, TOLERANT = {"f_a1": 1.0, "lambda": 0.5}, {"f_a1": 0.6, "lambda": 0.5}


def lines_of(table):
    return {line.label: line.texts for line in table.lines()}


def test_a_difference_stands_with_its_interval_and_n():
    """Errors rise by a point a seed in both, so that they differ by the same 5 and 8 points at every seed."""
    groups = [made("a", STRICT, (0, 1, 2), [0.3, 0.25]), made("b", TOLERANT, (0, 1, 2), [0.35, 0.22], series="p1")]
    table = difference_table("resnet8", groups, id="d")
    lines = lines_of(table)
    assert lines["D(0.6,0.5) − Baseline, n=3"] == ("+5.00 ± 0.00", "-8.00 ± 0.00")
    assert lines["D(0.6,0.5) − BornAgain, n=3"] == ("+5.00 ± 0.00", "-3.00 ± 0.00")
    assert table.lines()[1].texts == ("[+0.00, +0.00]", "[-5.00, -5.00]")  # born-again minus the baseline
    assert not [note for note in table.notes if "left out" in note]
    assert all("interval" in note for note in table.notes)


def test_intervals_stand_below_each_mean_and_name_n():
    tables = build_tables(report_of(made("a", TOLERANT, (0, 1, 2), [0.3, 0.2])))
    lines = tables[1].lines()
    assert [line.label for line in lines][:2] == ["D(0.6,0.5)", "  95 % interval"]
    assert lines[1].texts == ("[28.52, 33.48]", "[18.52, 23.48]")  # 31 ± 4.303·1/√3
    assert "n = 3 unless stated, and the mean's 95 % interval by Student's t" in tables[1].notes[0]
    records = list(csv.DictReader(io.StringIO(FORMATS["csv"][1](tables))))
    record = next(record for record in records if record["table"] == "top1-0")
    ends = [float(record[name]) for name in ("low_95", "high_95")]
    assert ends == pytest.approx([28.5159, 33.4841], abs=1e-4)
    assert "[28.52, 33.48]" in FORMATS["latex"][1](tables)
    assert "[28.52, 33.48]" in FORMATS["markdown"][1](tables)


def test_one_seed_has_no_interval_anywhere():
    groups = made("a", STRICT, (0,), [0.3, 0.25]), made("b", TOLERANT, (0,), [0.35, 0.22], series="p1")
    report = report_of(*groups)
    tables = build_tables(report)
    assert "One seed, n = 1: no spread, no interval." in tables[0].notes
    for write in (FORMATS["markdown"][1], FORMATS["latex"][1]):
        text = write(tables)
        assert "95 %" not in text
        assert "±" not in text
    assert not [table for table in tables if table.id.startswith("differences")]
    plots = {plot.id: plot for plot in build_plots(report, ())}
    assert "figure2-differences" not in plots
    assert "interval" not in plots["figure2"].caption


def test_seeds_that_only_one_has_are_left_out_and_named():
    groups = [made("a", STRICT, (0, 1, 4), [0.3, 0.25]), made("b", TOLERANT, (1, 0, 7), [0.35, 0.22], series="p1")]
    table = difference_table("resnet8", groups, id="d")
    lines = lines_of(table)
    assert lines["D(0.6,0.5) − BornAgain, n=2"] == ("+5.00 ± 0.00", "-3.00 ± 0.00")  # not of seeds 4 and 7
    assert lines["BornAgain − Baseline, n=3"][1] == "-5.00 ± 0.00"
    assert table.notes[1] == (
        "Seeds that only one of the two has are left out: D(0.6,0.5) − Baseline without 4, 7; "
        "D(0.6,0.5) − BornAgain without 4, 7."
    )


def test_an_unfinished_seed_changes_n_of_its_generation_alone():
    groups = [made("a", STRICT, (0, 1, 2), [0.3, 0.25]), made("b", TOLERANT, (0, 1, 2), [0.35, 0.22], series="p1")]
    chain = groups[1].chains[2]
    half = replace(chain, generations=(chain.generations[0], replace(chain.generations[1], values={})))
    groups[1] = replace(groups[1], chains=(*groups[1].chains[:2], half))
    table = difference_table("resnet8", groups, id="d")
    assert lines_of(table)["D(0.6,0.5) − BornAgain"] == ("+5.00 ± 0.00 (n=3)", "-3.00 ± 0.00 (n=2)")
    assert "D(0.6,0.5) − BornAgain without 2" in table.notes[1]


def test_many_processes_are_compared_with_the_reference_alone():
    many = [made(str(i), {"f_a1": 0.6, "lambda": i / 10}, (0, 1), [0.3, 0.2], series=f"p{i}") for i in range(1, 7)]
    assert len(many) * (len(many) - 1) / 2 > MOST_PAIRS
    table = difference_table("resnet8", many, id="d")
    assert reference_of(many) is many[0]
    assert table.title.endswith("minus D(0.6,0.1)")
    assert [row.label for row in table.rows] == [f"D(0.6,0.{i})" for i in range(2, 7)]
    many[0] = made("b", STRICT, (0, 1), [0.3, 0.2])
    table = difference_table("resnet8", many, id="d")
    assert table.title.endswith("minus Baseline")
    assert [row.label for row in table.rows] == ["BornAgain", *(f"D(0.6,0.{i})" for i in range(2, 7))]


def test_figure_2_has_bars_of_the_interval_and_differences():
    groups = made("a", STRICT, (0, 1), [0.3, 0.25]), made("b", TOLERANT, (0, 1, 2), [0.35, 0.22], series="p1")
    plots = {plot.id: plot for plot in build_plots(report_of(*groups), ())}
    figure, differences = plots["figure2"], plots["figure2-differences"]
    assert figure.caption.endswith("Bars: 95 % interval of the mean by Student's t over n = 2 or 3 seeds.")
    svg = draw_inline(figure.panels[0], size=figure.size, prefix="f", alt="x")
    assert "D(0.6,0.5), Gen #1: 23.00 ± 1.00, 95 % interval [20.52, 25.48] (n = 3)" in svg
    axes = Figure().subplots()
    figure.panels[0].draw(Pen(axes))
    ends = [segment[:, 1].tolist() for bars in axes.collections for segment in bars.get_segments()]
    assert ends[-1] == pytest.approx([20.516, 25.484], abs=1e-3)  # of the tolerant students: 23 ± 4.303·1/√3
    assert "minus Baseline, seed by seed over the seeds that both have" in differences.caption
    svg = draw_inline(differences.panels[0], size=figure.size, prefix="f", alt="x")
    assert "D(0.6,0.5), Gen #1: -8.00 ± 0.00, 95 % interval [-8.00, -8.00] (n = 2)" in svg


@settings(max_examples=10)
@given(st.permutations([0, 1, 2, 5]), st.permutations([0, 1, 2, 5]))
def test_the_order_of_chains_changes_no_number(first, second):
    def text(strict, tolerant):
        groups = made("a", STRICT, strict, [0.3, 0.25]), made("b", TOLERANT, tolerant, [0.35, 0.22], series="p1")
        return FORMATS["csv"][1](build_tables(report_of(*groups)))

    assert text(first, second) == text((0, 1, 2, 5), (0, 1, 2, 5))
