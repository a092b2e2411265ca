"""Names of networks, and the networks that they build: (N, 3, H, W) -> logits (N, num_classes)."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gentrain.errors import cut, shown

if TYPE_CHECKING:
    from torch import nn

PAPER_DEPTHS = (20, 32, 44, 56, 74, 92, 110)
SMALL_DEPTHS = (8, 14)
DENSE_GROWTH = {100: 12, 190: 40}
"""Growth rate k of the paper's DenseNet-BC by depth; densenetL-kK names any other."""
MOST_LAYERS, MOST_GROWTH = 2000, 500
"""Larger networks than any that was ever published; building one by mistake takes all memory."""
TORCHVISION = "torchvision/"
LONGEST = 200
"""Most characters of a name that are compared with the known ones."""

_searched: list[str] = []


def search_functions(*folders: str) -> None:
    """Look for the modules of package.module:function in folders, too, where they are nowhere else."""
    for folder in folders:
        if folder not in sys.path:
            sys.path.append(folder)
        if folder not in _searched:
            _searched.append(folder)


def searched_folders() -> tuple[str, ...]:
    """Return the folders of `search_functions`, for processes elsewhere that build networks and losses."""
    return tuple(_searched)


def model_names() -> tuple[str, ...]:
    """Return the names of the registered networks; resnetL can be built for every other L = 6n + 2 as well."""
    return (
        *(f"resnet{depth}" for depth in (*SMALL_DEPTHS, *PAPER_DEPTHS)),
        *(f"resnet{depth}-strided" for depth in (*SMALL_DEPTHS, *PAPER_DEPTHS)),
        *(f"densenet{depth}" for depth in DENSE_GROWTH),
        "resnet18",
        "resnet18-strided",
    )


def registered(name: str) -> bool:
    """Return whether it is a name of gentrain's own, not of torchvision's or a function's."""
    return _registered(name) is not None


def check_model_name(name: str, *, importing: bool = True) -> None:
    """Check that a network of this name can be built; a registered name is checked without importing torch.

    Args:
        name: of the network.
        importing: whether torchvision's names and functions are imported; else any of their form is taken.

    Raises:
        ValueError: when it can't, with the nearest names or the remedy.
    """
    if _registered(name) is not None or (not importing and (name.startswith(TORCHVISION) or ":" in name)):
        return
    if name.startswith(TORCHVISION):
        _torchvision(name)
    elif ":" in name:
        _factory(name)
    else:
        match = re.fullmatch(r"resnet([0-9]{1,4})", name)
        if match:
            near = sorted(_depths(), key=lambda depth: abs(depth - int(match[1])))[:2]
            hint = f"did you mean {' or '.join(f'resnet{depth}' for depth in sorted(near))}?"
        else:
            close = difflib.get_close_matches(name[:LONGEST], model_names(), n=2, cutoff=0.6)
            also = "torchvision/NAME or package.module:function"
            hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(model_names())}, {also}"
        raise ValueError(f"unknown network {shown(name)}; {hint}")


def build_model(name: str, *, num_classes: int, memory_efficient: bool = False) -> nn.Module:
    """Build a network with fresh weights from torch's current seed.

    Args:
        name: a registered name, torchvision/NAME, or package.module:function, called as function(num_classes=…).
        num_classes: C.
        memory_efficient: DenseNets only: compute bottlenecks again in the backward pass: less memory, the same bits.

    Raises:
        ValueError: when the name is unknown, or its function fails or returns no module.
    """
    check_model_name(name)
    known = _registered(name)
    if known is None:
        return _made(name, num_classes)
    kind, depth, growth = known
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


def label(name: str) -> str:
    """Return the network's name with the characters that a file name allows, for the names of chains."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)


def family(name: str) -> tuple[str, int] | None:
    """Return the family and the depth of a registered network: cifar, imagenet (both also -strided) or dense."""
    registered = _registered(name)
    return registered and registered[:2]


def _depths() -> tuple[int, ...]:
    return (*SMALL_DEPTHS, *PAPER_DEPTHS)


def _registered(name: str) -> tuple[str, int, int] | None:
    """Return (kind, depth, growth) of a registered name, None for any other."""
    if match := re.fullmatch(r"resnet18(-strided)?", name):
        return ("imagenet-strided" if match[1] else "imagenet", 18, 0)
    if match := re.fullmatch(r"resnet([1-9][0-9]{0,4})(-strided)?", name):
        depth = int(match[1])
        if 8 <= depth <= MOST_LAYERS and depth % 6 == 2:
            return ("cifar-strided" if match[2] else "cifar", depth, 0)
    if match := re.fullmatch(r"densenet([1-9][0-9]{0,4})(?:-k([1-9][0-9]{0,3}))?", name):
        depth = int(match[1])
        growth = int(match[2] or DENSE_GROWTH.get(depth, 0))
        if 10 <= depth <= MOST_LAYERS and depth % 6 == 4 and 0 < growth <= MOST_GROWTH:
            return ("dense", depth, growth)
    return None


def _torchvision(name: str) -> Callable[..., Any]:
    from torchvision import models
    from torchvision.models import get_model_builder, list_models

    wanted = name.removeprefix(TORCHVISION)[:LONGEST]
    known = list_models(module=models)
    if wanted not in known:
        close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4)
        near = " or ".join(TORCHVISION + n for n in close)
        some = ", ".join(TORCHVISION + n for n in known[:5])
        hint = f"did you mean {near}?" if close else f"known: {some} and {len(known) - 5} more"
        raise ValueError(f"unknown network {shown(name)}; {hint}")
    builder: Callable[..., Any] = get_model_builder(wanted)
    return builder


def import_module(name: str, *, what: str) -> ModuleType:
    """Return a module of the user's; `what` it is imported for begins the message where that fails.

    Raises:
        ValueError: when it can't be imported.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a module raises whatever it likes while it is imported
        reason = cut(str(error)) or type(error).__name__
        raise ValueError(f"{what}: module {cut(name)} can't be imported: {reason}") from None


def _factory(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")) or not attribute:
        raise ValueError(f"network {shown(name)}: not package.module:function, such as mynets:small")
    module = import_module(module_name, what=f"network {shown(name)}")
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ValueError(f"network {shown(name)}: {cut(module_name)} has no function {shown(attribute)}")  # noqa: TRY004
    factory: Callable[..., Any] = function
    return factory


def _made(name: str, num_classes: int) -> nn.Module:
    """Return what a function from elsewhere builds."""
    from torch import nn

    function = (_torchvision if name.startswith(TORCHVISION) else _factory)(name)
    try:
        made = function(num_classes=num_classes)
    except Exception as error:  # a function from elsewhere raises whatever it likes
        reason = f"{type(error).__name__}: {cut(str(error))}"
        raise ValueError(f"network {shown(name)} can't be built for {num_classes} classes: {reason}") from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"network {shown(name)} is of type {type(made).__name__}, not a torch.nn.Module")  # noqa: TRY004
    return made
