"""Read single images, of any size, as a trained network takes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gentrain.data.sources.folders import SUFFIXES, BrokenImage, open_image
from gentrain.data.sources.walk import walk_files
from gentrain.errors import ConfigError, printable


def list_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files named, and the images below the folders named, these sorted.

    Raises:
        ConfigError: for a path that isn't there, or a folder without images.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in walk_files(path) if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise ConfigError(f"{printable(str(path))}: no image in it ({', '.join(sorted(SUFFIXES))})")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise ConfigError(f"{printable(str(path))}: no such file")
    return files


def read_fitting(file: Path, *, height: int, width: int, center: float = 1.0) -> np.ndarray | BrokenImage:
    """Return an image upright, as RGB, its middle resized: (height, width, 3) uint8; or why it can't be decoded.

    Args:
        file: the image.
        height: in pixels.
        width: in pixels.
        center: part of the largest middle of that shape that is kept.
    """
    from PIL import Image, ImageOps

    opened = open_image(file)
    if isinstance(opened, BrokenImage):
        return opened
    bleed = (1 - center) / 2
    return np.asarray(ImageOps.fit(opened.pixels, (width, height), Image.Resampling.BICUBIC, bleed=bleed))
