"""Class-per-folder trees of JPEG, PNG and WebP pictures, in whatever mode and orientation people save them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gentrain.data.formats import Split
from gentrain.errors import DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_TEST_NAMES = ("test", "val", "validation")


def read_imagefolder(
    path: Path, *, size: int, skip_broken: bool
) -> tuple[dict[str, Split], tuple[str, ...], tuple[str, ...]]:
    """Return (splits, classes, skipped files) of `path`/train/<class>/* and `path`/test (or val)/<class>/*.

    Raises:
        DataError: for a missing or empty folder, or the first broken picture unless `skip_broken`.
    """
    test = next((path / name for name in _TEST_NAMES if (path / name).is_dir()), None)
    if not (path / "train").is_dir() or test is None:
        raise DataError(f"{path}: expected train/<class>/* and test/<class>/* (or val) in it")
    classes = tuple(sorted(folder.name for folder in (path / "train").iterdir() if folder.is_dir()))
    splits: dict[str, Split] = {}
    skipped: list[str] = []
    for name, root in (("train", path / "train"), ("test", test)):
        unknown = {folder.name for folder in root.iterdir() if folder.is_dir()} - set(classes)
        if unknown:
            raise DataError(f"{root / min(unknown)}: a class that {path / 'train'} doesn't have")
        images, labels = [], []
        for label, class_name in enumerate(classes):
            files = sorted(f for f in (root / class_name).rglob("*") if f.suffix.lower() in SUFFIXES)
            if name == "train" and not files:
                raise DataError(f"{root / class_name}: no JPEG, PNG or WebP picture in it")
            for file in files:
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

    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode in ("P", "LA", "PA", "RGBA") or "transparency" in picture.info:
                layer = picture.convert("RGBA")
                picture = Image.new("RGBA", layer.size, "white")
                picture.alpha_composite(layer)
            picture = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
            return np.asarray(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file}: broken picture ({error}); mend or delete it, or use --skip-broken (dataset.skip_broken: true)"
        ) from error
