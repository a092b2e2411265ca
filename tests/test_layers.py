"""The import contracts of pyproject.toml see every fault: each is planted in a copy of the package and reported."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

DOORS = {
    "ray": ["cluster"],
    "ffcv": ["data.loading._compat"],
    "numba": ["data.loading"],
    "rich": ["view"],
    "matplotlib": ["report"],
    "jinja2": ["report"],
    "markupsafe": ["report"],
    "ruamel": ["study"],
    "typer": ["cli"],
    "tensorboardX": ["trackers"],
    "mlflow": ["trackers"],
    "trackio": ["trackers"],
    "wandb": ["trackers"],
    "optuna": ["running.search"],
    "PIL": ["data.sources"],
    "scipy": ["data.sources", "scores.spread"],
    "sklearn": ["data.sources"],
    "torchvision": ["models", "data.sources"],
    "torch": ["models", "data.loading", "train", "running", "cluster", "doctor"],
    "huggingface_hub": ["train.hub"],
    "obstore": ["store"],
    "boto3": ["store"],
    "pyarrow": ["store", "data", "train", "api"],
}
"""By library: the only modules and rooms that may import it."""
PURE = ["models", "scores", "errors", "events"]
SHUT = {
    "filelock": PURE,
    "psutil": PURE,
    "pydantic": PURE,
    "safetensors": PURE,
    "yaml": PURE,
    "numpy": ["errors", "events"],
}
"""By library: the rooms that may not import it, where all others may."""
LAYERS = [
    ["__main__"],
    ["cli"],
    ["api"],
    ["view"],
    ["doctor"],
    ["report", "cluster", "trackers"],
    ["running"],
    ["results"],
    ["train"],
    ["data"],
    ["store"],
    ["study"],
    ["models"],
    ["upstream"],
    ["scores", "errors", "events"],
]
"""From top to bottom; what stands in one line is independent of each other."""
BENCH_LAYERS = [
    ["bench", "gpu", "growth", "plan_accuracy", "scale"],
    ["parts"],
    ["convolutions"],
    ["kernels", "handover", "side_by_side", "stacked", "start"],
    ["race", "contenders"],
    ["ray_contender"],
    ["breakdown", "entry", "gate", "rows"],
]


@pytest.fixture
def copy(tmp_path) -> Path:
    """Return a folder with a copy of the packages and of their contracts."""
    for package in ("gentrain", "experiments/bench"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(folder: Path) -> str:
    """Return what import-linter says of the packages in `folder`; it must complain."""
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    process = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"],
        cwd=folder,
        env={**os.environ, "COLUMNS": "1000", "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1, process.stdout + process.stderr
    assert "Contracts:" in process.stdout, process.stdout + process.stderr
    return process.stdout


def broken_imports(folder: Path) -> dict[str, set[int]]:
    """Return the lines of every import that import-linter reports in `folder`, by "importer -> imported"."""
    reported: dict[str, set[int]] = {}
    for importer, imported, lines in re.findall(r"(\S+) -> (\S+) \(([^)]*)\)", lint_imports(folder)):
        reported.setdefault(f"{importer} -> {imported}", set()).update(int(n) for n in re.findall(r"\d+", lines))
    return reported


def unreported(expected: dict[str, set[int]], folder: Path) -> dict[str, set[int]]:
    """Return the planted imports, with their lines, of which import-linter misses any."""
    reported = broken_imports(folder)
    return {fault: lines for fault, lines in expected.items() if not lines <= reported.get(fault, set())}


def plant(path: Path, *imports: str) -> dict[str, set[int]]:
    """Append each import to a module, at its top level and inside a function; return the line numbers by import."""
    lines = path.read_text().splitlines()
    planted: dict[str, set[int]] = {}
    for number, line in enumerate(imports):
        lines += [line, f"def _planted_{number}():", f"    {line}"]
        planted[line] = {len(lines) - 2, len(lines)}
    path.write_text("\n".join(lines) + "\n")
    return planted


def module_name(path: Path, folder: Path) -> str:
    return ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")


def lies_in(module: str, rooms: list[str]) -> bool:
    return any(f"{module}.".startswith(f"gentrain.{room}.") for room in rooms)


def test_a_library_in_a_room_that_may_not_have_it_is_reported_wherever_it_is_imported(copy):
    modules = {module_name(path, copy): path for path in (copy / "gentrain").rglob("*.py")}
    new = copy / "gentrain" / "running" / "added_later.py"
    new.write_text("")
    modules["gentrain.running.added_later"] = new
    expected = {}
    for module, path in modules.items():
        libraries = [library for library, rooms in DOORS.items() if not lies_in(module, rooms)]
        libraries += [library for library, rooms in SHUT.items() if lies_in(module, rooms)]
        for line, numbers in plant(path, *(f"import {library}" for library in libraries)).items():
            expected[f"{module} -> {line.removeprefix('import ')}"] = numbers
    examples = {"view.base -> ray", "results.evaluate -> ffcv", "running.plan -> rich", "api -> matplotlib"}
    assert {f"gentrain.{example}" for example in examples} <= set(expected)
    assert unreported(expected, copy) == {}


def test_an_import_upwards_or_sideways_is_reported(copy):
    expected = {}

    def plant_import(package: str, importer: str, imported: str) -> None:
        path = copy / package.replace(".", "/") / importer
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for numbers in plant(path, f"import {package}.{imported}").values():
            expected[f"{package}.{importer} -> {package}.{imported}"] = numbers

    for package, layers in (("gentrain", LAYERS), ("experiments.bench", BENCH_LAYERS)):
        for above, below in itertools.pairwise(layers):
            for importer in below:
                plant_import(package, importer, above[0])
        for layer in layers:
            for first, second in itertools.pairwise(layer):
                plant_import(package, first, second)
    plant_import("gentrain.data", "sources", "prepare")
    plant_import("gentrain.data", "sources", "loading")
    for numbers in plant(copy / "gentrain" / "results" / "status.py", "import experiments.bench.race").values():
        expected["gentrain.results.status -> experiments.bench.race"] = numbers
    assert unreported(expected, copy) == {}


def test_a_module_without_a_layer_is_reported(copy):
    for path in ("gentrain/utils.py", "gentrain/data/utils.py", "experiments/bench/utils.py"):
        (copy / path).write_text("")
    output = lint_imports(copy)
    for package in ("gentrain", "gentrain.data", "experiments.bench"):
        assert f"{package}.utils" in output


def test_every_dependency_is_named_above():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.match(r"[\w.-]+", line)[0].lower() for line in project["dependencies"]}
    names = packages_distributions()
    named = {distribution.lower() for library in {**DOORS, **SHUT} for distribution in names.get(library, ())}
    assert wanted - named == set(), "decide in pyproject.toml's contracts which rooms may import it, and name it here"
