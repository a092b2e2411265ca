"""The names that others import from `gentrain`: a change of them is a decision, made here."""

import inspect
import subprocess
import sys
from importlib.resources import files

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
    "load_model",
    "load_study",
    "open_run",
    "patriarch_loss",
    "plan",
    "predict",
    "predicted_primary",
    "prepare",
    "primary_for_eta",
    "run",
    "running_ensemble",
    "student_loss",
}


def test_the_public_names_are_these_and_each_can_be_imported():
    assert set(gentrain.__all__) == PUBLIC
    assert {*PUBLIC, "__version__"} == set(dir(gentrain))
    assert all(getattr(gentrain, name).__module__.startswith("gentrain.") for name in PUBLIC)


PARAMETERS = {
    "load_study": "path, overrides, smoke, notify, settings",
    "prepare": "study, runs, progress, observe",
    "plan": "study, runs, gpus, price, measure",
    "run": "study, runs, local, address, progress, observe, on_change",
    "open_run": "runs",
    "load_model": "folder",
    "predict": "model, images, top",
    "Run.results": "self",
    "Run.chain": "self, name",
    "RunFolder.studies": "self",
    "RunFolder.study": "self, name",
    "RunFolder.run": "self, name",
    "RunFolder.chain": "self, study, name",
    "RunFolder.status": "self, name",
    "RunFolder.evaluate": "self, name, options",
    "TrainedChain.generation": "self, generation",
    "TrainedChain.ensemble": "self, kind, generation",
    "TrainedNetwork.module": "self",
    "TrainedNetwork.export": "self, folder, preprocessing, notify",
    "Classifier.forward": "self, images",
}
"""Of what README and docs/tutorial.md call, in order; all but the first of a function's are keywords."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_parameters_are_these_and_each_is_typed(name):
    owner, _, method = name.rpartition(".")
    function = getattr(getattr(gentrain, owner) if owner else gentrain, method)
    signature = inspect.signature(function)
    assert ", ".join(signature.parameters) == PARAMETERS[name]
    typed = [signature.return_annotation, *(p.annotation for n, p in signature.parameters.items() if n != "self")]
    assert inspect.Parameter.empty not in typed
    assert inspect.getdoc(function)


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
