"""What runs in each Ray Train worker: the engine's loop, told where it is.

Torch and FFCV are loaded in the workers only, not in the processes with which Ray Train watches over them.
"""

from __future__ import annotations

from typing import Any

from gentrain.cluster.cores import pin_to_gpu
from gentrain.errors import GentrainError
from gentrain.train.allocator import keep_freed_memory


def train_worker(config: dict[str, Any]) -> None:
    """Train the job; an error of the user's making is posted and ends the run, any other is Ray's to retry.

    Such an error is raised on every rank at the same point (see the engine), so no worker waits for another.
    """
    if config["pinned"]:
        pin_to_gpu()  # first of all: threads stay where the one that starts them is
    keep_freed_memory()

    import ray.train
    import torch

    from gentrain.train.generation import Worker, train_generation

    context = ray.train.get_context()
    worker = Worker(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=_own_gpu() if config["cuda"] else torch.device("cpu"),
        threads=config["threads"],
    )
    job, queue = config["job"], config["queue"]

    def post(event: Any) -> Any:
        return queue.post.remote(event, job.token)

    try:
        train_generation(job, worker, post)
    except GentrainError as error:
        if worker.rank == 0:
            ray.get(post(error))


def _own_gpu() -> Any:
    from ray.train.torch import get_device

    return get_device()
