"""Prepare images of any size (`dataset.storage: jpeg`): encode them in shards, then write a `.beton` for each split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gentrain.data.prepare.manifest import Manifest, SplitInfo
from gentrain.data.prepare.shards import Shards, encode_split
from gentrain.data.prepare.statistics import channel_statistics, count_duplicates, file_digest, jpeg_fingerprint
from gentrain.data.sources.folders import ImageList, list_images
from gentrain.data.sources.formats import SourceData, Split
from gentrain.data.sources.registry import select, source_path
from gentrain.errors import DataError
from gentrain.study.sections import DatasetConfig

DEFAULT_SIZE = 224
PROGRESS_STEP = 10_000
"""Images between two messages."""


def build_images(
    config: DatasetConfig, shards: Path, folder: Path, *, version: int, notify: Callable[[str], None]
) -> Manifest:
    """Encode the images of a class-per-folder tree and write `folder`/<split>.beton; return their manifest.

    Shards that an earlier, killed preparation of the same images left in `shards` are used. Memory grows by a few dozen
    bytes with each image.

    Raises:
        DataError: for a missing or empty folder, or a broken image unless `skip_broken`.
    """
    from gentrain.data.loading.beton import write_encoded_beton

    selected, files = _select(config)
    encoded: dict[str, Shards] = {}
    infos: dict[str, SplitInfo] = {}
    for name, chosen in selected.splits.items():
        split_shards = encoded[name] = encode_split(
            ImageList(tuple(files[name][index] for index in chosen.images), chosen.labels),
            folder=shards,
            name=name,
            max_side=config.max_side,
            quality=config.quality,
            skip_broken=config.skip_broken,
            progress=_progress(name, notify),
        )
        per_class = np.bincount(split_shards.labels, minlength=len(selected.classes))
        if not split_shards.count or (name == "train" and not per_class.all()):
            empty = selected.classes[int(per_class.argmin())]
            raise DataError(f"{config.path}: no valid {name} image of class {empty!r} is left")
        path = folder / f"{name}.beton"
        write_encoded_beton(path, split_shards.images(), count=split_shards.count)
        infos[name] = SplitInfo(
            file=path.name,
            sha256=file_digest(path),
            bytes=path.stat().st_size,
            count=split_shards.count,
            per_class=tuple(per_class.tolist()),
        )
    size = config.image_size or DEFAULT_SIZE
    mean, std = channel_statistics(encoded["train"].histogram)
    return Manifest(
        version=version,
        source=config.source,
        fingerprint=jpeg_fingerprint(
            {name: (split.labels, split.digests) for name, split in encoded.items()}, selected.classes, size
        ),
        classes=selected.classes,
        groups=None,
        class_groups=None,
        height=size,
        width=size,
        storage="jpeg",
        mean=mean,
        std=std,
        splits=infos,
        duplicates=count_duplicates({name: split.digests for name, split in encoded.items()}),
        skipped=tuple(name for split in encoded.values() for name in split.skipped),
    )


def _select(config: DatasetConfig) -> tuple[SourceData, dict[str, tuple[Path, ...]]]:
    """Return the source, filtered, limited and split, with indices in place of images, and the files they index."""
    path = source_path(config)
    if path is None:
        raise DataError("dataset.path: source imagefolder needs a folder: set dataset.path or --data")
    listed, classes = list_images(path, test=config.test)
    places = {name: Split(np.arange(len(images.files)), images.labels) for name, images in listed.items()}
    files = {name: images.files for name, images in listed.items()}
    return select(SourceData(places, classes), config), files | {"validation": files["train"]}


def _progress(name: str, notify: Callable[[str], None]) -> Callable[[int, int], None]:
    before = 0

    def progress(done: int, total: int) -> None:
        nonlocal before
        if done // PROGRESS_STEP > before // PROGRESS_STEP or (done == total and total > PROGRESS_STEP):
            notify(f"{name}: {done:,} of {total:,} images encoded")
        before = done

    return progress
