"""A private name of torch that is gone is one clear error when the module is imported."""

import importlib
import tomllib
from pathlib import Path

import pytest
import torch

from gentrain.errors import DependencyError
from gentrain.models import _compat


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_a_missing_name_is_one_error(monkeypatch):
    monkeypatch.delattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
    with pytest.raises(DependencyError, match=r"^torch 2\..* has no .*mkldnn_reorder_conv2d_weight, .*>=2\.10,<2\.15"):
        importlib.reload(_compat)


def test_the_versions_that_work_are_those_that_are_installed():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert f"torch{_compat.TORCH.works}" in project["dependencies"]
