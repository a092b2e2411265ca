"""Prepared datasets where the store is no disk of this node: published beside the generations, fetched once a node."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
from pydantic import ValidationError

from gentrain.data.prepare.dataset import MANIFEST, PreparedData, load_prepared
from gentrain.data.prepare.manifest import Manifest
from gentrain.errors import DataError
from gentrain.store.folder import Folder
from gentrain.store.run import RunStore

CHUNK_BYTES = 16 << 20


def publish(data: PreparedData, store: RunStore) -> None:
    """Copy a prepared dataset into the store, its manifest last; nothing is done where it is there, or a disk."""
    folder = _shared(data.folder.name, store)
    if store.local or folder.read(MANIFEST) is not None:
        return
    for info in data.manifest.splits.values():
        pafs.copy_files(
            str(data.folder / info.file),
            f"{folder}/{info.file}",
            source_filesystem=pafs.LocalFileSystem(),
            destination_filesystem=folder.filesystem,
            chunk_size=CHUNK_BYTES,
        )
    folder.write(MANIFEST, (data.folder / MANIFEST).read_bytes())


def published(name: str, store: RunStore) -> bool:
    """Return whether the store has the dataset to be fetched."""
    return not store.local and _shared(name, store).read(MANIFEST) is not None


def obtain(name: str, store: RunStore) -> PreparedData:
    """Return a dataset on this node's disk: verified, and fetched first where it is missing or damaged.

    Raises:
        DataError: when it is damaged in the store too, or the store is a disk that this node doesn't share.
    """
    target = store.data / name
    if store.local:
        if not target.is_dir():
            node = os.uname().nodename
            raise DataError(f"{target}: not on node {node}; --runs must be a disk that all nodes share, or s3://…")
        return load_prepared(target)
    with contextlib.suppress(DataError):
        return load_prepared(target)
    with _only_one(target):
        with contextlib.suppress(DataError):  # another process has fetched it meanwhile
            return load_prepared(target)
        return _fetch(_shared(name, store), target)


def find_shared(fingerprint: str, store: RunStore) -> tuple[str, Manifest] | None:
    """Return the name and manifest of the store's dataset with this fingerprint; its files are not verified."""
    for name in (store.root / "data").names():
        with contextlib.suppress(ValidationError):
            manifest = Manifest.model_validate_json(_shared(name, store).read(MANIFEST) or b"")
            if manifest.fingerprint == fingerprint:
                return name, manifest
    return None


def _fetch(folder: Folder, target: Path) -> PreparedData:
    content = folder.read(MANIFEST)
    if content is None:
        raise DataError(f"{folder}: no prepared dataset there; run the same command again")
    building = target.parent / f".building-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    building.mkdir(parents=True)
    try:
        for info in Manifest.model_validate_json(content).splits.values():
            pafs.copy_files(
                f"{folder}/{info.file}",
                str(building / info.file),
                source_filesystem=folder.filesystem,
                destination_filesystem=pafs.LocalFileSystem(),
                chunk_size=CHUNK_BYTES,
            )
        (building / MANIFEST).write_bytes(content)
        load_prepared(building)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(building, target)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{folder}: can't be fetched to {target}: {error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return load_prepared(target)


def _shared(name: str, store: RunStore) -> Folder:
    return store.root / "data" / name


@contextlib.contextmanager
def _only_one(target: Path) -> Iterator[None]:
    """Let one process of this node fetch at a time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f".{target.name}.lock", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
