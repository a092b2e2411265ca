"""Measure a step's convolutions one by one: which kernel oneDNN takes, how much is reordering, what other ways cost.

python -m experiments.bench.convolutions resnet20    # a table of kernels and shapes; the stage's rows: make bench
"""

from __future__ import annotations

import heapq
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from experiments.bench.race import NAMES, SHAPES
from experiments.bench.rows import ratio_row

STEPS = 5
PARTS = {"forward_training": "forward", "backward_data": "of the input", "backward_weights": "of the weights"}
WAYS = ("as now", "images first", "fp32", "in halves", "in quarters")
"""bf16 channels last; other layouts, precisions, and batches in parts that stay in the L2 cache."""
SIDE = 2048
"""Of the square matrices whose product stands for what the processor can do in bf16."""
SHOWN = 14


def convolutions(*, data: str, runs: str, rounds: int) -> list[dict[str, Any]]:
    """Return rows: reorders of oneDNN's time, other ways against the present one, the part of a product's speed."""
    import torch

    from gentrain.train.allocator import keep_freed_memory

    del data, runs
    keep_freed_memory()
    torch.set_num_threads(2)
    rows = []
    for network, name in NAMES.items():
        spent = {kind: sum(own.values()) for kind, own in kernels_of(network).items()}
        rows.append(
            ratio_row(f"{name} step: reorders", [spent["reorder"]], [sum(spent.values())], unit="of oneDNN's time")
        )
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        layers = Counter(_layers(network))
        ways = {way: [(count, _pass(layer, way)) for layer, count in layers.items()] for way in WAYS}
        for _ in range(1 + rounds):
            for way, steps in ways.items():
                seconds[way].append(sum(count * _seconds(step) for count, step in steps))
        now = seconds["as now"][1:]
        rows += [
            ratio_row(f"{name} convolutions: {way} / as now", now, seconds[way][1:], unit="× speed") for way in WAYS[1:]
        ]
        work = sum(count * _operations(layer) for layer, count in layers.items())
        product = [_product() for _ in range(1 + rounds)][1:]
        speeds = [work / own for own in now]
        rows.append(ratio_row(f"{name} convolutions: speed / a large product's", speeds, product, unit="of it"))
    return rows


Kernels = dict[str, dict[tuple[str, str, str], float]]
"""Milliseconds by kind of primitive, then by pass, kernel and shape."""
Layer = tuple[tuple[int, ...], tuple[int, ...], int]
"""Shapes of images and weights, and the padding."""


def _layers(network: str) -> list[Layer]:
    """Return every convolution of a training step."""
    import torch
    from torch import nn

    from gentrain.models.registry import build_model

    model, layers = build_model(network, num_classes=100), []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, nn.Conv2d)
        shape = (SHAPES[network][0], *inputs[0].shape[1:])
        layers.append((shape, tuple(module.weight.shape), int(module.padding[0])))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(note)
    with torch.no_grad():
        model(torch.zeros(2, 3, 32, 32))
    return layers


def _operations(layer: Layer) -> float:
    """Return the floating-point operations of a layer's passes; the first layer's have no input gradient."""
    (count, inputs, height, width), weights, _ = layer
    outputs, _, kernel, _ = weights
    passes = 2 if inputs == 3 else 3  # colours
    return 2.0 * passes * count * height * width * inputs * outputs * kernel * kernel


def _pass(layer: Layer, way: str) -> Callable[[], None]:
    """Return a layer's forward and backward pass; the images' gradient is needed but for the first layer's."""
    import torch
    import torch.nn.functional as F

    shape, weights, padding = layer
    dtype = torch.float32 if way == "fp32" else torch.bfloat16
    layout = torch.contiguous_format if way in ("images first", "fp32") else torch.channels_last
    parts = {"in halves": 2, "in quarters": 4}.get(way, 1)
    weight = torch.randn(weights).to(dtype).contiguous(memory_format=layout).requires_grad_()
    whole = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
    images = [part.detach().requires_grad_(shape[1] > 3) for part in whole.chunk(parts)]
    outputs = [torch.randn_like(F.conv2d(part, weight, padding=padding)) for part in images]

    def step() -> None:
        weight.grad = None
        for part, gradient in zip(images, outputs, strict=True):
            part.grad = None
            F.conv2d(part, weight, padding=padding).backward(gradient)

    return step


def _product() -> float:
    """Return the operations a second of a product of large matrices in bf16."""
    import torch

    one, other = (torch.randn(SIDE, SIDE).bfloat16() for _ in range(2))
    return 2.0 * SIDE**3 / _seconds(lambda: torch.mm(one, other))


def _seconds(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def kernels_of(network: str) -> Kernels:
    """Return the milliseconds a step by kind of primitive, then by pass, kernel and shape, as oneDNN prints them."""
    environment = os.environ | {"ONEDNN_VERBOSE": "profile_exec", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "experiments.bench.convolutions", network, "step"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return parse_profile(process.stdout)


def parse_profile(output: str) -> Kernels:
    """Return what `kernels_of` does, of the lines after the warm-up: oneDNN's verbose format 1."""
    by_kind: Kernels = defaultdict(lambda: defaultdict(float))
    for line in output.partition("warm\n")[2].splitlines():
        fields = line.split(",")
        if fields[:1] != ["onednn_verbose"] or "exec" not in fields[:5]:
            continue
        kind, kernel, direction = fields[fields.index("exec") + 2 :][:3]
        by_kind[kind][PARTS.get(direction, direction), kernel, fields[-2]] += float(fields[-1]) / STEPS
    return by_kind


def _steps(network: str) -> None:
    """Take steps of a patriarch, as `experiments.bench.kernels` does; say when the warm-up is over."""
    from experiments.bench.kernels import training_step

    step = training_step(network, "bf16")
    step()
    sys.stdout.write("warm\n")
    sys.stdout.flush()
    for _ in range(STEPS):
        step()


def _table(network: str) -> str:
    by_kind = kernels_of(network)
    every = sum(sum(own.values()) for own in by_kind.values())
    lines = [f"{kind}: {sum(own.values()):.1f} ms, {sum(own.values()) / every:.1%}" for kind, own in by_kind.items()]
    heaviest = heapq.nlargest(SHOWN, by_kind["convolution"].items(), key=lambda item: item[1])
    for (part, kernel, shape), spent in heaviest:
        lines.append(f"{spent:7.2f} ms  {part:14} {kernel:36} {shape}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[2:] == ["step"]:
        _steps(sys.argv[1])
    else:
        sys.stdout.write(_table(sys.argv[1]))
