"""Train one generation after the other in a Ray Train worker, with its rank, device and cores.

Torch and FFCV are imported inside the function: in the workers, not in Ray Train's controller, which imports this file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from gentrain.cluster.cores import pinned
from gentrain.errors import GentrainError
from gentrain.models.registry import search_functions
from gentrain.train.allocator import keep_freed_memory

if TYPE_CHECKING:
    from gentrain.train.job import Job

IDLE_SECONDS = 2.0
"""A group that gets no generation for so long leaves: its devices may be another chain's."""
POLL_SECONDS = 0.1


def train_worker(config: dict[str, Any]) -> None:
    """Train the jobs that the chain gives its group, until it gives none; let Ray start the group again after a fault.

    An error of the user's making is raised on every rank at the same point (see the engine), so no worker waits for
    another: the first posts it, and all return. The process group, if there is one, stays for all jobs.
    """
    with pinned(config["pin"], cuda=config["cuda"], threads=config["threads"]):
        _train_jobs(config)


def _train_jobs(config: dict[str, Any]) -> None:
    keep_freed_memory()
    search_functions(*config["folders"])

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
    queue, done = config["queue"], ""

    def take(done: str, *, last: bool) -> Any:
        answer = ray.get(queue.take.remote(config["group"], done, last=last))
        return answer if isinstance(answer, str) else ray.get(answer.job)

    while (job := workers.from_first(partial(next_job, take, done))) is not None:

        def post(event: Any, token: str = job.token) -> Any:
            return queue.post.remote(event, token)

        try:
            train_generation(job, workers, post)
        except GentrainError as error:
            if workers.first:
                ray.get(post(error))
            return
        done = job.token


def next_job(
    take: Callable[..., Job | Literal["wait", "leave"]],
    done: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Job | None:
    """Wait for the group's next job; return None where the group is to leave, so that its devices are free.

    Args:
        take: asks the queue, see `EventQueue.take`.
        done: token of the job that the group has finished, "" where it has just been started: then there is one.
        clock: in seconds.
        sleep: waits for some seconds.
    """
    began = clock()
    while (answer := take(done, last=bool(done) and clock() - began > IDLE_SECONDS)) == "wait":
        sleep(POLL_SECONDS)
    return None if answer == "leave" else answer


def _own_gpu() -> Any:
    from ray.train.torch import get_device

    return get_device()
