"""What a prepared dataset says of itself; its fingerprint is part of every generation's key."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitInfo(_Frozen):
    """One `.beton` file."""

    file: str
    sha256: str
    bytes: int
    count: int
    per_class: tuple[int, ...]


class Duplicates(_Frozen):
    """Images whose pixels are exactly those of an earlier one: within a split, and of one split in another."""

    within: dict[str, int]
    across: dict[str, int]


class Manifest(_Frozen):
    """A prepared dataset."""

    version: int
    source: str
    fingerprint: str
    """sha256 over every split's labels and pixels in order, and the class names; paths and times play no part."""
    classes: tuple[str, ...]
    groups: tuple[str, ...] | None
    class_groups: tuple[int, ...] | None
    """Group of each class, an index into `groups`."""
    height: int
    width: int
    """What the network sees, in pixels."""
    storage: Literal["raw", "jpeg"] = "raw"
    """raw: all images are of that size; jpeg: pictures of any size, cut to it when they are read."""
    mean: tuple[float, float, float]
    """Of the training split's pixels by channel, in 0..1."""
    std: tuple[float, float, float]
    splits: dict[str, SplitInfo]
    duplicates: Duplicates
    skipped: tuple[str, ...]
    """Broken pictures that `skip_broken` left out."""
