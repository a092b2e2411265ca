"""Read class-per-folder trees of JPEG, PNG and WebP images, of any colour mode and orientation."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gentrain.data.sources.formats import Split
from gentrain.data.sources.holdout import held_out
from gentrain.data.sources.names import check_names, normal_form
from gentrain.data.sources.pixels import check_memory, eight_bits, is_deep, upright
from gentrain.data.sources.walk import subfolders, walk_files
from gentrain.errors import DataError, printable

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_TEST_NAMES = ("test", "val", "validation")
KAGGLE_LABELS = "LOC_val_solution.csv"
DEVKIT_LABELS = "ILSVRC2012_validation_ground_truth.txt"
DEVKIT_META = "meta.mat"


@dataclass(frozen=True)
class ImageList:
    """Lists the files of one split and the class number of each."""

    files: tuple[Path, ...]
    labels: np.ndarray

    def take(self, chosen: np.ndarray) -> ImageList:
        """Return the images that a mask (N,) chooses, in order."""
        return ImageList(tuple(itertools.compress(self.files, chosen)), self.labels[chosen])


def list_images(path: Path, *, test: float | None = None) -> tuple[dict[str, ImageList], tuple[str, ...]]:
    """Return (splits, classes) of `path`/train/<class>/* and of its test images, without opening one.

    The test images are in `path`/test (or val, validation), in folders by class too, or flat as ILSVRC2012 gives its
    validation set, with their classes in Kaggle's LOC_val_solution.csv or in the development kit's
    ILSVRC2012_validation_ground_truth.txt and meta.mat, anywhere below `path`. Where there are none, they are a part of
    `path`/train/<class>/* or `path`/<class>/*, chosen by a fixed seed.

    Args:
        path: of the tree.
        test: part of each class that becomes test images, for a tree without.

    Raises:
        DataError: for a missing or empty folder, an unknown class, or images without a class.
    """
    folder = test_folder(path)
    if folder is None or not (path / "train").is_dir():
        return _split_tree(path, test)
    if test is not None:
        raise DataError(f"dataset.test: {test}: {folder} has the test images; leave it out")
    train, classes = training_tree(path / "train")
    if subfolders(folder):
        _refuse_stray(folder)
        return {"train": train, "test": _by_folder(folder, classes, path / "train")}, classes
    return {"train": train, "test": _flat(path, folder, classes)}, classes


def training_tree(root: Path) -> tuple[ImageList, tuple[str, ...]]:
    """Return the images below `root`/<class>, and the classes.

    Raises:
        DataError: for a class without images, an image beside the class folders, or a name that can't be one.
    """
    classes = tuple(subfolders(root))
    check_names(classes, where=str(root))
    _refuse_stray(root)
    train = _by_folder(root, classes, root)
    missing = np.flatnonzero(np.bincount(train.labels, minlength=len(classes)) == 0)
    if len(missing):
        raise DataError(f"{root / classes[missing[0]]}: no JPEG, PNG or WebP image in it")
    return train, classes


def _split_tree(path: Path, test: float | None) -> tuple[dict[str, ImageList], tuple[str, ...]]:
    """Return a tree without test images, divided by a fixed seed; without `test` say what is there and what to do."""
    root = path / "train" if (path / "train").is_dir() else path
    if test is None:
        number = len(subfolders(root))
        offer = (
            f"; {root} has {number} class folders: --set dataset.test=0.2 tests on a fifth of each" if number else ""
        )
        raise DataError(f"{path}: expected train/<class>/* and test/<class>/* (or val) in it{offer}")
    images, classes = training_tree(root)
    chosen = held_out(images.labels, test, setting="dataset.test")
    return {"train": images.take(~chosen), "test": images.take(chosen)}, classes


def count_left_out(path: Path) -> dict[str, int]:
    """Return how many files below `path`'s training and test folders are no images, by suffix or as "dot name"."""
    counts: Counter[str] = Counter()
    for folder in _folders(path):
        for file in walk_files(folder, hidden=True):
            if any(part.startswith(".") for part in file.relative_to(folder).parts):
                counts["dot name"] += 1
            elif not _is_image(file):
                counts[file.suffix.lower() or "without suffix"] += 1
    return dict(sorted(counts.items()))


def misread_before(path: Path) -> str | None:
    """Return what versions whose manifests have no digest misread in an image tree, None where they read it right."""
    from PIL import Image

    for folder in _folders(path):
        for file in walk_files(folder, hidden=True):
            if not _is_image(file):
                continue
            if any(part.startswith(".") for part in file.relative_to(folder).parts):
                return f"{file} was taken as an image"
            if file.suffix.lower() == ".png":
                try:
                    with Image.open(file) as opened:
                        deep = is_deep(opened)
                except Exception:  # what can't be opened was not read then either
                    continue
                if deep:
                    return f"{file} has 16 bits and became white"
    return None


def _folders(path: Path) -> list[Path]:
    """Return the folders of a tree that have its images: training and test, or the tree itself."""
    named = [folder for folder in (path / "train", test_folder(path)) if folder is not None and folder.is_dir()]
    return named if path / "train" in named else [path]


def test_folder(path: Path) -> Path | None:
    """Return the folder of a tree's test images; None where there is none."""
    return next((path / name for name in _TEST_NAMES if (path / name).is_dir()), None)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def _images_in(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if _is_image(f) and not f.name.startswith(".") and not f.is_dir())


def _refuse_stray(folder: Path) -> None:
    stray = _images_in(folder)
    if stray:
        raise DataError(f"{stray[0]}: an image beside the class folders; move it into one, or delete it")


def _by_folder(root: Path, classes: tuple[str, ...], train: Path) -> ImageList:
    names = subfolders(root)
    check_names(names, where=str(root))
    folders = {normal_form(name): root / name for name in names}
    unknown = folders.keys() - {normal_form(name) for name in classes}
    if unknown:
        raise DataError(f"{folders[min(unknown)]}: a class that {train} doesn't have")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if (folder := folders.get(normal_form(name))) is not None:
            own = sorted(file for file in walk_files(folder) if _is_image(file))
            files += own
            labels += [label] * len(own)
    return ImageList(tuple(files), np.asarray(labels, dtype=np.int64))


def _flat(path: Path, root: Path, classes: tuple[str, ...]) -> ImageList:
    files = tuple(_images_in(root))
    if not files:
        return ImageList((), np.zeros(0, np.int64))
    kaggle, devkit = _find(path, KAGGLE_LABELS), _find(path, DEVKIT_LABELS)
    if kaggle is not None:
        names = _kaggle_classes(kaggle)
        own = [names.get(file.stem) for file in files]
    elif devkit is not None:
        own = _devkit_classes(path, devkit, count=len(files))
    else:
        raise DataError(
            f"{root}: images without folders by class; put {KAGGLE_LABELS}, or {DEVKIT_LABELS} and {DEVKIT_META} "
            f"of the development kit, below {path}"
        )
    place = {name: label for label, name in enumerate(classes)}
    for file, name in zip(files, own, strict=True):
        if name not in place:
            raise DataError(f"{file}: its class is {name}, which the training folder doesn't have")
    return ImageList(files, np.asarray([place[str(name)] for name in own], dtype=np.int64))


def _kaggle_classes(file: Path) -> dict[str, str]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(opened)}
    except (OSError, KeyError, ValueError, IndexError, AttributeError, csv.Error) as error:
        raise DataError(f"{file}: not Kaggle's columns ImageId and PredictionString, or damaged: {error}") from error


def _devkit_classes(path: Path, truth: Path, *, count: int) -> list[str | None]:
    """Return the WordNet ids of the validation images, in the order of their names.

    Raises:
        DataError: when the development kit's other file is missing or doesn't fit.
    """
    meta = _find(path, DEVKIT_META)
    if meta is None:
        raise DataError(f"{truth}: needs {DEVKIT_META} of the development kit beside it")
    from scipy.io import loadmat

    synsets = loadmat(str(meta), squeeze_me=True)["synsets"]
    names = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    try:
        numbers = [int(line) for line in truth.read_text(encoding="utf-8-sig").split()]
    except ValueError as error:
        raise DataError(f"{truth}: not a class number a line: {error}") from error
    if len(numbers) != count:
        raise DataError(f"{truth}: {len(numbers)} classes for {count} images")
    return [names.get(number) for number in numbers]


def _find(path: Path, name: str) -> Path | None:
    matches = [file for file in walk_files(path) if file.name == name and len(file.relative_to(path).parts) <= 3]
    return min(matches, key=lambda file: (len(file.parts), file), default=None)


def read_imagefolder(
    path: Path, *, size: int, skip_broken: bool, test: float | None = None
) -> tuple[dict[str, Split], tuple[str, ...], tuple[str, ...]]:
    """Return (splits, classes, skipped files) of an image tree, all in memory at (size, size) pixels.

    `test` is the part of a tree without test images that they become.

    Raises:
        DataError: for a missing or empty folder, or the first broken image unless `skip_broken`.
    """
    listed, classes = list_images(path, test=test)
    splits: dict[str, Split] = {}
    skipped: list[str] = []
    for name, listing in listed.items():
        check_memory(size, size, len(listing.files), where=f"{path} ({name} split)")
        images, labels = [], []
        for file, label in zip(listing.files, listing.labels, strict=True):
            image = read_image(file, size=size)
            if isinstance(image, np.ndarray):
                images.append(image)
                labels.append(label)
            elif skip_broken:
                skipped.append(printable(str(file.relative_to(path))))
            else:
                raise image.error()
        stacked = np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8)
        splits[name] = Split(stacked, np.asarray(labels, dtype=np.int64))
    return splits, classes, tuple(skipped)


@dataclass(frozen=True)
class BrokenImage:
    """Says why a file can't be decoded."""

    file: Path
    reason: str

    def error(self) -> DataError:
        """Return it as the error of a preparation that doesn't skip broken images."""
        return DataError(
            f"{printable(str(self.file))}: broken image ({self.reason}); repair or delete it, or use --skip-broken "
            "(dataset.skip_broken: true)"
        )


def read_image(file: Path, *, size: int) -> np.ndarray | BrokenImage:
    """Return an image upright, as RGB, shorter side resized to `size`, centre-cropped: (size, size, 3) uint8."""
    from PIL import Image, ImageOps

    opened = open_image(file)
    if isinstance(opened, BrokenImage):
        return opened
    return np.asarray(ImageOps.fit(opened.pixels, (size, size), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class EncodedImage:
    """Holds an image as it is stored: JPEG bytes, its size, and how often each level (256) of each channel occurs."""

    jpeg: bytes
    height: int
    width: int
    histogram: np.ndarray
    """(3, 256), int64."""


def encode_image(file: Path, *, max_side: int, quality: int) -> EncodedImage | BrokenImage:
    """Return an image upright, as RGB JPEG, its longer side at most `max_side` pixels; a JPEG like that as it is."""
    from PIL import Image

    opened = open_image(file)
    if isinstance(opened, BrokenImage):
        return opened
    image, untouched = opened.pixels, opened.untouched
    if max(image.size) > max_side:
        ratio = max_side / max(image.size)
        size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
        image, untouched = image.resize(size, Image.Resampling.BICUBIC), False
    if untouched:
        content = file.read_bytes()
    else:
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=quality)
        content = sink.getvalue()
    pixels = np.asarray(image).reshape(-1, 3)
    histogram = np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)])
    return EncodedImage(content, image.height, image.width, histogram)


@dataclass(frozen=True)
class OpenedImage:
    """Holds a whole image upright as RGB."""

    pixels: Image.Image
    untouched: bool
    """Whether the file is an RGB JPEG that is upright already."""


def open_image(file: Path) -> OpenedImage | BrokenImage:
    """Return an image decoded, or why it can't be; what is transparent becomes white."""
    from PIL import Image

    try:
        with Image.open(file) as opened:
            plain = opened.format == "JPEG" and opened.mode == "RGB"
            turned, straight = upright(opened)
            image = eight_bits(turned)
            if image.mode in ("P", "LA", "PA", "RGBA") or "transparency" in image.info:
                layer = image.convert("RGBA")
                image = Image.new("RGBA", layer.size, "white")
                image.alpha_composite(layer)
            return OpenedImage(image.convert("RGB"), plain and straight)
    except Exception as error:  # Pillow's plugins raise whatever a damaged file leads to
        return BrokenImage(file, str(error) or type(error).__name__)
