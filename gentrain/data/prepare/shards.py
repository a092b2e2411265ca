"""Encode a tree of images in parallel, shard by shard, so that a preparation that was killed goes on where it was.

A shard is a Parquet file of at most SHARD_IMAGES images, written atomically; the next preparation of the same images
uses it again. Memory holds one shard, however many images there are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from gentrain.data.sources.folders import BrokenImage, EncodedImage, ImageList, encode_image
from gentrain.errors import DataError, printable
from gentrain.store.folder import Folder

SHARD_IMAGES = 512


@dataclass(frozen=True)
class Shards:
    """Holds where one split's encoded images are, in order, and what is known of them."""

    files: tuple[Path, ...]
    count: int
    labels: np.ndarray
    """(count,), of the images that could be decoded."""
    digests: tuple[bytes, ...]
    """sha256 of each image's JPEG bytes."""
    histogram: np.ndarray
    """(3, 256): how often each level of each channel occurs."""
    skipped: tuple[str, ...]
    """Files of the images that could not."""

    def images(self) -> Iterator[tuple[bytes, int, int, int]]:
        """Yield (JPEG bytes, height, width, label) of every image."""
        for file in self.files:
            table = pq.read_table(file, columns=["jpeg", "height", "width", "label"])
            for batch in table.to_batches(max_chunksize=64):
                rows = batch.to_pydict()
                yield from zip(rows["jpeg"], rows["height"], rows["width"], rows["label"], strict=True)


def encode_split(
    images: ImageList,
    *,
    folder: Path,
    name: str,
    max_side: int,
    quality: int,
    skip_broken: bool,
    progress: Callable[[int, int], None],
) -> Shards:
    """Encode a split's images into shards below `folder`; a shard that is there and whole is not encoded again.

    Args:
        images: the files and their labels.
        folder: for the shards of this list with these settings, and of nothing else.
        name: of the split.
        max_side: longer side of a stored image in pixels, at most.
        quality: of JPEG.
        skip_broken: leave out images that can't be decoded.
        progress: called with (images done, images in all) after every shard.

    Raises:
        DataError: naming the first broken image, unless `skip_broken`.
    """

    def encode(file: Path) -> EncodedImage | BrokenImage:
        return encode_image(file, max_side=max_side, quality=quality)

    total = len(images.files)
    target = Folder(pafs.LocalFileSystem(), str(folder))
    shards: list[Path] = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, total, SHARD_IMAGES):
            file = folder / f"{name}-{start // SHARD_IMAGES:06d}.parquet"
            end = min(total, start + SHARD_IMAGES)
            if _read_summary(file) is None:
                encoded = []
                for image in pool.map(encode, images.files[start:end]):
                    if isinstance(image, BrokenImage) and not skip_broken:
                        raise image.error()
                    encoded.append(image)
                target.write_table(file.name, _table(encoded, images.labels[start:end]))
            shards.append(file)
            progress(end, total)
    return _summed(shards)


def _table(encoded: list[EncodedImage | BrokenImage], labels: np.ndarray) -> pa.Table:
    pairs = zip(encoded, labels.tolist(), strict=True)
    kept = [(image, label) for image, label in pairs if isinstance(image, EncodedImage)]
    broken = [printable(str(image.file)) for image in encoded if isinstance(image, BrokenImage)]
    histogram = np.zeros((3, 256), np.int64)
    for image, _ in kept:
        histogram += image.histogram
    table = pa.table(
        {
            "jpeg": pa.array([image.jpeg for image, _ in kept], pa.binary()),
            "digest": pa.array([hashlib.sha256(image.jpeg).digest() for image, _ in kept], pa.binary(32)),
            "height": pa.array([image.height for image, _ in kept], pa.int32()),
            "width": pa.array([image.width for image, _ in kept], pa.int32()),
            "label": pa.array([label for _, label in kept], pa.int64()),
        }
    )
    facts = {b"histogram": histogram.tobytes(), b"skipped": "\n".join(broken).encode()}
    return table.replace_schema_metadata(facts)


def _read_summary(file: Path) -> tuple[np.ndarray, list[bytes], np.ndarray, list[str]] | None:
    """Return (labels, digests, histogram, skipped) of a shard, None where it is missing or damaged."""
    try:
        table = pq.read_table(file, columns=["label", "digest"])
        facts = table.schema.metadata or {}
        histogram = np.frombuffer(facts[b"histogram"], np.int64).reshape(3, 256)
        skipped = facts[b"skipped"].decode().splitlines()
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None
    return table["label"].to_numpy(), table["digest"].to_pylist(), histogram, skipped


def _summed(files: list[Path]) -> Shards:
    labels: list[np.ndarray] = [np.zeros(0, np.int64)]
    digests: list[bytes] = []
    skipped: list[str] = []
    histogram = np.zeros((3, 256), np.int64)
    for file in files:
        summary = _read_summary(file)
        if summary is None:
            raise DataError(f"{file}: damaged; delete it and run the same command again")
        labels.append(summary[0])
        digests += summary[1]
        histogram += summary[2]
        skipped += summary[3]
    every = np.concatenate(labels)
    return Shards(tuple(files), len(every), every, tuple(digests), histogram, tuple(skipped))
