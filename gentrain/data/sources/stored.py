"""Decode images that a table holds as files: in parallel, all of one size, a broken one named by file and row."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from gentrain.data.sources.formats import Split
from gentrain.data.sources.pixels import check_memory, eight_bits
from gentrain.errors import DataError, printable


@dataclass(frozen=True, slots=True)
class StoredImage:
    """Holds an image file's bytes, None where the table has none, and where they are."""

    content: bytes | None
    file: str
    row: int
    """From 0."""

    @property
    def place(self) -> str:
        """Return the file and row."""
        return f"{printable(self.file)}: row {self.row}"


def decode_split(split: Split, name: str, *, skip_broken: bool) -> tuple[Split, tuple[str, ...]]:
    """Return a split with pixels in place of `StoredImage`s, and the places of the broken ones that are left out.

    The first image's header decides on the size; images of any other size are not decoded.

    Raises:
        DataError: naming the first broken image unless `skip_broken`, or where memory can't hold the images.
    """
    if split.images.dtype != object:
        return split, ()
    size = next((size for image in split.images if (size := _size(image)) is not None), None)
    size = size or (0, 0)
    check_memory(*size, len(split.images), where=split.images[0].file)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        decoded = list(pool.map(lambda image: _decode(image, size), split.images))
    broken = [index for index, pixels in enumerate(decoded) if isinstance(pixels, str)]
    if broken and not skip_broken:
        image = split.images[broken[0]]
        raise DataError(
            f"{image.place} ({name} split): broken image ({decoded[broken[0]]}); repair or delete that row, or use "
            "--skip-broken (dataset.skip_broken: true)"
        )
    valid = [pixels for pixels in decoded if not isinstance(pixels, str)]
    stacked = np.stack(valid) if valid else np.zeros((0, 1, 1, 3), np.uint8)
    skipped = tuple(split.images[index].place for index in broken)
    return Split(stacked, np.delete(split.labels, broken)), skipped


def _size(image: StoredImage) -> tuple[int, int] | None:
    """Return an image's width and height by its header; None where it has none."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image.content or b"")) as opened:
            width, height = opened.size
    except Exception:  # Pillow's plugins raise whatever a damaged file leads to
        return None
    return width, height


def _decode(image: StoredImage, size: tuple[int, int]) -> np.ndarray | str:
    """Return an image's pixels (H, W, 3) uint8, or why it can't be decoded."""
    from PIL import Image

    if image.content is None:
        return "no bytes"
    try:
        with Image.open(io.BytesIO(image.content)) as opened:
            if opened.size != size:  # by the header, before anything is decompressed
                return f"{opened.width:,} × {opened.height:,} pixels, others have {size[0]:,} × {size[1]:,}"
            return np.asarray(eight_bits(opened).convert("RGB"))
    except Exception as error:  # Pillow's plugins raise whatever a damaged file leads to
        return str(error) or type(error).__name__
