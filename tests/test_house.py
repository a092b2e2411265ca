"""The rules of this house that no linter holds: sizes, rooms, docstrings, the tree in the docs, who starts Ray."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gentrain"
FILES = sorted(path for folder in ("gentrain", "experiments", "tests") for path in (ROOT / folder).rglob("*.py"))
ROOMS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)
LONGEST_FILE, LONGEST_CLASS = 350, 150
REASON = re.compile(r"^(# )?Longer than \d+ lines because \w+", re.MULTILINE)
FIRST_LINES = 12
"""Of a file: where a reason for its length is looked for."""
NAMES_OF_NOTHING = {"common", "core", "helpers", "misc", "tools", "util", "utils"}

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


def too_long(path: Path) -> Iterator[str]:
    """Yield what is longer than the house allows: the file, unless its first lines give the reason, and its classes."""
    lines = path.read_text().splitlines()
    if len(lines) > LONGEST_FILE and not REASON.search("\n".join(lines[:FIRST_LINES])):
        yield f"{path}: {len(lines)} lines"
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.ClassDef) and node.end_lineno - node.lineno >= LONGEST_CLASS:
            yield f"{path}: class {node.name}, {node.end_lineno - node.lineno + 1} lines"


def test_no_file_is_longer_than_350_lines_without_a_reason_and_no_class_than_150():
    assert [fault for path in FILES for fault in too_long(path)] == []


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        ("x = 1\n" * 350, 0),
        ("x = 1\n" * 351, 1),
        ('"""Do much.\n\nLonger than 350 lines because one table can\'t be split.\n"""\n' + "x = 1\n" * 351, 0),
        ("class A:\n" + "    x = 1\n" * 149, 0),
        ("class A:\n" + "    x = 1\n" * 150, 1),
    ],
)
def test_what_is_too_long_is_seen(tmp_path, content, faults):
    (tmp_path / "planted.py").write_text(content)
    assert len(list(too_long(tmp_path / "planted.py"))) == faults


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(PACKAGE)))
def test_a_room_says_in_about_three_lines_what_it_is_for_what_it_may_touch_and_what_not(room):
    docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    assert docstring
    assert 2 <= len(docstring.splitlines()) <= 5
    assert re.search(r"\bmay (touch|use|read)\b", docstring, re.IGNORECASE)
    assert re.search(r"\bmay not\b", docstring, re.IGNORECASE)


def test_the_tree_of_the_architecture_names_every_room_and_nothing_that_is_gone():
    (tree,) = re.findall(
        r"^```\ngentrain/\n(.*?)^```$", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL | re.MULTILINE
    )
    named, parents = set(), [PACKAGE]
    for line in tree.splitlines():
        indent, names = re.match(r"( +)(\S+(?: · \S+)*)", line).groups()
        parents = parents[: len(indent) // 2]
        paths = [parents[-1] / name for name in names.split(" · ")]
        named |= set(paths)
        parents.append(paths[0])
    assert [path for path in sorted(named) if not path.exists()] == []
    top = {path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"}
    assert sorted({*ROOMS, *top} - named) == []


def test_every_room_has_its_tests():
    rooms = [path for path in PACKAGE.iterdir() if (path / "__init__.py").exists()]
    assert [room.name for room in rooms if not list((ROOT / "tests" / room.name).glob("test_*.py"))] == []
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert sorted(folders - {room.name for room in rooms}) == []


def test_no_file_has_a_name_that_says_nothing():
    assert [path for path in FILES if {path.stem, path.parent.name} & NAMES_OF_NOTHING] == []


def test_a_module_opens_with_a_docstring():
    modules = [path for path in FILES if "tests" not in path.parts]
    assert [path for path in modules if not ast.get_docstring(ast.parse(path.read_text()))] == []
