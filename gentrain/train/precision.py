"""Which precision is faster here: bf16 convolutions are several times slower than fp32 on some processors."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import torch
import torch.nn.functional as F

from gentrain.data.prepare.manifest import Manifest
from gentrain.models.cost import multiply_adds
from gentrain.models.registry import build_model
from gentrain.study.schema import Study
from gentrain.train.device import autocast, set_tf32, to_device

PRECISIONS = {"cpu": ("bf16", "fp32"), "cuda": ("bf16", "fp32", "tf32")}
"""By type of device."""
SLOW = 1.5
"""A precision that takes so many times the fastest's seconds is worth a line; less may be the machine's other work."""
_ROUNDS = 3
_STEP_OPERATIONS = 4e9
"""Multiply-adds of a quick look's forward pass: some tenths of a second on one core."""


def time_precisions(
    network: str, *, num_classes: int, height: int, width: int, batch: int, threads: int, device: torch.device
) -> dict[str, float]:
    """Return the seconds of one training step of a network by precision: the least of a few, which take turns."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = to_device(build_model(network, num_classes=num_classes), device).train()
            images = torch.randn(batch, 3, height, width, device=device)
            labels = torch.randint(0, num_classes, (batch,), device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        found = dict.fromkeys(PRECISIONS[device.type], float("inf"))
        for attempt in range(1 + _ROUNDS):
            for precision in found:
                set_tf32(precision == "tf32")
                started = time.perf_counter()
                with autocast(device, precision):
                    logits = model(images)
                F.cross_entropy(logits.float(), labels).backward()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if attempt:  # the first makes ready what the others use again
                    found[precision] = min(found[precision], time.perf_counter() - started)
        return found
    finally:
        torch.set_num_threads(before)


def worker_threads(study: Study) -> int:
    """Return the CPUs that one worker of the study has on this machine."""
    return study.cpus_per_worker or max(1, len(os.sched_getaffinity(0)) // study.workers)


def quick_batch(network: str, *, num_classes: int, height: int, width: int, batch: int) -> int:
    """Return how many images of a batch make a quick look; 0 where one would take seconds, or can't be told."""
    try:
        each = multiply_adds(network, num_classes=num_classes, height=height, width=width)
    except RuntimeError:  # it decides by its input's values, and there are none when operations are only counted
        return 0
    return 0 if each > _STEP_OPERATIONS else min(batch, max(2, int(_STEP_OPERATIONS / 4 / each)))


def slow_precision(study: Study, manifest: Manifest) -> str | None:
    """Return a line when this machine's CPU is slow in the study's precision, None where it isn't.

    It takes a second, and is for CPUs only.
    """
    if study.device != "cpu" and torch.cuda.is_available():
        return None
    name = study.network.name
    shape = {"num_classes": len(manifest.classes), "height": manifest.height, "width": manifest.width}
    batch = quick_batch(name, batch=study.recipe.batch_size, **shape)
    if not batch:
        return None
    seconds = time_precisions(name, batch=batch, threads=worker_threads(study), device=torch.device("cpu"), **shape)
    return told_slow(name, study.precision, seconds)


def told_slow(network: str, precision: str, seconds: Mapping[str, float]) -> str | None:
    """Return the line for a run whose precision is the slow one here, None where it isn't."""
    fastest = min(seconds, key=seconds.__getitem__)
    times = seconds[precision] / seconds[fastest]
    if times < SLOW:
        return None
    return (
        f"precision: {precision} takes {times:.1f} × the time of {fastest} for {network} on this machine; "
        f"--set precision={fastest} is faster here (another precision is another generation; see gentrain doctor)"
    )
