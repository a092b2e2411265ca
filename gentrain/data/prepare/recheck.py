"""Compare a manifest that has no digest with the prepared images themselves, before it gets one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gentrain.data.prepare.manifest import Manifest
from gentrain.data.prepare.statistics import channel_statistics, histogram_of, jpeg_fingerprint, raw_fingerprint
from gentrain.data.sources.formats import Split
from gentrain.data.sources.pixels import jpeg_pixels

if TYPE_CHECKING:
    from gentrain.data.loading.beton import StoredImages

DECODED = 20_000
"""JPEGs that are decoded to compare mean and std: all, or as many spread over the split."""
TOLERANCES = {"raw": (1e-9, 1e-9), "jpeg": (0.01, 0.05)}
"""Of mean and std. Those of JPEGs were taken before the images were encoded, which takes detail away."""


def contradiction(manifest: Manifest, folder: Path) -> str | None:
    """Return what of a manifest the images contradict, None where they agree.

    Compared are the fingerprint, which covers classes, labels and images, the counts, mean and std. Groups of classes,
    duplicates and skipped files aren't in the images, and train nothing.

    Args:
        manifest: whose files' checksums were verified.
        folder: of the files.
    """
    from gentrain.data.loading.beton import StoredImages

    stored = {name: StoredImages.open(folder / info.file) for name, info in manifest.splits.items()}
    for name, images in stored.items():
        per_class = np.bincount(images.labels, minlength=len(manifest.classes)).tolist()
        if per_class != list(manifest.splits[name].per_class) or len(images.labels) != manifest.splits[name].count:
            return f"counts of {name}"
    compare = _raw if manifest.storage == "raw" else _jpeg
    fingerprint, histogram = compare(manifest, stored)
    if fingerprint != manifest.fingerprint:
        return "fingerprint, which covers classes, labels and images"
    mean, std = channel_statistics(histogram)
    pairs = (("mean", mean, manifest.mean), ("std", std, manifest.std))
    for (field, values, recorded), tolerance in zip(pairs, TOLERANCES[manifest.storage], strict=True):
        if not np.allclose(values, recorded, rtol=0, atol=tolerance):
            return f"{field} {_listed(recorded)}, of the images {_listed(values)}"
    return None


def _raw(manifest: Manifest, stored: Mapping[str, StoredImages]) -> tuple[str, np.ndarray]:
    """Return the fingerprint of raw images, and how often each level of each channel occurs in the training split."""
    shape = (-1, manifest.height, manifest.width, 3)
    splits = {
        name: Split(np.concatenate(images.contents).reshape(shape), images.labels) for name, images in stored.items()
    }
    return raw_fingerprint(splits, manifest.classes), histogram_of(splits["train"].images)


def _jpeg(manifest: Manifest, stored: Mapping[str, StoredImages]) -> tuple[str, np.ndarray]:
    """Return what `_raw` does, of JPEGs."""
    splits = {
        name: (images.labels, [hashlib.sha256(content.tobytes()).digest() for content in images.contents])
        for name, images in stored.items()
    }
    train = stored["train"].contents
    histogram = np.zeros((3, 256), np.int64)
    for content in train[:: max(1, len(train) // DECODED)]:
        histogram += histogram_of(jpeg_pixels(content.tobytes()))
    return jpeg_fingerprint(splits, manifest.classes, manifest.height), histogram


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
