"""What networks cost, and their bytes, kept in the node's cache: counting imports torch, which outlasts a plan."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from gentrain.data.prepare.expected import Expected
from gentrain.models.cost import Cost, forward_cost
from gentrain.models.footprint import BODIES, NetworkBytes, network_bytes
from gentrain.models.registry import registered
from gentrain.store.run import node_cache

T = TypeVar("T", Cost, NetworkBytes)
COUNTING_VERSION = 1
"""Bumped with a change of what is counted."""


@cache
def network_cost(name: str, classes: int, height: int, width: int) -> Cost | None:
    """Return what one image's forward pass takes; None where that can't be counted."""
    what = (name, classes, height, width)
    try:
        return _kept(Cost, name, what, lambda: forward_cost(name, num_classes=classes, height=height, width=width))
    except Exception:  # a network from elsewhere raises whatever it likes; a run says it in full
        return None


def cost_of(name: str, images: Expected) -> Cost | None:
    """Return what the forward pass of one of the images takes; None where that can't be counted."""
    return network_cost(name, images.classes, images.height, images.width)


def size_of(name: str, images: Expected, *, memory_efficient: bool) -> NetworkBytes:
    """Return the bytes of a network for the images.

    Raises:
        ValueError: when it can't be built, or doesn't take such images.
    """
    classes, height, width = images.classes, images.height, images.width

    def count() -> NetworkBytes:
        return network_bytes(name, num_classes=classes, height=height, width=width, memory_efficient=memory_efficient)

    if name in BODIES and not memory_efficient:
        return count()
    what = (
        "bytes",
        version("torch"),
        name,
        classes,
        height,
        width,
        memory_efficient,
    )  # torch decides what a step keeps
    return _kept(NetworkBytes, name, what, count)


def _kept(kind: type[T], name: str, what: Sequence[str | int], count: Callable[[], T]) -> T:
    """Return what the cache has, else what `count` returns, which it has from now on.

    Args:
        kind: of figures.
        name: of the network.
        what: is counted; names the figures in the cache.
        count: counts them.
    """
    file = _file(*what) if registered(name) else None  # a user's function may change
    if file is not None and (known := _read(kind, file)) is not None:
        return known
    counted = count()
    if file is not None:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(asdict(counted)))
            part.replace(file)
    return counted


def _file(*what: str | int) -> Path | None:
    name = hashlib.sha256(json.dumps([COUNTING_VERSION, *what]).encode()).hexdigest()[:16]
    with contextlib.suppress(RuntimeError):  # no home folder
        return node_cache() / "costs" / f"{name}.json"
    return None


def _read(kind: type[T], file: Path) -> T | None:
    try:
        figures = kind(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return figures if all(isinstance(value, int) and value > 0 for value in asdict(figures).values()) else None
