"""Measure which kernels a patriarch's step spends its time in: in fp32 as in a plain script, and as in gentrain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.bench.contenders import sgd
from experiments.bench.race import NAMES, SHAPES
from experiments.bench.rows import ratio_row

GROUPS = {"convolutions": ("convolution",), "BatchNorms": ("batch_norm",)}
"""By what is in the kernels' names; all others are "the rest": ReLUs, sums, concatenations, pooling, the optimiser."""
REST = "the rest"
STEPS = 3


def kernels(*, data: str, runs: str, rounds: int) -> list[dict[str, Any]]:
    """Return rows by group of kernels: its speed against the script's, and its part of gentrain's arithmetic."""
    import torch

    from gentrain.train.allocator import keep_freed_memory

    del data, runs
    keep_freed_memory()
    torch.set_num_threads(2)
    rows = []
    for network, name in NAMES.items():
        steps = {precision: training_step(network, precision) for precision in ("fp32", "bf16")}
        measured = [{precision: _seconds(step) for precision, step in steps.items()} for _ in range(1 + rounds)][1:]
        for group in (*GROUPS, REST):
            own = [seconds["bf16"][group] for seconds in measured]
            row = f"{name} patriarch, {group}"
            script = [seconds["fp32"][group] for seconds in measured]
            whole = [sum(seconds["bf16"].values()) for seconds in measured]
            rows.append(ratio_row(f"{row}: fp32, images first / bf16, channels last", script, own, unit="× speed"))
            rows.append(ratio_row(f"{row}: part of a bf16 step", own, whole, unit="× time"))
    return rows


def training_step(network: str, precision: str) -> Callable[[], None]:
    """Return a step of a patriarch on random images."""
    import torch
    import torch.nn.functional as F

    from gentrain.models.registry import build_model
    from gentrain.train.device import autocast, to_device

    batch, cpu = SHAPES[network][0], torch.device("cpu")
    torch.manual_seed(0)
    model, images = build_model(network, num_classes=100).train(), torch.randn(batch, 3, 32, 32)
    if precision == "bf16":
        model, images = to_device(model, cpu), images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 100, (batch,))
    optimizer = sgd(model, fused=precision == "bf16")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(cpu, precision):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def _seconds(step: Callable[[], None]) -> dict[str, float]:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            step()
    by_group = dict.fromkeys((*GROUPS, REST), 0.0)
    for event in profiler.key_averages():
        group = next((group for group, parts in GROUPS.items() if any(part in event.key for part in parts)), REST)
        by_group[group] += event.self_cpu_time_total / 1e6
    return by_group
