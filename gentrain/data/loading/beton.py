"""The only place that imports FFCV: writing and reading `.beton` files.

Only decoding and batching are left to FFCV. Its augmentations draw from a generator that a seed doesn't fix, its
writer hangs when the disk is full, and its reader hangs when decoding fails; here all three are ours.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gentrain.data.loading.compiling import plain  # isort: skip  (before FFCV's own modules)

import numpy as np
import torch
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.rgb_image import IMAGE_MODES, SimpleRGBImageDecoder
from ffcv.loader import Loader as FFCVLoader
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.memory_allocator import MemoryAllocator
from ffcv.pipeline.operation import Operation
from ffcv.transforms import ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter, handle_sample
from numpy.lib.stride_tricks import as_strided
from torch import Tensor

from gentrain.errors import DataError


def write_beton(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images (N, H, W, 3) uint8 and labels (N,) with each sample's index; the same bytes every time.

    Raises:
        OSError: when the file can't be written.
    """
    _write(path, RGBImageField(write_mode="raw"), len(images), zip(images, labels, strict=True))


def write_encoded_beton(path: Path, pictures: Iterable[tuple[bytes, int, int, int]], *, count: int) -> None:
    """Write (JPEG bytes, height, width, label) of so many pictures, as they are, with each sample's index.

    Raises:
        OSError: when the file can't be written.
    """
    field = RGBImageField(write_mode="jpg")
    field.encode = _store_jpeg  # of the instance: FFCV knows the field by its class
    _write(path, field, count, ((picture[:3], picture[3]) for picture in pictures))


def _store_jpeg(destination: Any, picture: tuple[bytes, int, int], malloc: Callable[[int], tuple[int, Any]]) -> None:
    content, height, width = picture
    destination["mode"], destination["height"], destination["width"] = IMAGE_MODES["jpg"], height, width
    destination["data_ptr"], storage = malloc(len(content))
    storage[:] = np.frombuffer(content, np.uint8)


def _write(path: Path, image_field: RGBImageField, count: int, samples: Iterable[tuple[Any, Any]]) -> None:
    """Write samples (image, label) in order.

    FFCV's own worker processes are not used: one that dies (full disk) would leave its writer waiting for ever.
    """
    fields = {"image": image_field, "label": IntField(), "index": IntField()}
    writer = DatasetWriter(str(path), fields, num_workers=1)
    writer.num_samples = count
    writer.prepare()
    size = writer.metadata_sm.size
    writer.metadata_sm.close()
    writer.metadata_sm.unlink()
    writer.metadata_sm = SimpleNamespace(buf=bytearray(size))
    metadata = np.frombuffer(writer.metadata_sm.buf, dtype=writer.metadata_type, count=count)
    allocator = MemoryAllocator(str(path), writer.data_region_start, writer.page_size)
    with allocator:
        allocator.fp.close()
        allocator.fp = open(path, "ab")  # noqa: SIM115  (buffered: FFCV's raw file drops what doesn't fit)
        for index, (image, label) in enumerate(samples):
            handle_sample((image, int(label), index), index, metadata.dtype.names, metadata, allocator, fields)
    writer.finalize(allocator.allocations)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class BetonReader:
    """Reads a `.beton` in any order given, batch by batch; decoding runs ahead in threads of its own.

    Args:
        path: of the file.
        batch_size: samples a batch.
        threads: that decode.
        decoder: for pictures of any size; None for images that are all of one size, taken as they are.
    """

    def __init__(self, path: Path, *, batch_size: int, threads: int, decoder: Operation | None = None) -> None:
        self._loader = FFCVLoader(
            str(path),
            batch_size=batch_size,
            num_workers=threads,
            os_cache=True,
            drop_last=False,
            seed=0,
            pipelines={
                # a view: a copy by torch would start OpenMP threads in FFCV's thread (see `compiling`)
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
        """
        if not len(order):
            return
        epoch = _Epoch(self._loader, order)
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


class _Epoch(EpochIterator):
    """FFCV's iterator over one order; one that fails says so instead of leaving its reader waiting."""

    def __init__(self, loader: Any, order: np.ndarray) -> None:
        self.failure: BaseException | None = None
        self.closed: bool = False
        super().__init__(loader, order.astype(np.uint64))

    def run(self) -> None:
        try:
            super().run()
        except BaseException as error:
            self.failure = error
            self.output_queue.put(None)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.closed = True
            with contextlib.suppress(RuntimeError):
                self.join()
