"""Pin a GPU worker to its share of a node's cores."""

from __future__ import annotations

import os
from collections.abc import Iterable

from gentrain.errors import ResourceError


def core_slice(cores: Iterable[int], *, gpu: int, gpus: int) -> list[int]:
    """Return the share of `cores` for GPU `gpu` of `gpus`: neighbouring cores, disjoint from other GPUs' shares.

    Raises:
        ResourceError: when there is no such GPU, or there are fewer cores than GPUs.
    """
    ordered = sorted(cores)
    if not 0 <= gpu < gpus or len(ordered) < gpus:
        raise ResourceError(
            f"pin_workers: true: can't share {len(ordered)} cores among {gpus} GPUs for GPU {gpu}; start Ray without "
            "CUDA_VISIBLE_DEVICES and with at least one core per GPU, or set pin_workers: false"
        )
    return ordered[gpu * len(ordered) // gpus : (gpu + 1) * len(ordered) // gpus]


def pin_to_gpu() -> None:
    """Pin the calling thread, and threads that it starts later, to the cores of the GPU that Ray gave this worker.

    Workers that share a GPU share its cores.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    gpus = next(int(each["Resources"]["GPU"]) for each in ray.nodes() if each["NodeID"] == node)
    (gpu,) = ray.get_gpu_ids()
    os.sched_setaffinity(0, core_slice(os.sched_getaffinity(0), gpu=int(gpu), gpus=gpus))
