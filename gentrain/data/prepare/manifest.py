"""Describe a prepared dataset; its fingerprint is part of every generation's key."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError


class _ManifestPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitInfo(_ManifestPart):
    """Describes one `.beton` file."""

    file: str
    sha256: str
    bytes: int
    count: int
    per_class: tuple[int, ...]


class Duplicates(_ManifestPart):
    """Counts images with exactly the pixels of an earlier one: within a split, and of one split in another."""

    within: dict[str, int]
    across: dict[str, int]


class Manifest(_ManifestPart):
    """Describes a prepared dataset."""

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
    """Of the images that the network gets, in pixels."""
    storage: Literal["raw", "jpeg"] = "raw"
    """raw: all images are of that size; jpeg: images of any size, cut to it when they are read."""
    mean: tuple[float, float, float]
    """Of the training split's pixels by channel, in 0..1."""
    std: tuple[float, float, float]
    splits: dict[str, SplitInfo]
    duplicates: Duplicates
    skipped: tuple[str, ...]
    """Files of the broken images that `skip_broken` left out."""

    @classmethod
    def parse(cls, content: bytes | None) -> Manifest | None:
        """Return the manifest that a file's content holds, None where there is none or it is damaged."""
        if content is None:
            return None
        try:
            return cls.model_validate_json(content)
        except ValidationError:
            return None
