"""Share prepared datasets through a store that is no disk of this node: publish them there, fetch them once a node."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from gentrain.data.prepare.dataset import (
    MANIFEST,
    Damage,
    PreparedData,
    load_prepared,
    prepare,
    prepared_name,
    upgrade,
    verify,
)
from gentrain.data.prepare.manifest import Manifest, has_digest
from gentrain.data.prepare.writing import building_folder, preparing
from gentrain.errors import DataError
from gentrain.store.done import DATA
from gentrain.store.folder import Folder
from gentrain.store.run import RunStore
from gentrain.study.sections import DatasetConfig

CHUNK_BYTES = 16 << 20


def prepare_shared(
    config: DatasetConfig, store: RunStore, *, notify: Callable[[str], None] = lambda _: None
) -> PreparedData:
    """Return a dataset on this node's disk, fetched from the store or compiled now, and shared through the store.

    Raises:
        DataError, ResourceError: see `prepare` and `obtain`.
    """
    name = prepared_name(config)
    content = None if store.local else _shared(name, store).read(MANIFEST)
    if Manifest.parse(content) is not None:
        fetched = upgrade(obtain(name, store, notify=notify), config)
        if isinstance(fetched, PreparedData):
            if not has_digest(content):
                _shared(name, store).write(MANIFEST, fetched.manifest.file_content())
                notify(f"{_shared(name, store)}/{MANIFEST}: of an earlier version; it has a digest now")
            return fetched
        notify(f"{fetched.reason}; it is rebuilt")
        _shared(name, store).delete(MANIFEST)
    elif content is not None:
        notify(f"{_shared(name, store)}/{MANIFEST}: damaged; the dataset is rebuilt")
        _shared(name, store).delete(MANIFEST)
    data = prepare(config, store.data, notify=notify)
    publish(data, store)
    return data


def publish(data: PreparedData, store: RunStore) -> None:
    """Copy a prepared dataset into the store, its manifest last, unless the store has it or is a disk itself."""
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
    """Return whether the dataset can be fetched from the store; from a store on a disk nothing has to be fetched."""
    return not store.local and _shared(name, store).read(MANIFEST) is not None


def obtain(name: str, store: RunStore, *, notify: Callable[[str], None] = lambda _: None) -> PreparedData:
    """Return a prepared dataset on this node's disk, verified; fetch it first where it is missing or damaged.

    Raises:
        DataError: when it is damaged in the store too, or the store is a disk that this node doesn't share.
    """
    target = store.data / name
    if store.local:
        if not target.is_dir():
            node = os.uname().nodename
            raise DataError(f"{target}: not on node {node}; --runs must be a disk that all nodes share, or s3://…")
        return load_prepared(target)
    data = verify(target)
    if isinstance(data, Damage):
        with preparing(target, notify=notify):
            data = verify(target)  # another process may have fetched it meanwhile
            if isinstance(data, Damage):
                data = _fetch(_shared(name, store), target)
    return data


def find_shared(fingerprint: str, store: RunStore) -> tuple[str, Manifest] | None:
    """Return the name and manifest of the store's dataset with this fingerprint, None where there is none.

    The dataset's files are not verified.
    """
    for name in (store.root / "data").names():
        manifest = Manifest.parse(_shared(name, store).read_record(MANIFEST))
        if manifest is not None and manifest.fingerprint == fingerprint:
            return name, manifest
    return None


def find_trained_on(key: str, fingerprint: str, store: RunStore) -> Manifest | None:
    """Return the manifest of the data that a generation was trained on: its folder's copy, else the dataset's own.

    None where neither is there and valid.
    """
    manifest = Manifest.parse(store.generation(key).read_record(DATA))
    if manifest is not None and manifest.fingerprint == fingerprint:
        return manifest
    shared = find_shared(fingerprint, store)
    return shared and shared[1]


def keep_manifest(key: str, manifest: Manifest, store: RunStore) -> bool:
    """Write the manifest of its data into a generation's folder where it isn't; return whether it was written."""
    folder = store.generation(key)
    kept = Manifest.parse(folder.read_record(DATA))
    if kept is not None and kept.fingerprint == manifest.fingerprint:
        return False
    folder.write(DATA, manifest.file_content())
    return True


def _fetch(folder: Folder, target: Path) -> PreparedData:
    content = folder.read(MANIFEST)
    manifest = Manifest.parse(content)
    if content is None:
        raise DataError(f"{folder}: no prepared dataset there; run the same command again")
    if manifest is None:
        raise DataError(f"{folder}/{MANIFEST}: damaged; delete it and run the same command again")
    building = building_folder(target)
    try:
        for info in manifest.splits.values():
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
