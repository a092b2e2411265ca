"""Preparing pictures of any size (`dataset.storage: jpeg`): encoded in shards, then one `.beton` a split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from gentrain.data.prepare.manifest import Manifest, SplitInfo
from gentrain.data.prepare.shards import Shards, encode_split
from gentrain.data.prepare.statistics import channel_statistics, count_duplicates, file_digest
from gentrain.data.sources.folders import PictureList, list_pictures
from gentrain.data.sources.formats import Split
from gentrain.data.sources.registry import SourceData, select, source_path
from gentrain.errors import DataError
from gentrain.study.sections import DatasetConfig

DEFAULT_SIZE = 224
TOLD_PICTURES = 10_000


def build_pictures(
    config: DatasetConfig, shards: Path, folder: Path, *, version: int, notify: Callable[[str], None]
) -> Manifest:
    """Encode the pictures of a class-per-folder tree and write `folder`/<split>.beton; return their manifest.

    Shards that an earlier, killed preparation of the same pictures left in `shards` are used. Memory doesn't grow with
    the number of pictures but for a few dozen bytes of each.

    Raises:
        DataError: for a tree that makes no sense, or a broken picture unless `skip_broken`.
    """
    from gentrain.data.loading.beton import write_encoded_beton

    selected, files = _select(config)
    encoded: dict[str, Shards] = {}
    infos: dict[str, SplitInfo] = {}
    for name, split in selected.splits.items():
        found = encoded[name] = encode_split(
            PictureList(tuple(files[name][index] for index in split.images), split.labels),
            folder=shards,
            name=name,
            max_side=config.max_side,
            quality=config.quality,
            skip_broken=config.skip_broken,
            progress=_progress(name, notify),
        )
        per_class = np.bincount(found.labels, minlength=len(selected.classes))
        if not found.count or (name == "train" and not per_class.all()):
            empty = selected.classes[int(per_class.argmin())]
            raise DataError(f"{config.path}: no sound {name} picture of class {empty!r} is left")
        path = folder / f"{name}.beton"
        write_encoded_beton(path, found.pictures(), count=found.count)
        infos[name] = SplitInfo(
            file=path.name,
            sha256=file_digest(path),
            bytes=path.stat().st_size,
            count=found.count,
            per_class=tuple(per_class.tolist()),
        )
    size = config.image_size or DEFAULT_SIZE
    mean, std = channel_statistics(encoded["train"].histogram)
    return Manifest(
        version=version,
        source=config.source,
        fingerprint=_fingerprint(encoded, selected.classes, size),
        classes=selected.classes,
        groups=None,
        class_groups=None,
        height=size,
        width=size,
        storage="jpeg",
        mean=mean,
        std=std,
        splits=infos,
        duplicates=count_duplicates({name: found.digests for name, found in encoded.items()}),
        skipped=tuple(name for found in encoded.values() for name in found.skipped),
    )


def _select(config: DatasetConfig) -> tuple[SourceData, dict[str, tuple[Path, ...]]]:
    """Return the source with indices in the place of images, filtered, limited and split, and the files they index."""
    path = source_path(config)
    if path is None:
        raise DataError("dataset.path: source imagefolder needs a folder: set dataset.path or --data")
    listed, classes = list_pictures(path)
    places = {name: Split(np.arange(len(found.files)), found.labels) for name, found in listed.items()}
    files = {name: found.files for name, found in listed.items()}
    return select(SourceData(places, classes), config), files | {"validation": files["train"]}


def _progress(name: str, notify: Callable[[str], None]) -> Callable[[int, int], None]:
    told = 0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done // TOLD_PICTURES > told // TOLD_PICTURES or (done == total and total > TOLD_PICTURES):
            notify(f"{name}: {done:,} of {total:,} pictures encoded")
        told = done

    return progress


def _fingerprint(encoded: Mapping[str, Shards], classes: tuple[str, ...], size: int) -> str:
    found = hashlib.sha256(json.dumps([classes, size]).encode())
    for name in sorted(encoded):
        found.update(f"{name} {encoded[name].count}".encode())
        found.update(np.ascontiguousarray(encoded[name].labels, dtype="<i8").tobytes())
        for digest in encoded[name].digests:
            found.update(digest)
    return found.hexdigest()
