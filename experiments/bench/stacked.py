"""Compare three chains' students stacked in one process (torch.func.vmap) to the same three one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from experiments.bench.race import NAMES, SHAPES
from experiments.bench.rows import ratio_row

STACKED = 3
"""Students, as in Wang et al., "HFTA: Horizontally Fused Training Array" (2021): 2.4 times as fast on a V100."""


def stacked(*, data: str, runs: str, rounds: int) -> list[dict[str, Any]]:
    """Return rows for a CPU with two threads."""
    import torch

    from gentrain.train.allocator import keep_freed_memory

    del data, runs
    keep_freed_memory()
    torch.set_num_threads(2)
    return stacked_rows(torch.device("cpu"), rounds=rounds)


def stacked_rows(device: Any, *, rounds: int, command: str = "make bench") -> list[dict[str, Any]]:
    """Return the time of stacked students against the same students apart, and how far their gradients differ."""
    network, rows = "resnet20", []
    for precision in ("fp32", "bf16"):
        together, apart, distance = _steps(network, device, precision)
        seconds = [(_seconds(together, device), _seconds(apart, device)) for _ in range(1 + rounds)][1:]
        name = f"{STACKED} {NAMES[network]} students in one process, {precision}"
        rows.append(
            ratio_row(
                f"{name}: stacked / one after the other", *zip(*seconds, strict=True), unit="× time", command=command
            )
        )
        if precision == "fp32":
            unit = "of the largest"
            row = f"{name}: largest distance of a gradient from the student's own"
            rows.append(ratio_row(row, [distance()], [1.0], unit=unit, command=command))
    return rows


def _steps(
    network: str, device: Any, precision: str
) -> tuple[Callable[[], object], Callable[[], object], Callable[[], float]]:
    """Return a step of stacked students, one of students apart, and the distance of their gradients after both."""
    import torch
    import torch.nn.functional as F
    from torch.func import functional_call, stack_module_state, vmap

    from gentrain.models.registry import build_model
    from gentrain.train.device import autocast, to_device

    torch.manual_seed(0)
    batch = SHAPES[network][0]
    students = [to_device(build_model(network, num_classes=100), device).train() for _ in range(STACKED)]
    images = torch.randn(batch, 3, 32, 32).to(device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 100, (batch,)).to(device)
    weights, buffers = stack_module_state(students)
    one = to_device(build_model(network, num_classes=100), device).train()
    call = vmap(lambda weights, buffers: functional_call(one, (weights, buffers), (images,)))

    def together() -> None:
        for weight in weights.values():
            weight.grad = None
        with autocast(device, precision):
            logits = call(weights, buffers)
        torch.stack([F.cross_entropy(own.float(), labels) for own in logits]).sum().backward()

    def apart() -> None:
        for student in students:
            student.zero_grad(set_to_none=True)
            with autocast(device, precision):
                logits = student(images)
            F.cross_entropy(logits.float(), labels).backward()

    def distance() -> float:
        pairs = [
            (weights[name].grad[place], weight.grad)
            for place, student in enumerate(students)
            for name, weight in student.named_parameters()
        ]
        return max(float((mine - own).abs().max() / own.abs().max()) for mine, own in pairs if own is not None)

    return together, apart, distance


def _seconds(step: Callable[[], object], device: Any) -> float:
    import torch

    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
