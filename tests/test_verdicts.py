"""Test the study of five groups: its verdicts follow from its statistics, and its README from its stored results."""

import re
import shutil
from pathlib import Path

import pytest

from experiments.verdicts import STUDY, Decided, decide, markdown
from gentrain import cli
from gentrain.scores.spread import Spread
from gentrain.store.run import RunStore
from gentrain.store.study_record import read_results

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / STUDY


def rows(seeds, **errors):
    """Return made-up rows: errors in per cent by process and generation, a tenth of a point more for each seed."""
    for seed in range(seeds):
        for name, own in errors.items():
            f_a1, lam = {"born_again": (1.0, 0.5), "half": (0.6, 0.5), "most": (0.6, 0.6)}[name]
            for generation, error in enumerate(own):
                yield {
                    "f_a1": f_a1, "lambda": lam if generation else None, "generation": generation, "seed": seed,
                    "top1_error": (error + seed / 10) / 100,
                    "ensemble_top1_error": (error - 1 - (f_a1 == 1.0) + seed / 20) / 100 if generation else None,
                    "ece": (5 + seed**2 / 10 - 2 * (f_a1 == 0.6)) / 100,
                    "primary_measured": 0.61 + seed / 100, "primary_predicted": 0.6 if generation < 3 else 0.9,
                }  # fmt: skip


ERRORS = {"born_again": (30, 29, 28, 28, 28), "half": (32, 31, 30, 29, 28), "most": (32, 30, 28, 27, 26)}


def test_each_question_is_decided_by_its_paired_difference():
    table = list(rows(3, **ERRORS))
    for row in table:
        if row["f_a1"] == 0.6 and row["lambda"] == 0.5 and row["generation"] == 4:
            row["top1_error"] += (row["seed"] - 1) / 100  # as likely better as worse than the born-again chain
    decided = list(decide(table))
    assert len(decided) == 1 + 6 + 2 + 9 + 4
    by = {(d.question[0], d.text): d for d in decided}
    means = {text: round(d.spread.mean, 6) for (_, text), d in by.items()}
    assert means["error of M(0): D(0.6,·) − baseline"] == 2
    assert means["error in D(0.6,0.6): M(4) − M(0)"] == -6
    assert means["error: M(4) of D(0.6,0.6) − baseline"] == -4
    assert means["error of M(4): D(0.6,0.6) − D(1.0,0.5)"] == -2
    assert means["ECE: M(4) of D(0.6,0.6) − baseline"] == -2
    assert means["primary score: M(2) of D(0.6,0.5) − w_2"] == 0.02
    verdicts = {text: d.verdict for (_, text), d in by.items()}
    assert verdicts["error of M(0): D(0.6,·) − baseline"] == "yes"
    assert verdicts["error of M(4): D(0.6,0.6) − D(1.0,0.5)"] == "yes"
    assert verdicts["error of M(4): D(0.6,0.5) − D(1.0,0.5)"] == "open"
    assert verdicts["gain at M(4): D(0.6,0.6) − D(1.0,0.5)"] == "no"
    assert verdicts["primary score: M(0) of D(0.6,·) − w_0"] == "yes"
    assert verdicts["primary score: M(3) of D(0.6,0.6) − w_3"] == "no"


@pytest.mark.parametrize(
    ("values", "low", "high", "verdict"),
    [
        ((1.0, 1.1, 0.9), 0.0, 9.0, "yes"),
        ((-1.0, -1.1, -0.9), 0.0, 9.0, "no"),
        ((1.0, -1.0, 0.5), 0.0, 9.0, "open"),
        ((0.04, 0.041, 0.042), -0.05, 0.05, "yes"),
        ((-0.06, -0.061, -0.062), -0.05, 0.05, "no"),
        ((1.0,), 0.0, 9.0, "open"),
        ((), 0.0, 9.0, "open"),
    ],
)
def test_a_verdict_needs_the_whole_interval(values, low, high, verdict):
    spread = Spread(dict(enumerate(values))) if values else None
    assert Decided("q", "t", spread, low, high).verdict == verdict


def test_a_seed_without_the_other_side_is_left_out():
    table = [row for row in rows(3, **ERRORS) if not (row["f_a1"] == 1.0 and row["seed"] == 2)]
    first = next(decide(table))
    assert first.spread.n == 2


def test_the_stored_results_are_verified_and_give_the_readme_s_tables(capsys, tmp_path):
    readme = (RESULTS / "README.md").read_text()
    store = RunStore(str(RESULTS))
    assert markdown(read_results(store, STUDY)) in readme
    assert not re.search(r"/(work|tmp|root|home)/", readme)


def test_the_report_draws_the_stored_tables_again(capsys, tmp_path):
    copy = tmp_path / STUDY
    shutil.copytree(RESULTS, copy)
    stored = copy / "studies" / STUDY / "report"
    wanted = {name: (stored / name).read_text() for name in ("tables.md", "tables.csv", "tables.tex")}
    for name in wanted:
        (stored / name).unlink()
    assert cli.run(["report", "--from", str(copy), "--format", "markdown"]) == 0
    assert capsys.readouterr().out == wanted["tables.md"]
    assert {name: (stored / name).read_text() for name in wanted} == wanted
