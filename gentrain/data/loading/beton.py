"""Write and read `.beton` files, FFCV's format of images, labels and each sample's index.

Only decoding and batching are left to FFCV. Its augmentations draw from a generator that a seed doesn't fix, its
writer hangs when the disk is full, and its reader hangs when decoding fails; these three are replaced.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor

from gentrain.data.loading._compat import (
    IMAGE_MODES,
    Epoch,
    IntField,
    Loader,
    Operation,
    Reader,
    RGBImageField,
    SimpleRGBImageDecoder,
    ToTensor,
    ToTorchImage,
    plain,
    write_samples,
)
from gentrain.errors import DataError

PAGE, SMALLEST_PAGE = 8 << 20, 4 << 10
"""Bytes of a page: FFCV's default, and a page of the disk's cache."""
LARGE = 64 << 20
"""Bytes of images from which a file has pages of `PAGE`; so much is looked at, and kept, before it is written."""


def write_beton(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images (N, H, W, 3) uint8 and labels (N,) with each sample's index; the same bytes every time.

    Raises:
        OSError: when the file can't be written.
    """
    field = RGBImageField(write_mode="raw")
    _write(path, field, count=len(images), samples=zip(images, labels, strict=True), size=lambda image: image.nbytes)


def write_encoded_beton(path: Path, images: Iterable[tuple[bytes, int, int, int]], *, count: int) -> None:
    """Write `count` images, (JPEG bytes, height, width, label) each, as they are, with each sample's index.

    Raises:
        OSError: when the file can't be written.
    """
    field = RGBImageField(write_mode="jpg")
    field.encode = _store_jpeg  # of the instance: FFCV recognises the field by its class
    samples = ((image[:3], image[3]) for image in images)
    _write(path, field, count=count, samples=samples, size=lambda image: len(image[0]))


def _store_jpeg(destination: Any, image: tuple[bytes, int, int], malloc: Callable[[int], tuple[int, Any]]) -> None:
    content, height, width = image
    destination["mode"], destination["height"], destination["width"] = IMAGE_MODES["jpg"], height, width
    destination["data_ptr"], storage = malloc(len(content))
    storage[:] = np.frombuffer(content, np.uint8)


def _write(
    path: Path, image_field: Any, *, count: int, samples: Iterable[tuple[Any, Any]], size: Callable[[Any], int]
) -> None:
    """Write samples (image, label) in order; `size` returns an image's bytes in the file."""
    fields = {"image": image_field, "label": IntField(), "index": IntField()}
    samples, first, total, largest = iter(samples), [], 0, 0
    for sample in samples:
        first.append(sample)
        length = size(sample[0])
        total, largest = total + length, max(largest, length)
        if total >= LARGE:
            break
    numbered = ((image, int(label), index) for index, (image, label) in enumerate(itertools.chain(first, samples)))
    write_samples(path, fields, count=count, samples=numbered, page_size=page_size(total, largest=largest))


def page_size(total: int, *, largest: int) -> int:
    """Return the bytes of a file's pages for images of `total` bytes, of which one has `largest`.

    FFCV's usual 8 MiB for what is large: an image lies in one page, and every page is written whole, so a small file
    would be mostly zeros. A sixteenth of the images, or four of them, keeps what is lost at the pages' ends small.
    """
    if total >= LARGE:
        return PAGE
    wanted = max(SMALLEST_PAGE, largest, min(PAGE, max(total // 16, 4 * largest)))
    return 1 << (wanted - 1).bit_length()


@dataclass(frozen=True)
class StoredImages:
    """The images of a `.beton` as they are stored, undecoded, in order."""

    labels: np.ndarray
    """(N,), int64."""
    contents: tuple[np.ndarray, ...]
    """N arrays, uint8, that read the file when they are used: raw pixels (H·W·3,), or a JPEG."""

    @classmethod
    def open(cls, path: Path) -> StoredImages:
        """Open a `.beton`, whose checksum was verified."""
        reader = Reader(str(path))
        images, labels = (reader.metadata[name] for name in reader.metadata.dtype.names[:2])
        sizes = dict(zip(reader.alloc_table["ptr"].tolist(), reader.alloc_table["size"].tolist(), strict=True))
        content = np.memmap(path, np.uint8, mode="r")
        contents = tuple(content[start : start + sizes[start]] for start in images["data_ptr"].tolist())
        return cls(np.array(labels).reshape(-1).astype(np.int64), contents)


class BetonReader:
    """Reads a `.beton` in any order, batch by batch; FFCV's threads decode ahead.

    Args:
        path: of the file.
        batch_size: samples a batch.
        threads: that decode.
        decoder: for images of any size; None for images that are all of one size, taken as they are.

    Raises:
        DataError: when the samples' indices aren't their places.
    """

    def __init__(self, path: Path, *, batch_size: int, threads: int, decoder: Operation | None = None) -> None:
        self._loader = Loader(
            str(path),
            batch_size=batch_size,
            num_workers=threads,
            os_cache=True,
            drop_last=False,
            seed=0,
            pipelines={
                # a view: a copy by torch would start OpenMP threads in FFCV's thread (see `_compat`)
                "image": [decoder or RawDecoder(), ToTensor(), ToTorchImage(channels_last=True)],
                "label": None,  # these two stand in the metadata: nothing to compile and decode
                "index": None,
            },
        )
        self.num_samples = int(self._loader.reader.num_samples)
        self.path = path
        _, label, index = self._loader.reader.metadata.dtype.names  # FFCV numbers the fields, in _write's order
        self._labels = np.array(self._loader.reader.metadata[label]).reshape(-1)
        if not np.array_equal(self._loader.reader.metadata[index].reshape(-1), np.arange(self.num_samples)):
            raise DataError(f"{path}: its samples aren't numbered in order; delete it and run the same command again")

    def read(self, order: np.ndarray) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (images (n, 3, H, W) uint8, labels (n,), indices (n,)) of the samples in `order`.

        The images are FFCV's reused buffer, channels last: copy them before asking for the next batch.

        Raises:
            DataError: when a sample can't be decoded.
        """
        if not len(order):
            return
        epoch = Epoch(self._loader, order)
        try:
            begin = 0
            for (images,) in epoch:
                indices = order[begin : begin + len(images)]
                begin += len(images)
                yield images, torch.from_numpy(self._labels[indices]), torch.from_numpy(indices)
            if epoch.failure is not None:
                raise DataError(f"{self.path}: can't be decoded: {epoch.failure}") from epoch.failure
        finally:
            epoch.close()


class RawDecoder(SimpleRGBImageDecoder):
    """Copies raw images of one size; by NumPy, which is as fast as FFCV's compiled loop and needn't be compiled."""

    def generate_code(self) -> Callable[..., Any]:
        """Return what FFCV runs: (sample indices, memory, metadata, storage) -> images (n, H, W, 3)."""
        if np.any(self.metadata["mode"] != IMAGE_MODES["raw"]):
            raise DataError("images that are all of one size are read as they are, and these are JPEG")

        @plain
        def decode(
            indices: np.ndarray, images: np.ndarray, metadata: np.ndarray, storage: tuple[np.ndarray, ...]
        ) -> np.ndarray:
            content = np.asarray(storage[0])  # not as a memmap, which asks its base at every step
            size = images[0].size
            windows = as_strided(content, (len(content) - size + 1, size), (1, 1), writeable=False)
            images.reshape(-1, size)[:] = windows[metadata["data_ptr"][indices]]
            return images

        return decode
