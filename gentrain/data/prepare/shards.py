"""Encoding a tree of pictures in parallel: shard by shard, so that a preparation that was killed goes on.

A shard is a Parquet file of so many pictures; it is written atomically and reused by whoever prepares the same
pictures again. Memory holds one shard, however many pictures there are.
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

from gentrain.data.sources.folders import EncodedPicture, PictureList, encode_picture
from gentrain.errors import DataError
from gentrain.store.folder import Folder

SHARD_PICTURES = 512


@dataclass(frozen=True)
class Shards:
    """The encoded pictures of one split, in order."""

    files: tuple[Path, ...]
    count: int
    labels: np.ndarray
    """(count,), of the pictures that could be decoded."""
    digests: tuple[bytes, ...]
    """sha256 of each picture's JPEG bytes."""
    histogram: np.ndarray
    """(3, 256): how often each level of each channel occurs."""
    skipped: tuple[str, ...]

    def pictures(self) -> Iterator[tuple[bytes, int, int, int]]:
        """Yield (JPEG bytes, height, width, label) of every picture."""
        for file in self.files:
            table = pq.read_table(file, columns=["jpeg", "height", "width", "label"])
            for batch in table.to_batches(max_chunksize=64):
                rows = batch.to_pydict()
                yield from zip(rows["jpeg"], rows["height"], rows["width"], rows["label"], strict=True)


def encode_split(
    pictures: PictureList,
    *,
    folder: Path,
    name: str,
    max_side: int,
    quality: int,
    skip_broken: bool,
    progress: Callable[[int, int], None],
) -> Shards:
    """Encode a split's pictures into shards below `folder`; those that are there already are read, not made again.

    Args:
        pictures: the files and their labels.
        folder: of the shards of this very list with these very settings: nothing else may write there.
        name: of the split.
        max_side: longer side of a stored picture, at most.
        quality: of JPEG.
        skip_broken: leave out pictures that can't be decoded.
        progress: told (pictures done, pictures in all) after every shard.

    Raises:
        DataError: naming the first broken picture, unless `skip_broken`.
    """

    def encode(file: Path) -> EncodedPicture | DataError:
        try:
            return encode_picture(file, max_side=max_side, quality=quality)
        except DataError as error:
            if skip_broken:
                return error
            raise

    total = len(pictures.files)
    target = Folder(pafs.LocalFileSystem(), str(folder))
    shards: list[Path] = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, total, SHARD_PICTURES):
            file = folder / f"{name}-{start // SHARD_PICTURES:06d}.parquet"
            end = min(total, start + SHARD_PICTURES)
            if _read_summary(file) is None:
                found = list(pool.map(encode, pictures.files[start:end]))
                target.write_table(file.name, _table(pictures, start, found))
            shards.append(file)
            progress(end, total)
    return _summed(shards)


def _table(pictures: PictureList, start: int, found: list[EncodedPicture | DataError]) -> pa.Table:
    kept = [(start + i, picture) for i, picture in enumerate(found) if isinstance(picture, EncodedPicture)]
    broken = [str(pictures.files[start + i]) for i, picture in enumerate(found) if isinstance(picture, DataError)]
    histogram = np.zeros((3, 256), np.int64)
    for _, picture in kept:
        histogram += picture.histogram
    table = pa.table(
        {
            "jpeg": pa.array([picture.jpeg for _, picture in kept], pa.binary()),
            "digest": pa.array([hashlib.sha256(picture.jpeg).digest() for _, picture in kept], pa.binary(32)),
            "height": pa.array([picture.height for _, picture in kept], pa.int32()),
            "width": pa.array([picture.width for _, picture in kept], pa.int32()),
            "label": pa.array([int(pictures.labels[index]) for index, _ in kept], pa.int64()),
        }
    )
    facts = {b"histogram": histogram.tobytes(), b"skipped": "\n".join(broken).encode()}
    return table.replace_schema_metadata(facts)


def _read_summary(file: Path) -> tuple[np.ndarray, list[bytes], np.ndarray, list[str]] | None:
    """Return (labels, digests, histogram, skipped) of a shard that is whole."""
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
        found = _read_summary(file)
        if found is None:
            raise DataError(f"{file}: damaged; delete it and run the same command again")
        labels.append(found[0])
        digests += found[1]
        histogram += found[2]
        skipped += found[3]
    every = np.concatenate(labels)
    return Shards(tuple(files), len(every), every, tuple(digests), histogram, tuple(skipped))
