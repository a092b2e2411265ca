"""What runs in each Ray Train worker: the engine's loop, told where it is."""

from __future__ import annotations

from typing import Any

import ray
import ray.train
import ray.train.torch

from gentrain.engine import Worker, train_generation
from gentrain.errors import GentrainError


def train_worker(config: dict[str, Any]) -> None:
    """Train the job; an error of the user's making is posted and ends the run, any other is Ray's to retry.

    Such an error is raised on every rank at the same point (see the engine), so no worker waits for another.
    """
    context = ray.train.get_context()
    worker = Worker(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=ray.train.torch.get_device() if config["cuda"] else _cpu(),
        threads=config["threads"],
    )
    board = config["board"]
    try:
        train_generation(config["job"], worker, board.post.remote)
    except GentrainError as error:
        if worker.rank == 0:
            ray.get(board.post.remote(error))


def _cpu() -> Any:
    import torch

    return torch.device("cpu")
