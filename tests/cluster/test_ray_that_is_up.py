"""`gentrain.run` in a process that is connected to Ray already, as a notebook may be, and twice in one process."""

import os
import subprocess
import sys

import pytest

from gentrain.errors import ResourceError

NETWORKS = """
from torch import nn


def tiny(num_classes):
    body = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(4, num_classes))
"""
TWICE = """
import logging

import ray

import gentrain
from tests.conftest import SMALL

logging.getLogger("ray").addHandler(theirs := logging.NullHandler())
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
session = ray.get_runtime_context().get_job_id()


class Keeper:
    def kept(self):
        return 1


keeper = ray.remote(num_cpus=0)(Keeper).remote()
settings = [*SMALL, "network.name=mynets:tiny", "recipe.epochs=1", "recipe.milestones=[]", "generations=0"]
notes = []
study = gentrain.load_study("beside/study.yaml", overrides=settings)
assert len(gentrain.run(study, runs="runs", progress=lambda event: notes.append(getattr(event, "text", "")))) == 1
grid = gentrain.load_study("beside/study.yaml", overrides=[*settings, "name=grid", "grid.seed=[1, 2]"])
assert len(gentrain.run(grid, runs="runs")) == 2
assert ray.is_initialized() and ray.get_runtime_context().get_job_id() == session
assert ray.get(keeper.kept.remote()) == 1
assert theirs in logging.getLogger("ray").handlers
assert "using the Ray that this process is connected to; what it prints goes to" in " ".join(notes), notes
ray.shutdown()
"""


@pytest.mark.ray
def test_a_ray_that_is_up_is_used_twice_and_stays_up(tmp_path):
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "mynets.py").write_text(NETWORKS)
    (tmp_path / "beside" / "study.yaml").write_text("description: its network's module lies beside it\n")
    process = subprocess.run(
        [sys.executable, "-c", TWICE], cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr


def test_another_cluster_than_the_one_that_is_connected_is_refused(monkeypatch):
    from types import SimpleNamespace

    from gentrain.cluster.session import connected

    context = SimpleNamespace(gcs_address="10.0.0.1:6379")
    monkeypatch.setitem(
        sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True, get_runtime_context=lambda: context)
    )
    assert connected(None)
    assert connected("auto")
    assert connected("10.0.0.1:6379")
    with pytest.raises(
        ResourceError, match=r"address 10.0.0.2:6379: this process is connected to Ray at 10.0.0.1:6379"
    ):
        connected("10.0.0.2:6379")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    assert not connected(None)
