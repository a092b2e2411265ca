"""Train a generation in a Ray Train worker, with its rank, device and cores.

Torch and FFCV are imported inside the function: in the workers, not in Ray Train's controller, which imports this file.
"""

from __future__ import annotations

from typing import Any

from gentrain.cluster.cores import pin_to_gpu
from gentrain.errors import GentrainError
from gentrain.train.allocator import keep_freed_memory


def train_worker(config: dict[str, Any]) -> None:
    """Train the job of `config`; post an error of the user's making and return, let Ray retry after any other.

    An error of the user's making is raised on every rank at the same point (see the engine), so no worker waits for
    another.
    """
    if config["pinned"]:
        pin_to_gpu()  # first: threads inherit the cores of the thread that starts them
    keep_freed_memory()

    import ray.train
    import torch

    from gentrain.train.generation import train_generation
    from gentrain.train.workers import Workers

    context = ray.train.get_context()
    workers = Workers(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=_own_gpu() if config["cuda"] else torch.device("cpu"),
        threads=config["threads"],
    )
    job, queue = config["job"], config["queue"]

    def post(event: Any) -> Any:
        return queue.post.remote(event, job.token)

    try:
        train_generation(job, workers, post)
    except GentrainError as error:
        if workers.first:
            ray.get(post(error))


def _own_gpu() -> Any:
    from ray.train.torch import get_device

    return get_device()
