"""Class-per-folder trees of JPEG, PNG and WebP pictures, in whatever mode and orientation people save them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gentrain.data.sources.formats import Split
from gentrain.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_TEST_NAMES = ("test", "val", "validation")
KAGGLE_LABELS = "LOC_val_solution.csv"
DEVKIT_LABELS = "ILSVRC2012_validation_ground_truth.txt"
DEVKIT_META = "meta.mat"


@dataclass(frozen=True)
class PictureList:
    """The files of one split and the class number of each."""

    files: tuple[Path, ...]
    labels: np.ndarray


def list_pictures(path: Path) -> tuple[dict[str, PictureList], tuple[str, ...]]:
    """Return (splits, classes) of `path`/train/<class>/* and of its test pictures, without opening one.

    The test pictures are in `path`/test (or val, validation), in folders by class too, or flat as ILSVRC2012 gives its
    validation set, with their classes in Kaggle's LOC_val_solution.csv or in the development kit's
    ILSVRC2012_validation_ground_truth.txt and meta.mat, anywhere below `path`.

    Raises:
        DataError: for a missing or empty folder, an unknown class, or pictures without a class.
    """
    test = next((path / name for name in _TEST_NAMES if (path / name).is_dir()), None)
    if not (path / "train").is_dir() or test is None:
        raise DataError(f"{path}: expected train/<class>/* and test/<class>/* (or val) in it")
    classes = tuple(sorted(folder.name for folder in (path / "train").iterdir() if folder.is_dir()))
    train = _by_folder(path / "train", classes, path / "train")
    missing = np.flatnonzero(np.bincount(train.labels, minlength=len(classes)) == 0)
    if len(missing):
        raise DataError(f"{path / 'train' / classes[missing[0]]}: no JPEG, PNG or WebP picture in it")
    flat = any(file.suffix.lower() in SUFFIXES for file in test.iterdir())
    return {
        "train": train,
        "test": _flat(path, test, classes) if flat else _by_folder(test, classes, path / "train"),
    }, classes


def _by_folder(root: Path, classes: tuple[str, ...], train: Path) -> PictureList:
    unknown = {folder.name for folder in root.iterdir() if folder.is_dir()} - set(classes)
    if unknown:
        raise DataError(f"{root / min(unknown)}: a class that {train} doesn't have")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        own = sorted(f for f in (root / name).rglob("*") if f.suffix.lower() in SUFFIXES)
        files += own
        labels += [label] * len(own)
    return PictureList(tuple(files), np.asarray(labels, dtype=np.int64))


def _flat(path: Path, root: Path, classes: tuple[str, ...]) -> PictureList:
    files = tuple(sorted(file for file in root.iterdir() if file.suffix.lower() in SUFFIXES))
    kaggle, devkit = _find(path, KAGGLE_LABELS), _find(path, DEVKIT_LABELS)
    if kaggle is not None:
        with kaggle.open(newline="") as opened:
            names = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(opened)}
        found = [names.get(file.stem) for file in files]
    elif devkit is not None:
        found = _devkit_classes(path, devkit, count=len(files))
    else:
        raise DataError(
            f"{root}: pictures without folders by class; put {KAGGLE_LABELS}, or {DEVKIT_LABELS} and {DEVKIT_META} "
            f"of the development kit, below {path}"
        )
    place = {name: label for label, name in enumerate(classes)}
    for file, name in zip(files, found, strict=True):
        if name not in place:
            raise DataError(f"{file}: its class is {name}, which the training folder doesn't have")
    return PictureList(files, np.asarray([place[str(name)] for name in found], dtype=np.int64))


def _devkit_classes(path: Path, truth: Path, *, count: int) -> list[str | None]:
    """Return the WordNet ids of the validation pictures, in the order of their names."""
    from scipy.io import loadmat

    meta = _find(path, DEVKIT_META)
    if meta is None:
        raise DataError(f"{truth}: needs {DEVKIT_META} of the development kit beside it")
    synsets = loadmat(str(meta), squeeze_me=True)["synsets"]
    names = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    numbers = [int(line) for line in truth.read_text().split()]
    if len(numbers) != count:
        raise DataError(f"{truth}: {len(numbers)} classes for {count} pictures")
    return [names.get(number) for number in numbers]


def _find(path: Path, name: str) -> Path | None:
    return next(
        iter(sorted(path.glob(name)) or sorted(path.glob(f"*/{name}")) or sorted(path.glob(f"*/*/{name}"))), None
    )


def read_imagefolder(
    path: Path, *, size: int, skip_broken: bool
) -> tuple[dict[str, Split], tuple[str, ...], tuple[str, ...]]:
    """Return (splits, classes, skipped files) of a picture tree, all in memory at (size, size) pixels.

    Raises:
        DataError: for a missing or empty folder, or the first broken picture unless `skip_broken`.
    """
    listed, classes = list_pictures(path)
    splits: dict[str, Split] = {}
    skipped: list[str] = []
    for name, pictures in listed.items():
        images, labels = [], []
        for file, label in zip(pictures.files, pictures.labels, strict=True):
            try:
                images.append(read_picture(file, size=size))
                labels.append(label)
            except DataError:
                if not skip_broken:
                    raise
                skipped.append(str(file.relative_to(path)))
        stacked = np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8)
        splits[name] = Split(stacked, np.asarray(labels, dtype=np.int64))
    return splits, classes, tuple(skipped)


def read_picture(file: Path, *, size: int) -> np.ndarray:
    """Return a picture upright, as RGB, shorter side resized to `size`, centre-cropped: (size, size, 3) uint8."""
    from PIL import Image, ImageOps

    picture, _ = _open(file)
    return np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class EncodedPicture:
    """A picture as it is stored: JPEG bytes, its size, and how often each level (256) of each channel occurs."""

    jpeg: bytes
    height: int
    width: int
    histogram: np.ndarray
    """(3, 256), int64."""


def encode_picture(file: Path, *, max_side: int, quality: int) -> EncodedPicture:
    """Return a picture upright, as RGB JPEG, its longer side at most `max_side`.

    A JPEG that is so already keeps its own bytes.

    Raises:
        DataError: when it can't be decoded.
    """
    from PIL import Image

    picture, untouched = _open(file)
    if max(picture.size) > max_side:
        ratio = max_side / max(picture.size)
        size = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
        picture, untouched = picture.resize(size, Image.Resampling.BICUBIC), False
    if untouched:
        content = file.read_bytes()
    else:
        sink = io.BytesIO()
        picture.save(sink, "JPEG", quality=quality)
        content = sink.getvalue()
    pixels = np.asarray(picture).reshape(-1, 3)
    histogram = np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)])
    return EncodedPicture(content, picture.height, picture.width, histogram)


def _open(file: Path) -> tuple[Image.Image, bool]:
    """Return a whole picture upright as RGB, and whether it is an RGB JPEG that nothing had to be done to."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            untouched = opened.format == "JPEG" and opened.mode == "RGB"
            picture = ImageOps.exif_transpose(opened)
            untouched = untouched and opened.getexif().get(0x0112, 1) == 1
            if picture.mode in ("P", "LA", "PA", "RGBA") or "transparency" in picture.info:
                layer = picture.convert("RGBA")
                picture = Image.new("RGBA", layer.size, "white")
                picture.alpha_composite(layer)
            return picture.convert("RGB"), untouched
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file}: broken picture ({error}); mend or delete it, or use --skip-broken (dataset.skip_broken: true)"
        ) from error
