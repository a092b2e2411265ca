"""Sizes of what a run folder holds, and its removal: what is left where that is cut short is never taken for whole.

On a disk a folder is renamed first, to a hidden name that nobody reads. On an object store, which can't rename, the
file that vouches for the others goes first.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from gentrain.errors import ResourceError, StoreError, first_line
from gentrain.store import disk
from gentrain.store.folder import Folder
from gentrain.store.generation import GenerationFolder
from gentrain.store.locks import name_holder

REMOVED = ".removed-"
"""What a folder's name begins with while it is removed, and after that was cut short."""
WHO = "gentrain clean"


@dataclass(frozen=True)
class StoredFile:
    """A file below a folder."""

    name: str
    """Relative to the folder."""
    bytes: int
    changed: float
    """Seconds since 1970."""
    regular: bool = True
    """Whether it is a file, not a link, pipe or device."""


def files_below(folder: Folder) -> list[StoredFile]:
    """Return all files in a folder and the folders in it, hidden ones too; links are not followed.

    Raises:
        StoreError: when an object store can't list it.
    """
    if folder.local:
        return _files_on_disk(folder.path)
    try:
        infos = folder.filesystem.get_file_info(pafs.FileSelector(folder.path, recursive=True, allow_not_found=True))
    except OSError as error:
        raise StoreError(f"{folder}: can't be listed: {first_line(error)}") from error
    start = len(folder.path) + 1
    return [
        StoredFile(info.path[start:], info.size or 0, info.mtime.timestamp() if info.mtime else 0.0)
        for info in infos
        if info.type == pafs.FileType.File
    ]


def _files_on_disk(path: str) -> list[StoredFile]:
    files = []
    for folder, folders, names in os.walk(path):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in (*names, *links):
            file = os.path.join(folder, name)
            try:
                status = os.lstat(file)
            except OSError:  # deleted meanwhile
                continue
            regular = stat.S_ISREG(status.st_mode)
            files.append(StoredFile(os.path.relpath(file, path), status.st_size, status.st_mtime, regular))
    return files


def remove_generation(folder: GenerationFolder) -> None:
    """Remove a generation whose claim the caller holds."""
    if folder.local:
        remove_folder(folder)
        return
    folder.record.retract()
    folder.delete_all()


def remove_folder(folder: Folder, *, first: Sequence[str] = ()) -> None:
    """Remove a folder and what is in it.

    Args:
        folder: to remove.
        first: names of the files that vouch for the others, which go first where a folder can't be renamed.
    """
    if not folder.local:
        for name in first:
            folder.delete(name)
        folder.delete_all()
        return
    path = Path(folder.path)
    hidden = path.with_name(f"{REMOVED}{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        path.rename(hidden)
        disk.delete_tree(str(hidden))
    except OSError as error:
        raise ResourceError(f"{error.filename or path}: can't be removed ({error.strerror})") from error


def holder() -> str:
    """Return who removes, for those who wait."""
    return name_holder(WHO)
