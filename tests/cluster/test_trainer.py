"""Ray Train's trainer as gentrain starts it, and the events of its workers."""

import subprocess
import sys

import pytest
from ray.train.backend import BackendConfig
from ray.train.torch import TorchConfig

from gentrain.cluster.queue import EventQueue
from gentrain.cluster.session import Resources
from gentrain.cluster.trainer import Trainer, backend
from gentrain.errors import TakenOverError
from gentrain.events import Note


def test_only_a_worker_that_is_alone_on_cpus_needs_no_process_group():
    assert type(backend(Resources(workers=1, cpus=2, gpus=0))) is BackendConfig


@pytest.mark.parametrize(
    ("workers", "gpus", "wanted"), [(2, 0, "gloo"), (1, 1, "nccl"), (2, 1, "nccl"), (2, 0.5, "gloo")]
)
def test_other_workers_communicate_through_torch(workers, gpus, wanted):
    config = backend(Resources(workers=workers, cpus=1, gpus=gpus))
    assert type(config) is TorchConfig
    assert config.backend == wanted


@pytest.fixture
def ray_instance():
    """Start Ray, which Ray Train's callbacks ask for and would otherwise start, and end it."""
    import ray

    ray.init(num_cpus=1, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.parametrize("actor", [None, "01000000"])
@pytest.mark.usefixtures("ray_instance")
def test_no_process_is_started_for_ray_data_nor_to_give_a_drivers_devices_back(actor, monkeypatch):
    monkeypatch.setattr("ray.runtime_context.RuntimeContext.get_actor_id", lambda _: actor)
    names = {type(callback).__name__ for callback in Trainer(lambda: None)._create_default_callbacks()}
    assert "DatasetsCallback" not in names
    assert ("PlacementGroupCleanerCallback" in names) == (actor is not None)
    assert "WorkerMetricsCallback" in names


def test_drivers_and_trials_do_not_load_torch():
    line = "import sys, gentrain.cluster.trainer, gentrain.cluster.sweep; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=False)
    assert run.stdout == "False\n", run.stderr


def test_a_queue_drops_events_of_other_attempts():
    queue = EventQueue()
    queue.post(TakenOverError("late"), "old")
    queue.post(Note("epoch"), "new")
    assert queue.drain("new") == [Note("epoch")]
    assert queue.drain("old") == []
