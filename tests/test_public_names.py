"""The names that others import from `gentrain`: a change of them is a decision, made here."""

import inspect
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import gentrain
from tests.conftest import SMALL

PUBLIC = {
    "Classifier",
    "GentrainError",
    "LossTerms",
    "PatriarchTask",
    "Process",
    "Run",
    "RunFolder",
    "SourceData",
    "Split",
    "StudentTask",
    "Study",
    "TrainedChain",
    "TrainedNetwork",
    "build_model",
    "eta_for_primary",
    "from_pretrained",
    "load_model",
    "load_study",
    "open_run",
    "patriarch_loss",
    "plan",
    "predict",
    "predicted_primary",
    "prepare",
    "primary_for_eta",
    "push",
    "run",
    "running_ensemble",
    "student_loss",
}


def test_the_public_names_are_these_and_each_can_be_imported():
    assert set(gentrain.__all__) == PUBLIC
    assert {*PUBLIC, "__version__"} == set(dir(gentrain))
    assert all(getattr(gentrain, name).__module__.startswith("gentrain.") for name in PUBLIC)


SIGNATURES = Path(__file__).with_name("signatures.txt")
"""Of what others call, a line each; a change that their code doesn't survive is a decision, made there."""
NAMES = [line.partition("(")[0] for line in SIGNATURES.read_text().splitlines()]


def member(name: str) -> Any:
    """Return a public function or class, or a method of one."""
    owner, _, own = name.rpartition(".")
    return getattr(getattr(gentrain, owner) if owner else gentrain, own)


def test_the_signatures_are_these():
    lines = [f"{name}{inspect.signature(member(name))}" for name in NAMES]
    now = [re.sub(r"<function .*?<lambda> at 0x\w+>", "...", line) for line in lines]
    assert now == SIGNATURES.read_text().splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_typed_and_what_it_does_is_said(name):
    signature = inspect.signature(member(name))
    typed = [parameter.annotation for own, parameter in signature.parameters.items() if own != "self"]
    assert inspect.Parameter.empty not in [*typed, signature.return_annotation]
    assert inspect.getdoc(member(name))


def test_every_public_function_and_method_has_its_line():
    wanted = set()
    for name in PUBLIC:
        one = getattr(gentrain, name)
        if inspect.isfunction(one):
            wanted.add(name)
        elif one.__module__ in ("gentrain.api", "gentrain.results.trained"):
            methods = [own for own, method in vars(one).items() if inspect.isfunction(method)]
            wanted |= {f"{name}.{own}" for own in methods if not own.startswith("_")}
    assert wanted - set(NAMES) == set()


def test_the_package_says_that_it_is_typed():
    assert files("gentrain").joinpath("py.typed").is_file()


def test_importing_the_package_loads_neither_torch_nor_ray():
    code = "import sys, gentrain; sys.exit(bool({'torch', 'ray', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_study_runs_from_python_as_the_readme_says(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("name: small\ngenerations: 1\n")
    runs = str(tmp_path / "runs")
    study = gentrain.load_study(str(path), overrides=[*SMALL, "recipe.epochs=1", "recipe.milestones=[]"])
    before = gentrain.plan(study, runs=runs, price=2.5).summary()
    rows = gentrain.run(study, runs=runs, local=True)
    assert [row["generation"] for row in rows] == [0, 1]
    assert (before["to_train"], gentrain.plan(study, runs=runs).summary()["to_train"]) == (2, 0)
    folder = gentrain.open_run(runs)
    assert folder.studies() == ["small"]
    assert folder.study("small") == study
    (cells,) = folder.status("small").chains.values()
    assert [cell.state for cell in cells] == ["done", "done"]
    assert folder.evaluate("small").scores.top1_error == rows[-1]["top1_error"]
