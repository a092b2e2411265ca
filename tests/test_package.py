"""The wheel and the source distribution: complete, and, installed in an environment of their own, they train."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.conftest import SMALL

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gentrain"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the wheel and the source distribution, built from the checkout without the network."""
    pytest.importorskip("hatchling", reason="hatchling isn't installed: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_holds_every_file_of_the_package(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    tracked = subprocess.run(["git", "ls-files", "gentrain"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("no git here")
    wanted = {name for name in tracked.stdout.splitlines() if (ROOT / name).exists()}
    assert wanted <= names
    assert {"gentrain/py.typed", "gentrain/study/quickstart.yaml", "gentrain/report/page.html.j2"} <= names
    assert not [name for name in names if name.startswith(("tests/", "experiments/", "docs/"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_distribution_builds_again(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "setup.sh",
        "gentrain/py.typed",
        "deploy/constraints.txt",
    } <= names
    assert not [name for name in names if name.startswith((".venv", "runs/", "dist/", ".git/"))]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [0, 1], ids=["wheel", "sdist"])
def test_installed_alone_it_trains_from_an_empty_folder(built, tmp_path, kind):
    """The environment is new and has gentrain from the file; what that requires is found in this one, offline."""
    environment = tmp_path / "environment"
    venv.create(environment)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (site / "requirements.pth").write_text(sysconfig.get_path("purelib"))  # not this one's own .pth files
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = environment / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
    ]
    subprocess.run([*install, "--force-reinstall", str(built[kind])], check=True, env=variables, capture_output=True)
    (tmp_path / "empty").mkdir()

    def run(*arguments):
        process = subprocess.run(
            arguments, cwd=tmp_path / "empty", env=variables, capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    assert run(python, "-c", "import gentrain; print(gentrain.__file__)").startswith(str(environment))
    settings = [part for setting in SMALL for part in ("--set", setting)]
    out = run(environment / "bin" / "gentrain", "chain", *settings, "--local")
    assert "results: runs/studies/small" in out
    run(environment / "bin" / "gentrain", "report", "small", "--no-training-scores")
    assert (tmp_path / "empty" / "runs" / "studies" / "small" / "report" / "report.html").exists()


def test_torch_for_cpus_and_for_cuda_are_extras_that_exclude_each_other():
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, uv = content["project"], content["tool"]["uv"]
    base = {each.name: each.specifier for each in map(Requirement, project["dependencies"])}
    for extra in ("cpu", "cuda"):
        wanted = {each.name: each.specifier for each in map(Requirement, project["optional-dependencies"][extra])}
        assert wanted == {name: base[name] for name in ("torch", "torchvision")}
    assert uv["conflicts"] == [[{"extra": "cpu"}, {"extra": "cuda"}]]
    indexes = {index["name"]: index for index in uv["index"]}
    for library in ("torch", "torchvision"):
        assert [source["extra"] for source in uv["sources"][library]] == ["cpu", "cuda"]
        assert all(indexes[source["index"]]["explicit"] for source in uv["sources"][library])


def test_the_citation_names_the_version_and_the_papers_authors():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Yang", "Xie", "Qiao", "Yuille"]
