"""Look at a folder of images before a study of it is written: what is in it, and what is odd about it."""

from __future__ import annotations

import hashlib
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gentrain.data.sources.folders import (
    BrokenImage,
    ImageList,
    count_left_out,
    list_images,
    open_image,
    test_folder,
    training_tree,
)
from gentrain.data.sources.walk import subfolders
from gentrain.errors import DataError, printable, shown_path

TEST_PART = 0.2
"""Part of each class that is tested on where a folder has no test images."""
MOST_DECODED = 5_000
"""Most images that are decoded; of more, so many at equal distances."""
IMBALANCE = 10
"""Times as many images of the largest class as of the smallest from which they are called imbalanced."""
NAMED = 3
"""Most files or classes that a line names."""


@dataclass(frozen=True)
class FolderSurvey:
    """Says what a folder of images holds."""

    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    """Images of every class by split; those that can't be read are left out."""
    test_part: float | None
    """Part of each class that becomes test images, where the folder has none."""
    decoded: int
    """Images that were decoded, readable or not."""
    sides: tuple[int, int, int]
    """Smallest, median and largest shorter side in pixels."""
    broken: tuple[str, ...]
    """Files that can't be read, relative to the folder."""
    copies: int
    """Images whose content another one before them has."""
    oddities: tuple[str, ...]
    """A line for each thing that a person may want to change."""

    def images(self, split: str) -> int:
        """Return how many images a split has."""
        return sum(self.counts[split])


def survey_folder(path: Path) -> FolderSurvey:
    """Look at a class-per-folder tree: all names and sizes of files, the pixels of `MOST_DECODED` images at most.

    Raises:
        DataError: for a folder that no study can be made of, with the remedy.
    """
    name = shown_path(str(path))
    if not path.is_dir():
        raise DataError(f"{name}: no such folder; give the one with a folder of images for each class")
    whole = test_folder(path) is not None and (path / "train").is_dir()
    if not whole:
        _check_splittable(path / "train" if (path / "train").is_dir() else path)
    listed, classes = list_images(path, test=None if whole else TEST_PART)
    if len(classes) < 2:
        raise DataError(f"{name}: {len(classes)} class folder in it; a classifier needs at least 2")
    sides, broken = _decode(listed)
    if not sides:
        raise DataError(f"{name}: none of its images can be read ({broken[0].reason})")
    counts = _readable(listed, classes, {image.file for image in broken})
    for number, count in enumerate(counts["train"]):
        if not count:
            where = printable(classes[number])
            raise DataError(f"{name}: class {where} has no training image that can be read; repair or add some")
    if not sum(counts["test"]):
        raise DataError(f"{name}: {shown_path(str(test_folder(path)))} has no image that can be read; add some")
    copies = list(_copies(listed))
    decoded, files = len(sides) + len(broken), sum(len(images.files) for images in listed.values())
    return FolderSurvey(
        classes=classes,
        counts=counts,
        test_part=None if whole else TEST_PART,
        decoded=decoded,
        sides=(min(sides), round(statistics.median(sides)), max(sides)),
        broken=tuple(str(image.file.relative_to(path)) for image in broken),
        copies=len(copies),
        oddities=(
            *_about_files(path, broken, decoded=decoded, files=files),
            *_about_copies(copies),
            *_about_classes(classes, counts),
        ),
    )


def _check_splittable(root: Path) -> None:
    """Raise DataError where a tree without test images can't give some of each class."""
    if not subfolders(root):
        raise DataError(
            f"{shown_path(str(root))}: no class folders in it; put the images of each class into a folder named like it"
        )
    images, classes = training_tree(root)
    single = [classes[number] for number in np.flatnonzero(np.bincount(images.labels) == 1)]
    if single:
        raise DataError(
            f"{shown_path(str(root))}: one image only in {_names(single)}, so none is left to test on; add images, or "
            "move the folder away"
        )


def _decode(listed: Mapping[str, ImageList]) -> tuple[list[int], list[BrokenImage]]:
    """Return the shorter sides of the images that were decoded, and those that can't be."""
    files = [file for images in listed.values() for file in images.files]
    chosen = np.linspace(0, len(files) - 1, min(len(files), MOST_DECODED)).astype(int)

    def look(index: int) -> int | BrokenImage:
        opened = open_image(files[index])
        return opened if isinstance(opened, BrokenImage) else min(opened.pixels.size)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        seen = list(pool.map(look, chosen))
    return [side for side in seen if isinstance(side, int)], [image for image in seen if isinstance(image, BrokenImage)]


def _readable(listed: Mapping[str, ImageList], classes: Sequence[str], broken: set[Path]) -> dict[str, tuple[int, ...]]:
    counts = {}
    for name, images in listed.items():
        labels = [label for file, label in zip(images.files, images.labels, strict=True) if file not in broken]
        counts[name] = tuple(np.bincount(np.asarray(labels, dtype=np.int64), minlength=len(classes)).tolist())
    return counts


@dataclass(frozen=True)
class _Copy:
    split: str
    label: int
    first: tuple[str, int]
    """Split and class of the first file with this content."""


def _copies(listed: Mapping[str, ImageList]) -> Iterator[_Copy]:
    """Yield the files whose content another file before them has; only those of equal length are read."""
    by_length: dict[int, list[tuple[Path, str, int]]] = defaultdict(list)
    for split, images in listed.items():
        for file, label in zip(images.files, images.labels, strict=True):
            if file.is_file():
                by_length[file.stat().st_size].append((file, split, int(label)))
    for alike in by_length.values():
        first: dict[bytes, tuple[str, int]] = {}
        for file, split, label in alike if len(alike) > 1 else ():
            try:
                with file.open("rb") as opened:
                    content = hashlib.file_digest(opened, "sha256").digest()
            except OSError:  # it is named as unreadable already
                continue
            if content in first:
                yield _Copy(split, label, first[content])
            else:
                first[content] = split, label


def _about_files(path: Path, broken: Sequence[BrokenImage], *, decoded: int, files: int) -> Iterator[str]:
    if broken:
        names = _names(str(image.file.relative_to(path)) for image in broken)
        them = "it" if len(broken) == 1 else "them"
        yield f"{_count(len(broken), 'image')} can't be read: {names}; the study skips {them}"
    if decoded < files:
        yield f"{decoded:,} of {files:,} images were decoded; the others may hold more that can't be read"
    if left_out := count_left_out(path):
        yield "files that are no images of it: " + ", ".join(f"{n:,} {kind}" for kind, n in left_out.items())


def _about_copies(copies: Sequence[_Copy]) -> Iterator[str]:
    if not copies:
        return
    line = f"{_count(len(copies), 'image')} the same, byte for byte, as another"
    if across := sum(copy.split != copy.first[0] for copy in copies):
        line += f"; {across:,} of them tested on and trained on, so that the test error is too good"
    if unlike := sum(copy.label != copy.first[1] for copy in copies):
        line += f"; {unlike:,} of them in two classes"
    yield line


def _about_classes(classes: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Iterator[str]:
    train = counts["train"]
    if single := [name for name, count in zip(classes, train, strict=True) if count == 1]:
        yield f"one training image only: {_names(single)}"
    most, fewest = max(train), min(train)
    if most >= IMBALANCE * fewest:
        large, small = printable(classes[train.index(most)]), printable(classes[train.index(fewest)])
        yield f"imbalanced: {most:,} training images of {large}, {fewest:,} of {small}; errors say little of {small}"
    if untested := [name for name, count in zip(classes, counts["test"], strict=True) if not count]:
        yield f"no test image: {_names(untested)}"


def _names(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    every = list(map(printable, names))
    more = f" and {len(every) - NAMED:,} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
