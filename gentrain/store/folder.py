"""A folder of any pyarrow filesystem: atomic writes, whole reads, one lock."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from gentrain.errors import ResourceError, StoreError
from gentrain.store.conditional import ConditionalObjects, Versioned, compare_and_swap

LOCK = ".lock"


def digest(content: bytes) -> str:
    """Return the sha256 of `content` in hex."""
    return hashlib.sha256(content).hexdigest()


def encode_table(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def decode_table(content: bytes) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file's bytes.

    Raises:
        pyarrow.ArrowInvalid: when they are no Parquet file.
    """
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
    return rows


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
        return Folder(self.filesystem, str(PurePosixPath(self.path) / name), self.objects)

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
                _write_local(Path(self.path), name, content)
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
            with self.locked(waiting=lambda: None):
                self.write(name, change(self.read(name)))
            return

        def changed(before: Versioned | None) -> bytes | None:
            old = before.content if before else None
            new = change(old)
            return None if new == old else new

        compare_and_swap(self.objects, f"{self.path}/{name}", changed)

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None where there is none.

        Raises:
            StoreError: when the file exists and can't be read.
        """
        try:
            with self.filesystem.open_input_stream(f"{self.path}/{name}", compression=None) as stream:
                return bytes(stream.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{self.path}/{name}: can't be read: {error}") from error

    def names(self) -> list[str]:
        """Return the names in this folder, sorted; temporary files are not among them."""
        selector = pafs.FileSelector(self.path, allow_not_found=True)
        names = (info.base_name for info in self.filesystem.get_file_info(selector))
        return sorted(name for name in names if not name.startswith("."))

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        with contextlib.suppress(FileNotFoundError), _errors_with_remedy(f"{self.path}/{name}"):
            self.filesystem.delete_file(f"{self.path}/{name}")

    def delete_all(self) -> None:
        """Delete the folder and what is in it."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_dir(self.path)

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as readable JSON."""
        self.write(name, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a table as Parquet."""
        self.write(name, encode_table(table))

    @contextlib.contextmanager
    def locked(self, *, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the folder's lock for the block; `waiting` is called when another process holds it.

        On a local disk the kernel frees the lock of a killed process. An object store has no lock: nothing is held
        (see `gentrain.store.claims`).
        """
        if not self.local:
            yield
            return
        with _errors_with_remedy(self.path):
            Path(self.path).mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{self.path}/{LOCK}")
            if not _acquired(lock):
                waiting()
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def lock_held(self) -> bool:
        """Return whether a process of this machine holds the folder's lock."""
        if not self.local or not Path(f"{self.path}/{LOCK}").exists():
            return False
        lock = FileLock(f"{self.path}/{LOCK}")
        free = _acquired(lock)
        lock.release()
        return not free


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _write_local(folder: Path, name: str, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / name)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        denied = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENOENT)
        if error.errno in denied or "Read-only" in str(error):
            raise ResourceError(
                f"{path}: can't be written ({error.strerror}); choose another folder with --runs"
            ) from error
        raise StoreError(f"{path}: {error}") from error
