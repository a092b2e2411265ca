"""What networks cost, kept in the node's cache: counting imports torch, which takes longer than a plan."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict
from functools import cache
from pathlib import Path

from gentrain.data.prepare.expected import Expected
from gentrain.models.cost import Cost, forward_cost
from gentrain.models.registry import registered
from gentrain.store.run import node_cache

COUNTING_VERSION = 1
"""Bumped with a change of what is counted."""


@cache
def network_cost(name: str, classes: int, height: int, width: int) -> Cost | None:
    """Return what one image's forward pass takes; None where that can't be counted."""
    file = _file(name, classes, height, width) if registered(name) else None  # a user's function may change
    if file is not None and (known := _read(file)) is not None:
        return known
    try:
        cost = forward_cost(name, num_classes=classes, height=height, width=width)
    except Exception:  # a network from elsewhere raises whatever it likes; a run says it in full
        return None
    if file is not None:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(asdict(cost)))
            part.replace(file)
    return cost


def cost_of(name: str, images: Expected) -> Cost | None:
    """Return what the forward pass of one of the images takes; None where that can't be counted."""
    return network_cost(name, images.classes, images.height, images.width)


def _file(*what: str | int) -> Path | None:
    name = hashlib.sha256(json.dumps([COUNTING_VERSION, *what]).encode()).hexdigest()[:16]
    with contextlib.suppress(RuntimeError):  # no home folder
        return node_cache() / "costs" / f"{name}.json"
    return None


def _read(file: Path) -> Cost | None:
    try:
        cost = Cost(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return cost if all(isinstance(value, int) and value > 0 for value in asdict(cost).values()) else None
