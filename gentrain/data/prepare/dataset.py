"""Compile a source into `.beton` files and a manifest: once, verified at every use, rebuilt when damaged."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gentrain.data.prepare.images import build_images
from gentrain.data.prepare.manifest import Manifest, SplitInfo, has_digest
from gentrain.data.prepare.recheck import contradiction
from gentrain.data.prepare.statistics import (
    channel_statistics,
    count_duplicates,
    file_digest,
    histogram_of,
    raw_fingerprint,
)
from gentrain.data.prepare.writing import building_folder, discard, preparing
from gentrain.data.sources.folders import count_left_out, misread_before
from gentrain.data.sources.formats import SourceData
from gentrain.data.sources.imported import code_digest
from gentrain.data.sources.registry import load_source, source_missing, source_path
from gentrain.data.sources.walk import walk_files
from gentrain.errors import DataError, ResourceError
from gentrain.models.registry import label
from gentrain.store import disk
from gentrain.study.sections import DatasetConfig
from gentrain.study.settings import stored_form

PREPARE_VERSION = 1
MANIFEST = "manifest.json"
SPARE_BYTES = 64 << 20


@dataclass(frozen=True)
class PreparedData:
    """Holds the manifest of a verified prepared dataset and its folder on a local disk."""

    manifest: Manifest
    folder: Path

    @property
    def num_classes(self) -> int:
        """Return C."""
        return len(self.manifest.classes)

    def split_path(self, split: str) -> Path:
        """Return the `.beton` of a split."""
        return self.folder / self.manifest.splits[split].file


@dataclass(frozen=True)
class Damage:
    """Says which file of a prepared dataset is missing or damaged."""

    reason: str


def prepare(config: DatasetConfig, folder: Path, *, notify: Callable[[str], None] = lambda _: None) -> PreparedData:
    """Return the dataset prepared below `folder`, compiled now if it isn't there, has changed or is damaged.

    Its folder is named by a hash of the settings and of the source files' names, sizes and times. It is built under
    another name and renamed, so that no reader sees half of it. Of several processes one prepares it, the others wait.

    Raises:
        DataError: for a source that is missing, broken or doesn't fit the settings.
        ResourceError: when the disk is full or can't be written.
    """
    target = folder / prepared_name(config)
    if (data := _ready(target, config)) is not None:
        return data
    with _disk_errors(target), preparing(target, notify=notify):
        existing = verify(target) if os.path.lexists(target) else None  # another process may have prepared it meanwhile
        if isinstance(existing, PreparedData):
            existing = upgrade(existing, config, notify=notify)
        if isinstance(existing, PreparedData):
            return existing
        if existing is not None:
            notify(f"{existing.reason}; it is rebuilt")
        notify(f"preparing {config.source} in {target} (once)")
        manifest = _prepare(config, target, notify)
    _report(manifest, _left_out(config), notify)
    return load_prepared(target)


def _ready(target: Path, config: DatasetConfig) -> PreparedData | None:
    """Return the dataset where it is valid and its manifest has a digest, without waiting for anybody."""
    data = verify(target) if target.exists() else None
    if not isinstance(data, PreparedData) or not has_digest((target / MANIFEST).read_bytes()):
        return None
    return data


def _prepare(config: DatasetConfig, target: Path, notify: Callable[[str], None]) -> Manifest:
    data = load_source(config) if config.storage == "raw" else None
    if data is not None:
        _check_space(target, sum(split.images.nbytes for split in data.splits.values()))
    building = building_folder(target)
    try:
        if data is not None:
            manifest = _build(config.source, data, building)
        else:
            shards = target.parent / f".shards-{target.name}"
            manifest = build_images(config, shards, building, version=PREPARE_VERSION, notify=notify)
            _write_manifest(manifest, building / MANIFEST)
            shutil.rmtree(shards)
        with contextlib.suppress(FileNotFoundError):
            os.replace(target, building.with_suffix(".old"))
        os.replace(building, target)
    finally:
        discard(building)
        discard(building.with_suffix(".old"))
    return manifest


def _check_space(target: Path, wanted: int) -> None:
    wanted += SPARE_BYTES
    free = shutil.disk_usage(target.parent).free
    if free < wanted:
        raise ResourceError(
            f"{target}: needs {wanted / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free: the disk is full; free some "
            "space or choose another folder with --runs"
        )


def find_manifest(config: DatasetConfig, folder: Path) -> Manifest | None:
    """Return the manifest of the dataset prepared below `folder`; the dataset's files are not verified.

    None where it isn't prepared, its manifest is damaged, or the source's folder is missing.
    """
    return None if source_missing(config) else read_manifest(folder / prepared_name(config))


def find_prepared(fingerprint: str, folder: Path) -> Path | None:
    """Return the folder below `folder` of the dataset with this fingerprint; the dataset's files are not verified.

    None where there is none.
    """
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        manifest = read_manifest(path.parent)
        if manifest is not None and manifest.fingerprint == fingerprint:
            return path.parent
    return None


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest in a prepared dataset's folder, None where it is missing or damaged."""
    with contextlib.suppress(OSError):
        if (folder / MANIFEST).is_file():  # opening a pipe would wait for its writer
            return Manifest.parse((folder / MANIFEST).read_bytes())
    return None


def verify(folder: Path) -> PreparedData | Damage:
    """Return the prepared dataset in `folder` after checking every file's size and sha256, or what is damaged."""
    manifest = read_manifest(folder)
    if manifest is None:
        return Damage(f"{folder / MANIFEST}: missing or damaged")
    for info in manifest.splits.values():
        path = folder / info.file
        if not path.is_file() or path.stat().st_size != info.bytes or file_digest(path) != info.sha256:
            return Damage(f"{path}: damaged (checksum differs)")
    return PreparedData(manifest, folder)


def upgrade(
    data: PreparedData, config: DatasetConfig, *, notify: Callable[[str], None] = lambda _: None
) -> PreparedData | Damage:
    """Return a verified dataset, after giving its manifest a digest where the version that wrote it gave none.

    Those versions misread some images: a dataset with such images is returned as damaged; so is one whose manifest its
    images contradict.
    """
    file = data.folder / MANIFEST
    if has_digest(file.read_bytes()):
        return data
    path = source_path(config)
    misread = misread_before(path) if config.source == "imagefolder" and path is not None else None
    if misread is not None:
        return Damage(f"{data.folder}: prepared by an earlier version ({misread})")
    if (problem := contradiction(data.manifest, data.folder)) is not None:
        return Damage(f"{file}: was altered: {problem}")
    try:
        disk.write_whole(data.folder, MANIFEST, data.manifest.file_content())
    except OSError:
        return data  # it can't be written, but is as good as before
    notify(f"{file}: of an earlier version; it has a digest now")
    return data


def load_prepared(folder: Path) -> PreparedData:
    """Return the prepared dataset in `folder`, verified.

    Raises:
        DataError: when it is missing or damaged.
    """
    data = verify(folder)
    if isinstance(data, Damage):
        raise DataError(data.reason)
    return data


def _build(source: str, data: SourceData, folder: Path) -> Manifest:
    from gentrain.data.loading.beton import write_beton

    splits, infos = data.splits, {}
    for name, split in splits.items():
        path = folder / f"{name}.beton"
        write_beton(path, split.images, split.labels)
        infos[name] = SplitInfo(
            file=path.name,
            sha256=file_digest(path),
            bytes=path.stat().st_size,
            count=len(split.labels),
            per_class=tuple(np.bincount(split.labels, minlength=len(data.classes)).tolist()),
        )
    mean, std = channel_statistics(histogram_of(splits["train"].images))
    manifest = Manifest(
        version=PREPARE_VERSION,
        source=source,
        fingerprint=raw_fingerprint(splits, data.classes),
        classes=data.classes,
        groups=data.groups,
        class_groups=data.class_groups,
        height=splits["train"].images.shape[1],
        width=splits["train"].images.shape[2],
        mean=mean,
        std=std,
        splits=infos,
        duplicates=count_duplicates(
            {name: [hashlib.sha256(image.tobytes()).digest() for image in s.images] for name, s in splits.items()}
        ),
        skipped=data.skipped,
    )
    _write_manifest(manifest, folder / MANIFEST)
    return manifest


def _write_manifest(manifest: Manifest, path: Path) -> None:
    with path.open("wb") as file:
        file.write(manifest.file_content())
        file.flush()
        os.fsync(file.fileno())


def _left_out(config: DatasetConfig) -> dict[str, int]:
    path = source_path(config)
    return count_left_out(path) if config.source == "imagefolder" and path is not None else {}


def _report(manifest: Manifest, left_out: dict[str, int], notify: Callable[[str], None]) -> None:
    counts = ", ".join(f"{info.count:,} {name}" for name, info in manifest.splits.items())
    notify(f"{manifest.source}: {counts} images of {len(manifest.classes)} classes")
    parts = [f"{n} within {name}" for name, n in manifest.duplicates.within.items() if n]
    parts += [
        f"{n} of {name.split('/')[1]} also in {name.split('/')[0]}"
        for name, n in manifest.duplicates.across.items()
        if n
    ]
    if parts:
        notify("exact duplicate images: " + ", ".join(parts))
    if left_out:
        notify("files that are no images of it: " + ", ".join(f"{n:,} {kind}" for kind, n in left_out.items()))
    if manifest.skipped:
        notify(f"skipped {len(manifest.skipped)} broken images: " + ", ".join(manifest.skipped[:5]))


def prepared_name(config: DatasetConfig) -> str:
    """Return the name of the prepared dataset's folder, which has a hash of all that the dataset depends on.

    That is the settings, the source files' names, sizes and times, which are quick to read, and the code of a source
    of the user's own: a changed source is noticed at every use.

    Raises:
        DataError: when there is no such source folder, or its module can't be imported.
    """
    wanted = stored_form(config, hashed=True, exclude={"path"}) | {"version": PREPARE_VERSION}
    if (code := code_digest(config.source)) is not None:
        wanted["code"] = code
    root = source_path(config)
    if root is not None:
        wanted["files"] = sorted(
            (str(p.relative_to(root)), p.stat().st_size, p.stat().st_mtime_ns)
            for p in walk_files(root, hidden=True)
            if p.is_file()
        )
    request = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:12]
    return f"{label(config.source)}-{request}"


@contextlib.contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "free some space" if error.errno == errno.ENOSPC else "choose another folder with --runs"
        raise ResourceError(f"{target}: can't be written ({error.strerror}); {remedy}") from error
