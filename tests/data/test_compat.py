"""A private name of FFCV or Numba that is gone is one clear error when the module is imported."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gentrain.data.loading import _compat

CODE = """
from numba.typed import Dict  # which loads more of Numba
import {module}
del {module}.{name}
from gentrain.errors import DependencyError
try:
    import gentrain.data.loading.loader
except DependencyError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [("ffcv.writer", "handle_sample", "ffcv 1.0.2 has no ffcv.writer.handle_sample, which gentrain uses"),
     ("ffcv.pipeline.compiler", "Compiler.get_iterator", "ffcv 1.0.2 has no Compiler.get_iterator, which"),
     ("numba.core.cgutils", "voidptr_t", "has no numba.core.cgutils.voidptr_t, which gentrain uses")],
)  # fmt: skip
def test_a_missing_name_is_one_error(module, name, message):
    code = CODE.format(module=module, name=name)
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert message in output
    assert "versions that work: >=" in output
    assert output.count("\n") == 1


def test_the_versions_that_work_are_those_that_are_installed():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for library in (_compat.FFCV, _compat.NUMBA):
        assert f"{library.name}{library.works}" in project["dependencies"]
