"""Time a training step on this machine, in each precision and compiled.

bf16 convolutions are several times slower than fp32 on some processors, and torch.compile gains more on some than on
others.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from gentrain.data.prepare.manifest import Manifest
from gentrain.errors import GentrainError
from gentrain.models.cost import multiply_adds
from gentrain.models.registry import build_model
from gentrain.study.schema import Study
from gentrain.train.compile_gain import MeasuredStep
from gentrain.train.compiler_cache import step_mark
from gentrain.train.compiling import compile_network, compiler_problem
from gentrain.train.device import autocast, set_tf32, to_device

PRECISIONS = {"cpu": ("bf16", "fp32"), "cuda": ("bf16", "fp32", "tf32")}
"""By type of device."""
SLOW = 1.5
"""Ratio of step times to the fastest precision from which a line warns; less may come from other work here."""
_ROUNDS = 5
_SHORT_OPERATIONS = 2e11
"""Multiply-adds of the forward passes of a training of about a minute on one core: the digits."""
_STEP_OPERATIONS = 4e9
"""Multiply-adds of the forward pass that is timed at a run's start: some tenths of a second on one core."""


def time_precisions(network: str, **options: Any) -> dict[str, float]:
    """Return the seconds of one training step of a network by precision: medians of `time_rounds`."""
    return _medians(time_rounds(network, **options))


def _medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {precision: statistics.median(seconds[precision] for seconds in rounds) for precision in rounds[0]}


def time_rounds(
    network: str, *, num_classes: int, height: int, width: int, batch: int, threads: int, device: torch.device
) -> list[dict[str, float]]:
    """Return the seconds of one training step of a network by precision, for each of a few rounds.

    The precisions take turns, so that other work on the machine slows all of them.
    """
    with _threads(threads):
        step = _Step(network, (num_classes, height, width), batch=batch, device=device)
        rounds: list[dict[str, float]] = []
        for _ in range(1 + _ROUNDS):
            rounds.append({})
            for precision in PRECISIONS[device.type]:
                set_tf32(precision == "tf32")
                rounds[-1][precision] = step.seconds(step.model, precision)
        return rounds[1:]  # the first allocates what the others use again


def time_compiled(
    network: str,
    *,
    num_classes: int,
    height: int,
    width: int,
    batch: int,
    threads: int,
    device: torch.device,
    precision: str,
) -> tuple[MeasuredStep, float]:
    """Time a network's training step, eager and compiled in turns; return it, and the seconds that compiling took.

    These may be a minute, where this machine hasn't compiled the network before. The step is noted in the compiler's
    cache, where `compile: auto` finds it.

    Raises:
        GentrainError: when there is no compiler that works; what else torch raises, when it can't compile the network.
    """
    with _threads(threads):
        step = _Step(network, (num_classes, height, width), batch=batch, device=device)
        set_tf32(precision == "tf32")
        step.seconds(step.model, precision)
        started = time.perf_counter()
        if problem := compiler_problem(device):
            raise GentrainError(problem)
        compiled = compile_network(step.model, device, graphs=True)
        step.seconds(compiled, precision)
        compiling = time.perf_counter() - started
        ways = (step.model, compiled)
        turns = [[step.seconds(way, precision) for way in ways] for _ in range(1 + _ROUNDS)][1:]
        eager, fast = (min(taken) for taken in zip(*turns, strict=True))
        torch.compiler.reset()
        measured = MeasuredStep(eager=eager, compiled=fast, batch=batch, threads=threads)
        shape = (num_classes, height, width)
        step_mark(network, shape=shape, batch=batch, precision=precision, device=device.type).write(asdict(measured))
        return measured, compiling


class _Step:
    """A training step of a network on random images, which leaves torch's random stream alone."""

    def __init__(self, network: str, shape: tuple[int, int, int], *, batch: int, device: torch.device) -> None:
        num_classes, height, width = shape
        self._device = device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = to_device(build_model(network, num_classes=num_classes), device).train()
            images = torch.randn(batch, 3, height, width, device=device)
            self._labels = torch.randint(0, num_classes, (batch,), device=device)
        self._images = images.contiguous(memory_format=torch.channels_last)

    def seconds(self, network: nn.Module, precision: str) -> float:
        """Return what one step takes of the model, or of what is compiled of it."""
        started = time.perf_counter()
        if network is not self.model:
            torch.compiler.cudagraph_mark_step_begin()
        with autocast(self._device, precision):
            logits = network(self._images)
        F.cross_entropy(logits.float(), self._labels).backward()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - started


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Give torch so many threads for the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def worker_threads(study: Study) -> int:
    """Return the CPUs that one worker of the study has on this machine."""
    return study.cpus_per_worker or max(1, len(os.sched_getaffinity(0)) // study.workers)


def quick_batch(network: str, *, num_classes: int, height: int, width: int, batch: int) -> int:
    """Return how many images of a batch to time at a run's start; 0 where one would take seconds, or none can tell."""
    try:
        each = multiply_adds(network, num_classes=num_classes, height=height, width=width)
    except RuntimeError:  # it branches on its input's values, and counting operations computes none
        return 0
    return 0 if each > _STEP_OPERATIONS else min(batch, max(2, int(_STEP_OPERATIONS / 4 / each)))


def worth_timing(study: Study, manifest: Manifest) -> bool:
    """Return whether a generation takes so long that `slow_precision` is worth its second."""
    shape = {"num_classes": len(manifest.classes), "height": manifest.height, "width": manifest.width}
    try:
        each = multiply_adds(study.network.name, **shape)
    except RuntimeError:  # see `quick_batch`
        return False
    return each * manifest.splits["train"].count * study.recipe.epochs >= _SHORT_OPERATIONS


def slow_precision(study: Study, manifest: Manifest) -> str | None:
    """Return a line when this machine's CPU is slow in the study's precision, None where it isn't or rounds disagree.

    It takes a second, and is for CPUs only.
    """
    if study.device != "cpu" and torch.cuda.is_available():
        return None
    name = study.network.name
    shape = {"num_classes": len(manifest.classes), "height": manifest.height, "width": manifest.width}
    batch = quick_batch(name, batch=study.recipe.batch_size, **shape)
    if not batch:
        return None
    rounds = time_rounds(name, batch=batch, threads=worker_threads(study), device=torch.device("cpu"), **shape)
    seconds = _medians(rounds)
    fastest = min(seconds, key=seconds.__getitem__)
    if any(each[study.precision] < SLOW * each[fastest] for each in rounds):
        return None  # other work here decides, not the processor
    return slow_precision_note(name, study.precision, seconds)


def slow_precision_note(network: str, precision: str, seconds: Mapping[str, float]) -> str | None:
    """Return a line for a run whose precision is slow on this machine; None where it isn't."""
    fastest = min(seconds, key=seconds.__getitem__)
    times = seconds[precision] / seconds[fastest]
    if times < SLOW:
        return None
    return (
        f"precision: {precision} takes {times:.1f} × the time of {fastest} for {network} on this machine; "
        f"--set precision={fastest} is faster here (another precision is another generation; see gentrain doctor)"
    )
