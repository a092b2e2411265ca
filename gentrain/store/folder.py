"""A folder of any pyarrow filesystem: atomic writes, whole reads, one lock."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from gentrain.errors import NotAFileError, ResourceError, StoreError
from gentrain.store import disk, locks
from gentrain.store.conditional import ConditionalObjects, Versioned, compare_and_swap
from gentrain.store.locks import LOCK


def digest(content: bytes) -> str:
    """Return the sha256 of `content` in hex."""
    return hashlib.sha256(content).hexdigest()


def mapping_digest(mapping: Mapping[str, Any]) -> str:
    """Return the sha256 of a record's canonical JSON, without the record's own field `digest`."""
    rest = {name: value for name, value in mapping.items() if name != "digest"}
    return digest(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())


def encode_table(table: pa.Table, *, dictionaries: bool | list[str] = True) -> bytes:
    """Return a table as the bytes of a Parquet file.

    Args:
        table: to write.
        dictionaries: whether columns, or which, are written as indices of their distinct values.
    """
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", use_dictionary=dictionaries)
    return sink.getvalue()


def decode_table(content: bytes) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file's bytes.

    Raises:
        pyarrow.ArrowInvalid: when they are no Parquet file.
    """
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
    return rows


def read_metadata(content: bytes) -> dict[bytes, bytes]:
    """Return the metadata of the schema of a Parquet file's bytes.

    Raises:
        pyarrow.ArrowInvalid: when they are no Parquet file.
    """
    metadata: dict[bytes, bytes] = pq.read_schema(io.BytesIO(content)).metadata or {}
    return metadata


def _opened(filesystem: pafs.FileSystem, path: str) -> Any:
    """Open a file to be read whole; a small one of a disk three times as fast as pyarrow does."""
    local = isinstance(filesystem, pafs.LocalFileSystem)
    return io.FileIO(path) if local else filesystem.open_input_stream(path, compression=None)


class Folder:
    """A folder of a pyarrow filesystem; every write is whole or absent.

    Args:
        filesystem: where it is.
        path: in the filesystem.
        objects: the same store's conditional writes, where it has them.
    """

    def __init__(self, filesystem: pafs.FileSystem, path: str, objects: ConditionalObjects | None = None) -> None:
        self.filesystem = filesystem
        self.path = path
        self.objects = objects
        self.local = isinstance(filesystem, pafs.LocalFileSystem)

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.filesystem, f"{self.path.rstrip('/')}/{name}", self.objects)

    def __str__(self) -> str:
        return self.path

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically: temporary name, fsync, rename (an object store's own writes are whole already).

        Raises:
            ResourceError: when the disk is full, read-only or forbidden.
            StoreError: for any other failure of the filesystem.
        """
        target = f"{self.path}/{name}"
        with _errors_with_remedy(target):
            if self.local:
                disk.write_whole(Path(self.path), name, content)
                return
            with self.filesystem.open_output_stream(target) as stream:
                stream.write(content)

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace a file by what `change` makes of its content (None: no file), so that nobody's change is lost.

        On a local disk the folder's lock is held meanwhile, on S3 it is a compare-and-swap, for which `change` may be
        called again. Other object stores have neither: there the last of two that write at once wins.

        Raises:
            ResourceError, StoreError: see `write` and `read`.
        """
        if self.objects is None:
            with self.locked(waiting=lambda: None, holder=locks.name_holder(f"writing {name}")):
                self.write(name, change(self.read_record(name)))
            return

        def changed(before: Versioned | None) -> bytes | None:
            old = before.content if before else None
            new = change(old)
            return None if new == old else new

        compare_and_swap(self.objects, f"{self.path}/{name}", changed)

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None where there is none.

        Raises:
            NotAFileError: when a folder, or anything else that is no file, has its name.
            StoreError: when the file exists and can't be read.
        """
        path = f"{self.path}/{name}"
        if self.local and (problem := disk.problem_of(path)) is not None:
            raise NotAFileError(f"{path}: is {problem}, not a file; move it away and run the study again")
        try:
            with _opened(self.filesystem, path) as file:
                return bytes(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{path}: can't be read: {error}") from error

    def read_record(self, name: str) -> bytes | None:
        """Return what `read` does; where something that is no file has the name, no bytes: a damaged record."""
        try:
            return Folder.read(self, name)
        except NotAFileError:
            return b""

    def names(self) -> list[str]:
        """Return the names in this folder, sorted; hidden ones, as temporary files have, are not among them.

        Raises:
            StoreError: when it isn't a folder, or can't be read.
        """
        try:
            if self.local:
                return sorted(disk.list_names(self.path))
            selector = pafs.FileSelector(self.path, allow_not_found=True)
            names = (info.base_name for info in self.filesystem.get_file_info(selector))
            return sorted(name for name in names if not name.startswith("."))
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(f"{self.path}: can't be read as a folder ({reason}); move it away") from error

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        path = f"{self.path}/{name}"
        with _errors_with_remedy(path), contextlib.suppress(FileNotFoundError):
            os.unlink(path) if self.local else self.filesystem.delete_file(path)

    def delete_all(self) -> None:
        """Delete the folder and what is in it."""
        with _errors_with_remedy(self.path), contextlib.suppress(FileNotFoundError):
            disk.delete_tree(self.path) if self.local else self.filesystem.delete_dir(self.path)

    def sweep(self) -> None:
        """Delete what killed writes left in the folder; those of an object store leave nothing."""
        if self.local:
            disk.sweep(self.path)

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as readable JSON."""
        self.write(name, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a table as Parquet."""
        self.write(name, encode_table(table))

    @contextlib.contextmanager
    def locked(self, *, waiting: Callable[[], None], holder: str = "") -> Iterator[None]:
        """Hold the folder's lock for the block; `waiting` is called when another process holds it (see `lock_holder`).

        On a local disk the kernel frees the lock of a killed process. An object store has no lock: nothing is held
        (see `gentrain.store.claims`).

        Args:
            waiting: called once before this process waits.
            holder: who holds it, for those who wait (`name_holder`).
        """
        if not self.local:
            yield
            return
        with _errors_with_remedy(f"{self.path}/{LOCK}"):
            lock = locks.acquire(Path(self.path), waiting=waiting, holder=holder)
        try:
            yield
        finally:
            locks.release(lock)

    def lock_holder(self) -> str:
        """Return who holds the folder's lock, and since when, in words; empty where that isn't known."""
        return locks.read_holder(Path(self.path)) if self.local else ""

    def lock_held(self) -> bool:
        """Return whether a process of this machine holds the folder's lock."""
        return self.local and locks.held(Path(self.path))


def check_files(folder: Folder, *names: str) -> None:
    """Refuse folders that have the names of files, before work is done whose result couldn't be written.

    Raises:
        NotAFileError: naming the first.
    """
    for name in names if folder.local else ():
        if os.path.isdir(path := f"{folder}/{name}") and not os.path.islink(path):
            raise NotAFileError(f"{path}: is a folder, not a file; move it away and run the study again")


@contextlib.contextmanager
def _errors_with_remedy(path: str) -> Iterator[None]:
    """Turn the error of a full, read-only or forbidden disk into one line with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise ResourceError(
                f"{path}: the disk is full; free some space and run the same command again: "
                "it goes on from the last epoch"
            ) from error
        where = error.filename or path
        if error.errno == errno.EISDIR:
            raise NotAFileError(f"{path}: is a folder, not a file; move it away and run the study again") from error
        if error.errno == errno.EEXIST:
            raise StoreError(f"{where}: isn't a folder; move it away and run the same command again") from error
        if error.errno == errno.ELOOP:
            raise StoreError(f"{where}: is a link, which isn't followed here; delete it") from error
        denied = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENOENT)
        if error.errno in denied or "Read-only" in str(error):
            raise ResourceError(
                f"{path}: can't be written ({error.strerror}); choose another folder with --runs"
            ) from error
        raise StoreError(f"{path}: {error}") from error
