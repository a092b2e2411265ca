"""What a network takes: images of which size, how many parameters, how many multiply-adds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gentrain.errors import ConfigError, first_line
from gentrain.models.registry import TORCHVISION, build_model, model_names, registered

if TYPE_CHECKING:
    from torch import Tensor

CIFAR_SIZE, IMAGENET_SIZE = 32, 224
"""Sides of the images in pixels."""
MOST_MEMORY = 0.8
"""Part of this machine's memory that a network's parameters may take."""
MOST_PARAMETERS = 50_000_000
"""Of a network that is run to count what it takes."""


def check_fits(name: str, *, num_classes: int, height: int, width: int, folded: bool = False) -> None:
    """Check that a network takes images of this size and gives logits (N, num_classes); with `folded`, that it folds.

    Raises:
        ValueError: when it doesn't.
    """
    import torch

    from gentrain.models.fold import fold

    if registered(name):
        _check_memory(name, parameter_count(name, num_classes=num_classes))
    model = build_model(name, num_classes=num_classes).eval()
    try:
        with torch.no_grad(), _one_thread():
            out = model(torch.zeros(1, 3, height, width))
    except Exception as error:  # a network from elsewhere raises whatever it likes
        reason = first_line(error)
        raise ValueError(f"network {name!r} can't take images of {height} × {width} pixels: {reason}") from None
    if not isinstance(out, torch.Tensor) or out.shape != (1, num_classes):
        shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        raise ValueError(f"network {name!r} gives {shape} for one image, not logits (1, {num_classes})")
    if folded:
        try:
            fold(model)
        except ValueError as error:
            raise ValueError(f"fold_batchnorm: true: network {name!r}: {error}; set fold_batchnorm: false") from None


def _check_memory(name: str, parameters: int) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 4 * parameters > MOST_MEMORY * memory:
        raise ValueError(
            f"network {name!r} has {parameters:,} parameters, {4 * parameters / 1e9:,.0f} GB; this machine has "
            f"{memory / 1e9:,.0f} GB of memory; take a smaller one"
        )


def check_trains(name: str, *, num_classes: int, height: int, width: int, images: int) -> None:
    """Check that a network takes a training step on a batch of so many images, and gives logits (images, num_classes).

    More than two images are tried as two, which costs less, and all of them only where that fails. None stands for a
    worker's part without images, whose BatchNorms take no statistics of their own.

    Raises:
        ValueError: when it doesn't.
    """
    import torch

    for tried in sorted({min(images, 2), images}):
        try:
            out = _train_step(name, torch.zeros(tried, 3, height, width), num_classes=num_classes)
            break
        except Exception as error:  # a network from elsewhere raises whatever it likes
            reason = first_line(error)
    else:
        count = f"{images or 'no'} image{'' if images == 1 else 's'}"
        raise ValueError(f"network {name!r} can't train on {count} of {height} × {width} pixels: {reason}")
    if not isinstance(out, torch.Tensor) or out.shape != (tried, num_classes):
        form = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        raise ValueError(
            f"network {name!r} gives {form} while it trains, not logits ({tried}, {num_classes}) alone; name a "
            "function (package.module:function) that builds it without other outputs"
        )


def _train_step(name: str, images: Tensor, *, num_classes: int) -> Any:
    """Return what a network gives for images, after the backward pass where that is one tensor."""
    import torch

    model = build_model(name, num_classes=num_classes).train()
    for module in model.modules() if not len(images) else ():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            module.eval()
    with _one_thread():
        out = model(images)
        if isinstance(out, torch.Tensor):
            out.float().sum().backward()
    return out


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in one thread: an image or two are too little for more, which wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """Build networks in the block by the shapes of their tensors alone, on torch's device `meta`."""
    import torch

    with torch.device("meta"), without_filling():
        yield


@contextlib.contextmanager
def without_filling() -> Iterator[None]:
    """Build networks in the block without filling their weights with random numbers, whose values don't matter.

    That takes long on a CPU, and on the device `meta` torch imports its compiler for it, a second.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    fills = {torch.Tensor.normal_, torch.Tensor.uniform_, torch.nn.init.kaiming_normal_, torch.nn.init.kaiming_uniform_}

    class Unfilled(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return args[0] if args and func in fills else func(*args, **kwargs or {})

    with Unfilled():
        yield


def parameter_count(name: str, *, num_classes: int) -> int:
    """Return the number of trained parameters, without allocating them."""
    with without_memory():
        return sum(parameter.numel() for parameter in build_model(name, num_classes=num_classes).parameters())


@dataclass(frozen=True)
class Cost:
    """What one image's forward pass takes; see `gentrain.models.counting.Counter`."""

    multiply_adds: int
    bytes: int
    """In fp32."""
    operations: int


def forward_cost(name: str, *, num_classes: int, height: int, width: int) -> Cost:
    """Return what one image's forward pass takes.

    A small network of gentrain's own is run, in milliseconds. For others the device `meta` computes nothing, but there
    torch imports its compiler for a normalisation or a sum.
    """
    import torch

    from gentrain.models.counting import Counter

    small = registered(name) and parameter_count(name, num_classes=num_classes) < MOST_PARAMETERS
    with without_filling() if small else without_memory(), torch.no_grad(), _one_thread():
        model = build_model(name, num_classes=num_classes).eval()
        images = torch.zeros(1, 3, height, width)
        with Counter() as counter:
            model(images)
    return Cost(counter.multiply_adds, counter.bytes, counter.operations)


def multiply_adds(name: str, *, num_classes: int, height: int, width: int) -> int:
    """Return the multiply-adds of one image's forward pass.

    They are those of matrix products and convolutions (attention's too), as torch's FlopCounterMode counts them: two
    operations each. Biases, normalisations and activations aren't counted.
    """
    return forward_cost(name, num_classes=num_classes, height=height, width=width).multiply_adds


def describe(names: Sequence[str], *, num_classes: int, size: int | None = None) -> list[dict[str, Any]]:
    """Return each network's name, parameters, multiply-adds of a forward pass, and side of the images.

    Args:
        names: of the networks; all registered ones where it is empty.
        num_classes: C.
        size: side of the images in pixels; by default 32, for networks made for ILSVRC2012 224.

    Raises:
        ConfigError: for a name that is unknown, or a network that can't take the images.
    """
    rows = []
    for name in names or model_names():
        side = size or (IMAGENET_SIZE if name.startswith(("resnet18", TORCHVISION)) else CIFAR_SIZE)
        try:
            check_fits(name, num_classes=num_classes, height=side, width=side)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        count = multiply_adds(name, num_classes=num_classes, height=side, width=side)
        parameters = parameter_count(name, num_classes=num_classes)
        rows.append({"network": name, "parameters": parameters, "multiply_adds": count, "size": side})
    return rows
