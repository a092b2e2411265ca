"""Compute what a manifest says of its images: digests, exact mean and std, duplicates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gentrain.data.prepare.manifest import Duplicates
from gentrain.data.sources.formats import Split

Channels = tuple[float, float, float]


def file_digest(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def histogram_of(images: np.ndarray) -> np.ndarray:
    """Return how often each level of each channel occurs in images (N, H, W, 3) uint8: (3, 256)."""
    return np.stack([np.bincount(images[..., channel].reshape(-1), minlength=256) for channel in range(3)])


def channel_statistics(histogram: np.ndarray) -> tuple[Channels, Channels]:
    """Return exact per-channel mean and std in 0..1 from a histogram (3, 256); a constant channel has std 1."""
    levels = np.arange(256) / 255
    means, stds = [], []
    for counts in histogram:
        share = counts / counts.sum()
        mean = float(share @ levels)
        means.append(mean)
        stds.append(float(np.sqrt(share @ (levels - mean) ** 2)) or 1.0)
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])


def count_duplicates(digests: Mapping[str, Sequence[bytes]]) -> Duplicates:
    """Return how many images are exact copies, within each split and across, by their digests."""
    unique = {name: set(split) for name, split in digests.items()}
    names = list(digests)
    return Duplicates(
        within={name: len(digests[name]) - len(unique[name]) for name in names},
        across={
            f"{one}/{other}": sum(digest in unique[one] for digest in digests[other])
            for i, one in enumerate(names)
            for other in names[i + 1 :]
        },
    )


def raw_fingerprint(splits: Mapping[str, Split], classes: Sequence[str]) -> str:
    """Return the sha256 over class names, and the labels and pixels of every split in order."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for name in sorted(splits):
        split = splits[name]
        digest.update(f"{name} {split.images.shape}".encode())
        digest.update(np.ascontiguousarray(split.labels, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(split.images).data)
    return digest.hexdigest()


def jpeg_fingerprint(
    splits: Mapping[str, tuple[np.ndarray, Sequence[bytes]]], classes: Sequence[str], size: int
) -> str:
    """Return the sha256 over class names, the side of the network's images, and every split in order.

    Args:
        splits: labels (N,) and the N JPEGs' sha256 of each.
        classes: their names.
        size: side in pixels.
    """
    digest = hashlib.sha256(json.dumps([classes, size]).encode())
    for name in sorted(splits):
        labels, images = splits[name]
        digest.update(f"{name} {len(labels)}".encode())
        digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
        for image in images:
            digest.update(image)
    return digest.hexdigest()
