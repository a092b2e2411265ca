"""Ray Train without what gentrain has no use for: every process that it starts wakes a hundred times a second."""

from __future__ import annotations

from typing import Any

import ray
from ray.train.backend import BackendConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from gentrain.cluster.session import Resources


class Trainer(DataParallelTrainer):
    """Ray Train's trainer for workers that read no Ray Data.

    What gives a dead controller's devices back is started within an actor only (a sweep's trial): a driver takes all
    that it asked for along when it ends. And Ctrl-C raises KeyboardInterrupt here as everywhere, instead of ending the
    process.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        unused: tuple[type, ...] = (DatasetsCallback,)
        if ray.get_runtime_context().get_actor_id() is None:
            unused += (PlacementGroupCleanerCallback,)
        return [callback for callback in callbacks if not isinstance(callback, unused)]

    def _register_sigint_handler(self, controller: Any) -> None:
        pass


def backend(resources: Resources) -> BackendConfig:
    """Return what brings the workers together: torch's process group, for which the controller imports torch too.

    A worker that is alone on CPUs needs none. NCCL refuses two ranks on one GPU, so workers that share one talk through
    gloo.
    """
    if resources.workers == 1 and not resources.cuda:
        return BackendConfig()
    from ray.train.torch import TorchConfig

    return TorchConfig(backend="nccl" if resources.cuda and resources.gpus == 1 else "gloo")
