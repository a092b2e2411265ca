"""A private name of torch that is gone is one clear error: at import, or when a network is to be compiled."""

import importlib
import tomllib
from pathlib import Path

import pytest
import torch

from gentrain.errors import DependencyError
from gentrain.train import _compat


def test_a_decorator_that_is_gone_is_one_error_at_import(monkeypatch):
    monkeypatch.delattr(torch.optim.SGD.step, "__wrapped__")
    with pytest.raises(DependencyError, match=r"^torch 2\..* has no SGD\.step\.__wrapped__, .*>=2\.10,<2\.15"):
        importlib.reload(_compat)


def test_a_compile_error_that_is_gone_is_one_error_before_anything_is_compiled(monkeypatch):
    import torch._dynamo.exc

    monkeypatch.delattr(torch._dynamo.exc, "FailOnRecompileLimitHit")
    with pytest.raises(DependencyError, match=r"^torch 2\..* has no .*FailOnRecompileLimitHit, .*>=2\.10,<2\.15"):
        _compat.compile_errors()


def test_the_versions_that_work_are_those_that_are_installed():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert f"torch{_compat.TORCH.works}" in project["dependencies"]
