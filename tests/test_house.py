"""The rules of this house that no other tool holds."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RAY_INSIDE = """
import pytest

@pytest.fixture{scope}
def ray_instance():
    import ray
    try:
        ray.init(num_cpus=1, include_dashboard=False)
    except OSError:  # a test may swallow it, and fails nevertheless
        pass
    yield
    ray.shutdown()

{marks}
def test_planted(ray_instance):
    pass
"""
RAY_IN_A_SUBPROCESS = """
import pytest, subprocess, sys

{marks}
def test_planted():
    subprocess.run([sys.executable, "-c", "import ray; ray.init(num_cpus=1, include_dashboard=False)"])
"""


def run_planted(folder: Path, content: str) -> subprocess.CompletedProcess[str]:
    """Run a test file under this suite's conftest.py."""
    (folder / "conftest.py").symlink_to(ROOT / "tests" / "conftest.py")
    (folder / "test_planted.py").write_text(content)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        RAY_INSIDE.format(scope="", marks=""),
        RAY_INSIDE.format(scope="(scope='session')", marks=""),
        RAY_IN_A_SUBPROCESS.format(marks=""),
    ],
    ids=["fixture", "session fixture", "subprocess"],
)
def test_a_test_without_the_ray_marker_that_starts_ray_fails(tmp_path, content):
    process = run_planted(tmp_path, content)
    assert process.returncode == 1, process.stdout + process.stderr
    assert "test_planted.py::test_planted starts Ray but isn't marked so" in process.stdout


@pytest.mark.ray
@pytest.mark.parametrize("marks", ["@pytest.mark.ray", "pytestmark = pytest.mark.ray"])
def test_a_test_with_the_ray_marker_starts_ray(tmp_path, marks):
    process = run_planted(
        tmp_path, RAY_INSIDE.format(scope="", marks=marks).replace("except OSError", "except KeyError")
    )
    assert process.returncode == 0, process.stdout + process.stderr
