"""The two commands on machines that lack something."""

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_without_apt_the_setup_says_in_one_line_what_to_install(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "id", "python3"):
        (tools / name).symlink_to(shutil.which(name))
    process = subprocess.run(
        ["sh", str(ROOT / "setup.sh"), str(tmp_path / "venv")],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    for needed in ("OpenCV 4", "libjpeg-turbo", "pkg-config", "C++ compiler"):
        assert needed in line
    assert not (tmp_path / "venv").exists()


def test_ci_calls_the_readmes_own_test_command():
    assert "make test" in (ROOT / "README.md").read_text().splitlines()[4]
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"


def test_every_module_and_script_that_the_makefile_runs_is_there():
    makefile = (ROOT / "Makefile").read_text()
    modules = re.findall(r"(?:python -m |from )([\w.]+)", makefile)
    assert {"experiments.bench.bench", "gentrain.study.reference"} <= set(modules)
    assert [module for module in modules if find_spec(module) is None] == []
    assert [path for path in re.findall(r"[\w/]+\.(?:py|sh|yaml)\b", makefile) if not (ROOT / path).exists()] == []
