"""The planted faults can be planted, and their tests are there; `make mutants` sees whether the tests notice them."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants import MUTANTS
from tests.mutants.__main__ import Outcome, table_of
from tests.mutants.mutant import Mutant, problems_of

ROOT = Path(__file__).parents[1]
GONE = Mutant("the rate is gone", "train/schedule.py", "no such text", "x", ("train/test_schedule.py",))


def test_every_fault_can_be_planted():
    assert problems_of(MUTANTS, ROOT / "gentrain") == []
    faults = [mutant.fault for mutant in MUTANTS]
    assert len(set(faults)) == len(faults) > 100


def names_in(body, prefix=""):
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from names_in(node.body, f"{node.name}::")


def test_the_tests_that_should_notice_them_are_there():
    for test in {test for mutant in MUTANTS for test in mutant.tests}:
        file, _, name = test.partition("::")
        names = set(names_in(ast.parse((ROOT / "tests" / file).read_text()).body))
        assert names
        assert not name or name in names, test


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, "mutant 'the rate is gone': its old text stands 0 times in gentrain/train/schedule.py, not once"),
        ({"old": "step"}, "stands .. times"),
        ({"old": "rate = base", "new": "rate = base"}, "changes nothing"),
        ({"old": "rate = base", "new": "rate = ("}, "was never closed"),
        ({"file": "train/no.py"}, "No such file"),
    ],
)
def test_one_that_can_not_be_planted_is_named(changes, problem):
    (line,) = problems_of([replace(GONE, **changes)], ROOT / "gentrain")
    assert re.search(problem, line)


def test_the_page_counts_and_names_what_survives():
    survivor = replace(GONE, fault="equal", survives="it is the same")
    page = table_of([(GONE, Outcome(1, "train/test_schedule.py::test_x", "")), (survivor, Outcome(0, "", ""))])
    assert "**1 of 2 faults are noticed (50.0 %).**" in page
    assert "| equal | `train/schedule.py` | it is the same |" in page
    assert "| the rate is gone | `train/schedule.py` | `train/test_schedule.py::test_x` |" in page
