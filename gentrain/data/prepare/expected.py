"""What a dataset will be before it is prepared, as far as names and sizes of files tell."""

from __future__ import annotations

from dataclasses import dataclass

from gentrain.data.prepare.images import DEFAULT_SIZE
from gentrain.data.prepare.manifest import Manifest
from gentrain.data.sources.folders import list_images
from gentrain.data.sources.registry import source_path
from gentrain.errors import GentrainError
from gentrain.study.sections import DatasetConfig

KNOWN = {
    "digits": (10, 1438, 359, 8),
    "cifar10": (10, 50_000, 10_000, 32),
    "cifar100": (100, 50_000, 10_000, 32),
    "fashion_mnist": (10, 60_000, 10_000, 28),
}
"""Classes, training and test images, and their side in pixels."""
CLASSES_OF_A_GROUP = 5
"""In CIFAR-100."""
BYTE_PIXELS = 2
"""Pixels of a JPEG of good quality for a byte, at least."""


@dataclass(frozen=True)
class Expected:
    """The images of a dataset; where classes or images are left out, at most so many."""

    classes: int
    predicted: int
    """Images whose predictions every generation keeps: those of the test and validation splits."""
    height: int
    width: int
    bytes: int
    """That preparing it takes on the disk; 0 where it is prepared."""
    trained: int
    """Training images, without those held out."""


def expected_images(config: DatasetConfig, manifest: Manifest | None) -> Expected | None:
    """Return what a dataset is, or will be; None where that can't be said without reading it."""
    if manifest is not None:
        return prepared_images(manifest)
    if config.source in KNOWN:
        classes, train, test, side = KNOWN[config.source]
        sizes, pixels = None, 3 * side**2
    elif config.source == "imagefolder":
        try:
            path = source_path(config)
            listed, names = list_images(path, test=config.test) if path else ({}, ())
            files = [file for images in listed.values() for file in images.files]
            largest = config.max_side**2 // BYTE_PIXELS
            whole = config.storage == "jpeg"
            sizes = sum(min(file.stat().st_size, largest) for file in files) if whole else None
        except (GentrainError, OSError, ValueError):
            return None
        if not files:
            return None
        classes, train, test = len(names), len(listed["train"].files), len(listed["test"].files)
        side = config.image_size or (DEFAULT_SIZE if config.storage == "jpeg" else 32)
        pixels = 3 * side**2
    else:
        return None
    if config.limit is not None:
        train, test, sizes = min(train, classes * config.limit), min(test, classes * config.limit), None
    # whole images are encoded in shards first; one as large as the network's stands for an image under a limit
    count = 2 * sizes if sizes is not None else (train + test) * pixels
    held_out = round(config.validation * train)
    trained = round((train - held_out) * _share(config, classes))
    return Expected(classes, test + held_out, side, side, count, max(1, trained))


def prepared_images(manifest: Manifest) -> Expected:
    """Return what a prepared dataset is."""
    predicted = sum(info.count for name, info in manifest.splits.items() if name != "train")
    trained = manifest.splits["train"].count
    return Expected(len(manifest.classes), predicted, manifest.height, manifest.width, 0, trained)


def _share(config: DatasetConfig, classes: int) -> float:
    """Return the part of the classes that are kept."""
    if config.classes is not None:
        return min(1.0, len(config.classes) / classes)
    return min(1.0, CLASSES_OF_A_GROUP * len(config.groups) / classes) if config.groups is not None else 1.0
