"""The networks, by name."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

PAPER_DEPTHS = (20, 32, 44, 56, 74, 92, 110)
SMALL_DEPTHS = (8, 14)


def model_names() -> tuple[str, ...]:
    """Return the names of the registered networks; resnetL is there for every other L = 6n + 2 as well."""
    return tuple(f"resnet{depth}" for depth in (*SMALL_DEPTHS, *PAPER_DEPTHS))


def check_model_name(name: str) -> None:
    """Raise ValueError, with the nearest names, where `name` is no registered network."""
    if _cifar_depth(name) is None:
        match = re.fullmatch(r"resnet(\d+)", name)
        if match:
            near = sorted(sorted(model_names(), key=lambda known: abs(int(known[6:]) - int(match[1])))[:2])
        else:
            near = difflib.get_close_matches(name, model_names(), n=2, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(model_names())}"
        raise ValueError(f"unknown network {name!r}; {hint}")


def build_model(name: str, *, num_classes: int) -> nn.Module:
    """Build a network with fresh weights from torch's current seed: (N, 3, H, W) -> logits (N, num_classes).

    Raises:
        ValueError: when the name is unknown.
    """
    check_model_name(name)
    from gentrain.models.cifar_resnet import CifarResNet

    depth = _cifar_depth(name)
    assert depth is not None
    return CifarResNet(depth, num_classes=num_classes)


def _cifar_depth(name: str) -> int | None:
    match = re.fullmatch(r"resnet([1-9]\d*)", name)
    if match is None or int(match[1]) < 8 or (int(match[1]) - 2) % 6:
        return None
    return int(match[1])
