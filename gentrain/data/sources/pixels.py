"""Check images against memory, convert decoded ones to 8 bits a channel, turn them upright."""

from __future__ import annotations

import io
import os
import warnings
from typing import TYPE_CHECKING

import numpy as np

from gentrain.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

warnings.filterwarnings("ignore", module=r"PIL\.")  # on damaged EXIF, which is ignored, and on large images
MOST_MEMORY = 0.8
"""Part of this machine's memory that the decoded images of a split may take."""
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def check_memory(width: int, height: int, count: int, *, where: str) -> None:
    """Raise DataError where this machine's memory can't hold so many images as RGB."""
    wanted = 3 * width * height * count
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if wanted > MOST_MEMORY * memory:
        raise DataError(
            f"{where}: {count:,} images of {width:,} × {height:,} pixels take {wanted / 1e9:,.0f} GB of memory, this "
            f"machine has {memory / 1e9:,.0f} GB; take smaller ones (dataset.image_size, dataset.limit), or an image "
            "folder with dataset.storage: jpeg"
        )


def eight_bits(image: Image.Image) -> Image.Image:
    """Return a greyscale image of 16 bits as one of 8, levels scaled by 255/65535; any other image as it is.

    Pillow's own conversion clips instead: every level over 255 becomes white. A level that the file declares
    transparent becomes white, as transparent pixels do in images of 8 bits.

    Raises:
        ValueError: for levels that don't fit in 16 bits, or floats.
    """
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floats, not levels of 8 or 16 bits")
    if image.mode not in _DEEP_MODES:
        return image
    levels = np.asarray(image).astype(np.int64)
    if levels.size and (levels.min() < 0 or levels.max() > 65535):
        raise ValueError("its levels don't fit in 16 bits")
    scaled = (levels * 255 + 32767) // 65535
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[levels == transparent] = 255
    return Image.fromarray(scaled.astype(np.uint8))


def jpeg_pixels(content: bytes) -> np.ndarray:
    """Return the pixels of an RGB JPEG's bytes: (H, W, 3) uint8."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def is_deep(image: Image.Image) -> bool:
    """Return whether `eight_bits` changes the image; only its header is needed."""
    return image.mode in _DEEP_MODES


def upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return the image turned as its EXIF says, and whether it was upright already; EXIF that is damaged is ignored."""
    from PIL import ImageOps

    image.load()  # damage of the pixels is not to be taken for damage of the EXIF
    try:
        turned = ImageOps.exif_transpose(image)
        return turned, image.getexif().get(0x0112, 1) == 1
    except Exception:  # Pillow's EXIF reader raises whatever it met: struct.error, TypeError, ...
        return image, True
