"""The networks, by name: (N, 3, H, W) -> logits (N, num_classes)."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gentrain.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

PAPER_DEPTHS = (20, 32, 44, 56, 74, 92, 110)
SMALL_DEPTHS = (8, 14)
DENSE_GROWTH = {100: 12, 190: 40}
"""Growth rate k of the paper's DenseNet-BC by depth; densenetL-kK names any other."""
TORCHVISION = "torchvision/"
CIFAR_SIZE, IMAGENET_SIZE = 32, 224
"""Sides of the images in pixels."""


def model_names() -> tuple[str, ...]:
    """Return the names of the registered networks; resnetL is there for every other L = 6n + 2 as well."""
    return (
        *(f"resnet{depth}" for depth in (*SMALL_DEPTHS, *PAPER_DEPTHS)),
        *(f"resnet{depth}-strided" for depth in (*SMALL_DEPTHS, *PAPER_DEPTHS)),
        *(f"densenet{depth}" for depth in DENSE_GROWTH),
        "resnet18",
        "resnet18-strided",
    )


def check_model_name(name: str) -> None:
    """Raise ValueError, with the nearest names or the remedy, where `name` is no network that can be built.

    Registered names are checked without importing torch.
    """
    if _registered(name) is not None:
        return
    if name.startswith(TORCHVISION):
        _torchvision(name)
    elif ":" in name:
        _factory(name)
    else:
        match = re.fullmatch(r"resnet(\d+)", name)
        if match:
            near = sorted(_depths(), key=lambda depth: abs(depth - int(match[1])))[:2]
            hint = f"did you mean {' or '.join(f'resnet{depth}' for depth in sorted(near))}?"
        else:
            close = difflib.get_close_matches(name, model_names(), n=2, cutoff=0.6)
            also = "torchvision/NAME or package.module:function"
            hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(model_names())}, {also}"
        raise ValueError(f"unknown network {name!r}; {hint}")


def build_model(name: str, *, num_classes: int, memory_efficient: bool = False) -> nn.Module:
    """Build a network with fresh weights from torch's current seed.

    Args:
        name: a registered name, torchvision/NAME, or package.module:function, called as function(num_classes=…).
        num_classes: C.
        memory_efficient: DenseNets only: compute bottlenecks again in the backward pass; the same bits, less memory.

    Raises:
        ValueError: when the name is unknown.
    """
    check_model_name(name)
    found = _registered(name)
    if found is None:
        made: Any = (_torchvision if name.startswith(TORCHVISION) else _factory)(name)(num_classes=num_classes)
        return made  # type: ignore[no-any-return]
    kind, depth, growth = found
    if kind == "dense":
        from gentrain.models.densenet import DenseNet

        return DenseNet(depth, growth, num_classes=num_classes, memory_efficient=memory_efficient)
    if kind == "imagenet":
        from gentrain.models.imagenet_resnet import PooledResNet18

        return PooledResNet18(num_classes=num_classes)
    if kind == "imagenet-strided":
        from torchvision.models import resnet18

        strided: nn.Module = resnet18(num_classes=num_classes)
        return strided
    from gentrain.models.cifar_resnet import CifarResNet

    return CifarResNet(depth, num_classes=num_classes, strided=kind == "cifar-strided")


def check_fits(name: str, *, num_classes: int, height: int, width: int, folded: bool = False) -> None:
    """Raise ValueError where the network can't take images of this size, or doesn't give logits (N, num_classes).

    With `folded`, also where it can't teach with `teacher_pass: folded`.
    """
    import torch

    from gentrain.models.fold import fold

    model = build_model(name, num_classes=num_classes).eval()
    try:
        with torch.no_grad():
            out = model(torch.zeros(1, 3, height, width))
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"network {name!r} can't take images of {height} × {width} pixels: {reason}") from None
    if not isinstance(out, torch.Tensor) or out.shape != (1, num_classes):
        shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        raise ValueError(f"network {name!r} gives {shape} for one image, not logits (1, {num_classes})")
    if folded:
        try:
            fold(model)
        except ValueError as error:
            raise ValueError(f"teacher_pass: folded: network {name!r}: {error}; set teacher_pass: exact") from None


def parameter_count(name: str, *, num_classes: int) -> int:
    """Return the number of trained parameters, without allocating them."""
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(name, num_classes=num_classes).parameters())


def multiply_adds(name: str, *, num_classes: int, height: int, width: int) -> int:
    """Return the multiply-adds of one image's forward pass in convolutions and linear layers, without computing it."""
    import torch
    from torch import nn

    total = 0

    def count(layer: nn.Module, _inputs: Any, out: torch.Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        positions = out.numel() // out.shape[1] if out.dim() > 2 else 1
        total += weight.numel() * positions

    with torch.device("meta"):
        model = build_model(name, num_classes=num_classes).eval()
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(count)
        model(torch.zeros(1, 3, height, width))
    return total


def describe(names: Sequence[str], *, num_classes: int, size: int | None = None) -> list[dict[str, Any]]:
    """Return name, parameters, multiply-adds of a forward pass and the images' side of networks; default: all.

    Args:
        names: of the networks; without any, the registered ones.
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


def label(name: str) -> str:
    """Return the name as it stands in a chain's, which names files."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)


def _depths() -> tuple[int, ...]:
    return (*SMALL_DEPTHS, *PAPER_DEPTHS)


def _registered(name: str) -> tuple[str, int, int] | None:
    """Return (kind, depth, growth) of a registered name."""
    if match := re.fullmatch(r"resnet18(-strided)?", name):
        return ("imagenet-strided" if match[1] else "imagenet", 18, 0)
    if match := re.fullmatch(r"resnet([1-9]\d*)(-strided)?", name):
        depth = int(match[1])
        if depth >= 8 and depth % 6 == 2:
            return ("cifar-strided" if match[2] else "cifar", depth, 0)
    if match := re.fullmatch(r"densenet([1-9]\d*)(?:-k([1-9]\d*))?", name):
        depth = int(match[1])
        growth = int(match[2] or DENSE_GROWTH.get(depth, 0))
        if depth >= 10 and depth % 6 == 4 and growth:
            return ("dense", depth, growth)
    return None


def _torchvision(name: str) -> Callable[..., Any]:
    from torchvision import models
    from torchvision.models import get_model_builder, list_models

    wanted = name.removeprefix(TORCHVISION)
    known = list_models(module=models)
    if wanted not in known:
        close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4)
        raise ValueError(
            f"unknown network {name!r}; did you mean {' or '.join(TORCHVISION + n for n in close or known)}?"
        )
    builder: Callable[..., Any] = get_model_builder(wanted)
    return builder


def _factory(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"network {name!r}: module {module_name} can't be imported: {error}") from None
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ValueError(f"network {name!r}: {module_name} has no function {attribute!r}")  # noqa: TRY004
    factory: Callable[..., Any] = function
    return factory
