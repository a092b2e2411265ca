"""The only place that imports FFCV: writing and reading `.beton` files.

Only decoding and batching are left to FFCV. Its augmentations draw from a generator that a seed doesn't fix, its
writer hangs when the disk is full, and its reader hangs when decoding fails; here all three are ours.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.loader import Loader as FFCVLoader
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.memory_allocator import MemoryAllocator
from ffcv.transforms import ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter, handle_sample
from torch import Tensor

from gentrain.errors import DataError


def write_beton(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images (N, H, W, 3) uint8 and labels (N,) with each sample's index; the same bytes every time.

    FFCV's own worker processes are not used: one that dies (full disk) would leave its writer waiting for ever.

    Raises:
        OSError: when the file can't be written.
    """
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField(), "index": IntField()}
    writer = DatasetWriter(str(path), fields, num_workers=1)
    writer.num_samples = len(images)
    writer.prepare()
    size = writer.metadata_sm.size
    writer.metadata_sm.close()
    writer.metadata_sm.unlink()
    writer.metadata_sm = SimpleNamespace(buf=bytearray(size))
    metadata = np.frombuffer(writer.metadata_sm.buf, dtype=writer.metadata_type, count=len(images))
    allocator = MemoryAllocator(str(path), writer.data_region_start, writer.page_size)
    with allocator:
        allocator.fp.close()
        allocator.fp = open(path, "ab")  # noqa: SIM115  (buffered: FFCV's raw file drops what doesn't fit)
        for index in range(len(images)):
            sample = (images[index], int(labels[index]), index)
            handle_sample(sample, index, metadata.dtype.names, metadata, allocator, fields)
    writer.finalize(allocator.allocations)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class BetonReader:
    """Reads a `.beton` in any order given, batch by batch; decoding runs ahead in threads of its own."""

    def __init__(self, path: Path, *, batch_size: int, threads: int) -> None:
        self._loader = FFCVLoader(
            str(path),
            batch_size=batch_size,
            num_workers=threads,
            os_cache=True,
            drop_last=False,
            seed=0,
            pipelines={
                "image": [SimpleRGBImageDecoder(), ToTensor(), ToTorchImage(channels_last=False)],
                "label": [IntDecoder(), ToTensor()],
                "index": [IntDecoder(), ToTensor()],
            },
        )
        self.num_samples = int(self._loader.reader.num_samples)
        self.path = path

    def read(self, order: np.ndarray) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (images (n, 3, H, W) uint8, labels (n,), indices (n,)) of the samples in `order`.

        The tensors are FFCV's reused buffers: copy them before asking for the next batch.
        """
        if not len(order):
            return
        epoch = _Epoch(self._loader, order)
        try:
            for images, labels, indices in epoch:
                yield images, labels.view(-1), indices.view(-1)
            if epoch.failure is not None:
                raise DataError(f"{self.path}: can't be decoded: {epoch.failure}") from epoch.failure
        finally:
            epoch.close()


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
