"""Ray Train with fewer processes and threads: each wakes a hundred times a second on the cores that train."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback


class Backend(_TorchBackend):
    """Torch's process group for several workers; one that is alone needs none."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Set the group up, where there is one."""
        if len(worker_group) > 1:
            super().on_start(worker_group, backend_config)


class Torch(TorchConfig):
    """Ray Train's configuration of torch with this module's backend."""

    @property
    def backend_cls(self) -> type[Backend]:
        """Ray Train asks for it in the controller."""
        return Backend


class Trainer(TorchTrainer):
    """Ray Train's trainer for workers that read no Ray Data.

    And Ctrl-C raises KeyboardInterrupt here as everywhere, instead of ending the process.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, DatasetsCallback)]

    def _register_sigint_handler(self, controller: Any) -> None:
        pass
