"""Describe a prepared dataset; its fingerprint is part of every generation's key."""

from __future__ import annotations

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from gentrain.store.folder import mapping_digest


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

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        for name, info in self.splits.items():
            if info.file != f"{name}.beton":
                raise ValueError(f"the file of split {name} is {info.file}")
        return self

    @classmethod
    def parse(cls, content: bytes | None) -> Manifest | None:
        """Return the manifest that a file's content holds, None where there is none or it is damaged.

        Damaged is also what doesn't have the digest that it names. Versions before the digest wrote none.
        """
        values = _values(content)
        if values is None:
            return None
        digest = values.pop("digest", None)
        try:
            if digest is not None and digest != mapping_digest(values):
                return None
            return cls.model_validate(values)
        except ValueError:  # pydantic's ValidationError is one
            return None

    def file_content(self) -> bytes:
        """Return the content of its file: the fields and the sha256 of their canonical JSON, as `digest`."""
        values = self.model_dump(mode="json")
        return (json.dumps(values | {"digest": mapping_digest(values)}, indent=2, ensure_ascii=False) + "\n").encode()


def has_digest(content: bytes | None) -> bool:
    """Return whether a manifest file's content has a digest; versions before it wrote none."""
    values = _values(content)
    return values is not None and "digest" in values


def _values(content: bytes | None) -> dict[str, Any] | None:
    try:
        values = json.loads(content or b"")
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
