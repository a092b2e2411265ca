"""One generation's folder: its record, its verified files, its checkpoints, its claim."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict, ValidationError

from gentrain.errors import StoreError, TakenOverError
from gentrain.store.folder import Folder, digest
from gentrain.study.lineage import GenerationSpec

MODEL = "model.safetensors"
PREDICTIONS = "predictions.parquet"
VALIDATION_PREDICTIONS = "validation_predictions.parquet"
EPOCHS = "epochs.parquet"
SPEC = "spec.json"
DONE = "DONE.json"
KEPT_CHECKPOINTS = 2
_CHECKPOINT = re.compile(r"epoch-(\d{5,})\.([0-9a-f]{16})\.safetensors")
"""Name of a checkpoint: its epoch and its content's checksum."""
RECENT_SECONDS = 120.0


class FileDigest(BaseModel):
    """Size and checksum of a finished file."""

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

    @classmethod
    def parse(cls, content: bytes | None, *, key: str) -> Done | None:
        """Return the record in `content`; None where it is missing, damaged or another generation's."""
        try:
            done = cls.model_validate_json(content or b"")
        except ValidationError:
            return None
        return done if done.key == key else None


@dataclass(frozen=True)
class Inspection:
    """What the store has of one generation: its record, and the files that don't match it."""

    done: Done | None
    damaged: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether the generation is finished and every file of it verified."""
        return self.done is not None and not self.damaged


class GenerationFolder(Folder):
    """One generation's part of the store."""

    def __init__(self, folder: Folder, key: str) -> None:
        super().__init__(folder.filesystem, folder.path)
        self.key = key
        self.train = folder / "train"

    def done(self) -> Done | None:
        """Return the record of a finished generation; None where it is missing or damaged. Files aren't verified."""
        return Done.parse(self.read(DONE), key=self.key)

    def spec(self) -> GenerationSpec | None:
        """Return the generation's spec; None where it is missing, damaged or another generation's."""
        return GenerationSpec.parse(self.read(SPEC), key=self.key)

    def inspect(self) -> Inspection:
        """Verify every file of a finished generation against its record."""
        content = self.read(DONE)
        done = Done.parse(content, key=self.key)
        if done is None:
            return Inspection(None, () if content is None else (DONE,))
        return Inspection(done, tuple(name for name, file in done.files.items() if not _intact(self.read(name), file)))

    def read_verified(self, name: str, *, done: Done | None = None) -> bytes:
        """Return a finished file's content, checked against the generation's record; no other file is read.

        Args:
            name: of the file.
            done: the record, where the caller has read it already.

        Raises:
            StoreError: when the file or the record is missing or damaged.
        """
        content = self.read_intact(name, done=done)
        if content is None:
            raise StoreError(f"{self}/{name}: missing or damaged; run the study again to restore it")
        return content

    def read_intact(self, name: str, *, done: Done | None = None) -> bytes | None:
        """Return what `read_verified` does; None where the file or the record is missing or damaged."""
        done = done or self.done()
        if done is None or name not in done.files:
            return None
        content = self.read(name)
        return content if _intact(content, done.files[name]) else None

    def finish(self, files: Mapping[str, bytes], **facts: Any) -> Done:
        """Write a generation's files, then DONE.json over their digests."""
        for name, content in files.items():
            self.write(name, content)
        digests = {name: FileDigest(sha256=digest(content), bytes=len(content)) for name, content in files.items()}
        done = Done(key=self.key, files=digests, **facts)
        self.write_json(DONE, done.model_dump())
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
        """Write the state after `epoch` finished epochs; delete all but the newest two."""
        self.train.write(f"epoch-{epoch:05d}.{digest(content)[:16]}.safetensors", content)
        for name in self._checkpoints()[:-KEPT_CHECKPOINTS]:
            self.train.delete(name)

    def newest_checkpoint(
        self, *, warn: Callable[[str], None], problem: Callable[[int, bytes], str | None] = lambda _, __: None
    ) -> tuple[int, bytes] | None:
        """Return the epoch and content of the newest valid checkpoint; name damaged ones to `warn` and delete them.

        Args:
            warn: receives one line for each damaged checkpoint.
            problem: returns why the content of an epoch's checkpoint can't be used, None where it can; it is called
                with content whose checksum is the name's.
        """
        for name in reversed(self._checkpoints()):
            epoch, checksum = _checkpoint_parts(name)
            content = self.train.read(name)
            intact = content is not None and digest(content)[:16] == checksum
            reason = problem(epoch, content) if content is not None and intact else "checksum differs"
            if content is not None and reason is None:
                return epoch, content
            warn(f"{self.train}/{name}: damaged ({reason}); going back to the newest valid checkpoint")
            self.train.delete(name)
        return None

    def newest_epoch(self) -> int:
        """Return the epoch of the newest checkpoint by its name, unverified; 0 where there is none."""
        return max((_checkpoint_parts(name)[0] for name in self._checkpoints()), default=0)

    def _checkpoints(self) -> list[str]:
        return sorted(filter(_CHECKPOINT.fullmatch, self.train.names()), key=_checkpoint_parts)

    # Fencing: whoever starts training takes the folder over; a worker that outlived its owner sees that and stops.

    def claim(self) -> str:
        """Take the folder over for one attempt and return its token."""
        token = uuid.uuid4().hex
        self.train.write("owner", token.encode())
        return token

    def check_claim(self, token: str) -> None:
        """Raise TakenOverError when another attempt has taken the folder over since."""
        if self.train.read("owner") != token.encode():
            raise TakenOverError(f"{self}: another process has taken this generation over; this one stops")

    def at_work(self) -> bool:
        """Return whether this generation seems to be trained: its lock is held, or its checkpoints are recent.

        The lock is certain on the machine that holds it. Elsewhere the newest file of the training must be no older
        than thrice the time between the two newest checkpoints, two minutes at least.
        """
        if self.local:
            return self.lock_held()
        selector = pafs.FileSelector(self.train.path, allow_not_found=True)
        times = sorted(info.mtime.timestamp() for info in self.filesystem.get_file_info(selector) if info.mtime)
        if not times:
            return False
        between = times[-1] - times[-2] if len(times) > 1 else 0.0
        return bool(time.time() - times[-1] < max(RECENT_SECONDS, 3 * between))


def _checkpoint_parts(name: str) -> tuple[int, str]:
    """Return the epoch and the checksum in a checkpoint's name."""
    match = _CHECKPOINT.fullmatch(name)
    assert match is not None
    return int(match[1]), match[2]


def _intact(content: bytes | None, file: FileDigest) -> bool:
    return content is not None and len(content) == file.bytes and digest(content) == file.sha256
