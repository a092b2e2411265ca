"""FFCV decoders that cut images of any size to one: at random, or from the middle.

A random crop is a function of (seed, epoch, sample) alone: each sample has its own stream of draws (SplitMix64, as in
`augment`), where FFCV's decoder draws from Numba's generator, which no seed fixes. FFCV compiles a decoder once for all
epochs, so the epoch's part of the stream is read from memory at run time.
"""

from __future__ import annotations

import functools
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from gentrain.data.loading._compat import (
    IMAGE_MODES,
    ResizedCropRGBImageDecoder,
    ctypes_imdecode,
    ctypes_resize,
    get_iterator,
    pointer,
)
from gentrain.data.loading.augment import stream_of

TRIES = 10
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_UNIT = 2.0**-53
_idle: defaultdict[Callable[..., Any], list[np.ndarray]] = defaultdict(list)
"""By box, the streams that no decoder uses any more: the code compiled for one's place in memory is used again."""


class CropDecoder(ResizedCropRGBImageDecoder):
    """Decodes an image, cuts a box out of it and resizes it to (size, size)."""

    def __init__(self, size: int, box: Callable[..., tuple[int, int, int, int]]) -> None:
        super().__init__((size, size))
        self._box = box
        idle = _idle[box]
        self._stream = idle.pop() if idle else np.zeros(1, np.uint64)
        weakref.finalize(self, idle.append, self._stream)

    @property
    def get_crop_generator(self) -> Callable[..., Any]:
        """Return the compiled function (height, width, sample index, stream) -> (top, left, height, width)."""
        return self._box

    def generate_code(self) -> Callable[..., Any]:
        """Return what FFCV compiles: (sample indices, memory, metadata, storage) -> images (n, size, size, 3)."""
        mem_read, my_range, jpg = self.memory_read, get_iterator(), IMAGE_MODES["jpg"]
        box_c = self._box
        address = self._stream.ctypes.data

        def decode(batch_indices, my_storage, metadata, storage_state):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            destination, temp_storage = my_storage
            stream = numba.carray(pointer(address), (1,), dtype=np.uint64)[0]
            for dst_ix in my_range(len(batch_indices)):
                source_ix = batch_indices[dst_ix]
                field = metadata[source_ix]
                image_data = mem_read(field["data_ptr"], storage_state)
                height = np.uint32(field["height"])
                width = np.uint32(field["width"])
                if field["mode"] == jpg:
                    pixels = temp_storage[dst_ix].ctypes.data
                    ctypes_imdecode(
                        image_data.ctypes.data, image_data.size, height, width, pixels, height, width,
                        0, 0, 1, 1, False, False,
                    )  # fmt: skip
                else:
                    pixels = image_data.ctypes.data
                i, j, h, w = box_c(int(height), int(width), np.uint64(source_ix), stream)
                target = destination[dst_ix]
                ctypes_resize(
                    0, pixels, height, width, i, i + h, j, j + w, target.ctypes.data, target.shape[0], target.shape[1]
                )
            return destination[: len(batch_indices)]

        decode.is_parallel = True  # type: ignore[attr-defined]
        return decode


def center_crop(size: int, *, part: float) -> CropDecoder:
    """Return a decoder of the central square, `part` of the shorter side."""
    return CropDecoder(size, _central_box(part))


@functools.cache
def _central_box(part: float) -> Callable[..., tuple[int, int, int, int]]:
    @numba.njit
    def box(height: int, width: int, _index: np.uint64, _stream: np.uint64) -> tuple[int, int, int, int]:
        side = max(1, int(part * min(height, width)))
        return (height - side) // 2, (width - side) // 2, side, side

    compiled: Callable[..., tuple[int, int, int, int]] = box
    return compiled


@functools.cache
def _random_box(scale: tuple[float, float], ratio: tuple[float, float]) -> Callable[..., tuple[int, int, int, int]]:
    areas, ratios = np.array(scale), np.array(ratio)

    @numba.njit
    def box(height: int, width: int, index: np.uint64, stream: np.uint64) -> tuple[int, int, int, int]:
        part: tuple[int, int, int, int] = crop_box(height, width, areas, ratios, index, stream)
        return part

    compiled: Callable[..., tuple[int, int, int, int]] = box
    return compiled


class SeededResizedCrop(CropDecoder):
    """Cuts a random part of the image, by area and aspect ratio (Szegedy et al. 2015).

    Like torchvision's RandomResizedCrop: ten tries, else the central part that fits the aspect ratios.
    """

    def __init__(self, size: int, *, scale: tuple[float, float], ratio: tuple[float, float], seed: int) -> None:
        super().__init__(size, _random_box(scale, ratio))
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw as in `epoch` from now on; call it between two readings only."""
        self._stream[0] = stream_of(seed=self._seed, epoch=epoch)


@numba.njit
def _mix(state: np.uint64) -> np.uint64:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


@numba.njit
def _uniform(state: np.uint64, draw: int, low: float, high: float) -> float:
    bits = _mix(state + np.uint64(draw + 1) * _GOLDEN)
    return low + (high - low) * float(bits >> np.uint64(11)) * _UNIT


@numba.njit
def crop_box(
    height: int, width: int, scale: np.ndarray, ratio: np.ndarray, index: np.uint64, stream: np.uint64
) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of sample `index`'s crop in the epoch of `stream`, in pixels."""
    state = _mix(stream + index * _GOLDEN)
    low, high = np.log(ratio[0]), np.log(ratio[1])
    for attempt in range(TRIES):
        area = height * width * _uniform(state, 4 * attempt, scale[0], scale[1])
        aspect = np.exp(_uniform(state, 4 * attempt + 1, low, high))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(_uniform(state, 4 * attempt + 2, 0.0, height - h + 1.0))
            left = int(_uniform(state, 4 * attempt + 3, 0.0, width - w + 1.0))
            return min(top, height - h), min(left, width - w), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w
