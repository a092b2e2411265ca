"""The run folder on any pyarrow filesystem: atomic writes, verified reads, DONE last.

runs/data/<source>-<hash>/        prepared datasets (see gentrain.data.prepare.dataset)
runs/generations/<key>/           one trained network, shared by all studies
runs/studies/<study>/             what one study asked for and found
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from gentrain.errors import ResourceError, StoreError, TakenOverError

MODEL = "model.safetensors"
PREDICTIONS = "predictions.parquet"
VALIDATION_PREDICTIONS = "validation_predictions.parquet"
EPOCHS = "epochs.parquet"
SPEC = "spec.json"
DONE = "DONE.json"
KEPT_CHECKPOINTS = 2
RECENT_SECONDS = 120.0
CACHE = "GENTRAIN_CACHE"
"""Environment variable: a node's own folder for datasets whose store is elsewhere; default ~/.cache/gentrain."""


def digest(content: bytes) -> str:
    """Return the sha256 of `content` in hex."""
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Turn what a full, read-only or forbidden disk says into one line with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise ResourceError(
                f"{path}: the disk is full; free some space and run the same command again: "
                "it goes on from the last epoch"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENOENT) or "Read-only" in str(
            error
        ):
            raise ResourceError(
                f"{path}: can't be written ({error.strerror}); choose another folder with --runs"
            ) from error
        raise StoreError(f"{path}: {error}") from error


class Folder:
    """A folder of a pyarrow filesystem; every write is whole or absent."""

    def __init__(self, filesystem: pafs.FileSystem, path: str) -> None:
        self.filesystem = filesystem
        self.path = path
        self._local = isinstance(filesystem, pafs.LocalFileSystem)

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.filesystem, str(PurePosixPath(self.path) / name))

    def __str__(self) -> str:
        return self.path

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically: temporary name, fsync, rename (an object store's own writes are whole already)."""
        target = f"{self.path}/{name}"
        with _told(target):
            if not self._local:
                with self.filesystem.open_output_stream(target) as stream:
                    stream.write(content)
                return
            Path(self.path).mkdir(parents=True, exist_ok=True)
            temporary = f"{self.path}/.{name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
            try:
                with open(temporary, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, target)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None where there is none."""
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
        found = (info.base_name for info in self.filesystem.get_file_info(selector))
        return sorted(name for name in found if not name.startswith("."))

    def delete(self, name: str) -> None:
        """Delete a file; one that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError), _told(f"{self.path}/{name}"):
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


def encode_table(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


class FileDigest(BaseModel):
    """What a finished file must look like."""

    model_config = ConfigDict(frozen=True)
    sha256: str
    bytes: int


class Done(BaseModel):
    """The record that is written last, when a generation is whole."""

    model_config = ConfigDict(frozen=True)
    key: str
    files: dict[str, FileDigest]
    scores: dict[str, float]
    validation_scores: dict[str, float] | None = None
    train_primary: float
    seconds: float
    workers: int
    threads: int
    device: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Inspection:
    """What is on storage of one generation: its record, and the files that don't match it."""

    done: Done | None
    damaged: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether the generation is finished and every file of it verified."""
        return self.done is not None and not self.damaged


class GenerationFolder:
    """One generation's part of the store."""

    def __init__(self, folder: Folder, key: str) -> None:
        self.folder = folder
        self.key = key
        self.train = folder / "train"

    def inspect(self) -> Inspection:
        """Verify every file of a finished generation against its record."""
        content = self.folder.read(DONE)
        if content is None:
            return Inspection(None)
        try:
            done = Done.model_validate_json(content)
        except ValidationError:
            return Inspection(None, (DONE,))
        if done.key != self.key:
            return Inspection(None, (DONE,))
        return Inspection(done, tuple(name for name, wanted in done.files.items() if not self._matches(name, wanted)))

    def _matches(self, name: str, wanted: FileDigest) -> bool:
        content = self.folder.read(name)
        return content is not None and len(content) == wanted.bytes and digest(content) == wanted.sha256

    def read_verified(self, name: str) -> bytes:
        """Return a finished file's content, checked against DONE.json.

        Raises:
            StoreError: when it is missing or damaged.
        """
        inspection = self.inspect()
        if inspection.done is None or name in inspection.damaged or name not in inspection.done.files:
            raise StoreError(f"{self.folder}/{name}: missing or damaged; run the study again to restore it")
        content = self.folder.read(name)
        if content is None:
            raise StoreError(f"{self.folder}/{name}: vanished while it was read; run the study again to restore it")
        return content

    def finish(self, files: Mapping[str, bytes], **facts: Any) -> Done:
        """Write a generation's files, then DONE.json over their digests."""
        for name, content in files.items():
            self.folder.write(name, content)
        digests = {name: FileDigest(sha256=digest(content), bytes=len(content)) for name, content in files.items()}
        done = Done(key=self.key, files=digests, **facts)
        self.folder.write_json(DONE, done.model_dump())
        return done

    @property
    def training(self) -> bool:
        """Whether there is anything of an unfinished training."""
        return bool(self.train.names())

    def clear_training(self) -> None:
        """Delete what only an unfinished generation needs."""
        self.train.delete_all()

    # Mid-training checkpoints: the name carries the content's checksum, so one rename makes a whole, verifiable file.

    def save_checkpoint(self, epoch: int, content: bytes) -> None:
        """Write the state after `epoch` finished epochs; older ones beyond the newest two are deleted."""
        self.train.write(f"epoch-{epoch:05d}.{digest(content)[:16]}.safetensors", content)
        for name in self._checkpoints()[:-KEPT_CHECKPOINTS]:
            self.train.delete(name)

    def newest_checkpoint(self, *, warn: Callable[[str], None]) -> tuple[int, bytes] | None:
        """Return the epoch and content of the newest sound checkpoint; damaged ones are told to `warn` and deleted."""
        for name in reversed(self._checkpoints()):
            epoch, checksum = name.removeprefix("epoch-").split(".")[:2]
            content = self.train.read(name)
            if content is not None and digest(content)[:16] == checksum:
                return int(epoch), content
            warn(f"{self.train}/{name}: damaged (checksum differs); going back to the newest sound checkpoint")
            self.train.delete(name)
        return None

    def newest_epoch(self) -> int:
        """Return the epoch of the newest checkpoint by its name, unverified; 0 where there is none."""
        return max((int(name[6:11]) for name in self._checkpoints()), default=0)

    def _checkpoints(self) -> list[str]:
        return [n for n in self.train.names() if n.startswith("epoch-") and n.endswith(".safetensors")]

    # Fencing: whoever starts training takes the folder over; a worker that outlived its owner finds that out and stops.

    def claim(self) -> str:
        """Take the folder over for one attempt and return its token."""
        token = uuid.uuid4().hex
        self.train.write("owner", token.encode())
        return token

    def check_claim(self, token: str) -> None:
        """Raise TakenOverError when another attempt has taken the folder over since."""
        if self.train.read("owner") != token.encode():
            raise TakenOverError(f"{self.folder}: another process has taken this generation over; this one stops")

    def at_work(self) -> bool:
        """Return whether this generation seems to be trained: its lock is held, or its checkpoints are recent.

        The lock tells for sure on the machine that holds it. Elsewhere the newest file of the training must be no older
        than thrice the time between the two newest checkpoints, two minutes at least.
        """
        if self._lock_held():
            return True
        if isinstance(self.folder.filesystem, pafs.LocalFileSystem):
            return False
        selector = pafs.FileSelector(self.train.path, allow_not_found=True)
        times = sorted(info.mtime.timestamp() for info in self.folder.filesystem.get_file_info(selector) if info.mtime)
        if not times:
            return False
        between = times[-1] - times[-2] if len(times) > 1 else 0.0
        return bool(time.time() - times[-1] < max(RECENT_SECONDS, 3 * between))

    def _lock_held(self) -> bool:
        path = Path(f"{self.folder.path}/.lock")
        if not isinstance(self.folder.filesystem, pafs.LocalFileSystem) or not path.exists():
            return False
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextlib.contextmanager
    def locked(self, *, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold this generation's lock while training it, so that two commands at once don't train it twice.

        Local folders only (the kernel frees the lock of a killed process); elsewhere the claim alone protects.
        """
        if not isinstance(self.folder.filesystem, pafs.LocalFileSystem):
            yield
            return
        with _told(self.folder.path):
            Path(self.folder.path).mkdir(parents=True, exist_ok=True)
            file = open(f"{self.folder.path}/.lock", "wb")  # noqa: SIM115
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


class RunStore:
    """A run folder: `runs`, or any URI that pyarrow.fs opens (s3://bucket/runs)."""

    def __init__(self, uri: str) -> None:
        self.uri = uri if "://" in uri else str(Path(uri).expanduser().resolve())
        if "://" in uri:
            filesystem, path = pafs.FileSystem.from_uri(uri)
        else:
            filesystem, path = pafs.LocalFileSystem(), self.uri
        self.root = Folder(filesystem, path)

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.uri,)  # reopened where it arrives: no filesystem handle, no credentials travel

    @property
    def data(self) -> Path:
        """Where prepared datasets lie (always a local disk: FFCV maps them into memory)."""
        if self.local:
            return Path(self.root.path) / "data"
        return Path(os.environ.get(CACHE) or "~/.cache/gentrain").expanduser() / "data"

    @property
    def local(self) -> bool:
        """Whether this is a folder of a disk, where locks work."""
        return isinstance(self.root.filesystem, pafs.LocalFileSystem)

    def check_writable(self) -> None:
        """Fail at once, in one line, where nothing can be written."""
        self.root.write(".writable", b"")
        self.root.delete(".writable")

    def generation(self, key: str) -> GenerationFolder:
        """Return one generation's folder."""
        return GenerationFolder(self.root / "generations" / key, key)

    def study(self, name: str) -> Folder:
        """Return one study's folder."""
        return self.root / "studies" / name
