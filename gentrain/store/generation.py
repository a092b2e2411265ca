"""One generation's folder: its record, its verified files, its checkpoints, its claim."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as pafs
from pydantic import ValidationError

from gentrain.errors import StoreError, TakenOverError
from gentrain.store.done import DONE, SPEC, Done, FileDigest, describe
from gentrain.store.folder import Folder, digest
from gentrain.study.lineage import GenerationSpec

KEPT_CHECKPOINTS = 2
_CHECKPOINT = re.compile(r"epoch-(\d{5,})\.([0-9a-f]{16})\.safetensors")
"""Name of a checkpoint: its epoch and its content's checksum."""
RECENT_SECONDS = 120.0


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
        damaged = [name for name, file in done.files.items() if not _intact(self.read(name), file)]
        if done.digest is None and self.spec() is None:  # version 0.1 did not record a digest of spec.json
            damaged.append(SPEC)
        return Inspection(done, tuple(damaged))

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
        """Write a generation's files, then DONE.json over their digests.

        Raises:
            StoreError: when a fact can't be recorded, such as a score that is not finite.
        """
        for name, content in files.items():
            self.write(name, content)
        digests = {name: FileDigest(**describe(content)) for name, content in files.items()}
        try:
            done = Done.sealed(key=self.key, files=digests, **facts)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise StoreError(f"{self}/{DONE}: can't record {where or 'the scores'}: missing or out of range") from error
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


def encode_spec(spec: GenerationSpec) -> bytes:
    """Return the content of spec.json."""
    return json.dumps(spec.model_dump(mode="json"), indent=2).encode()


def restore_spec(folder: GenerationFolder, spec: GenerationSpec) -> bool:
    """Make a valid DONE.json cover a valid spec.json; return whether there was anything to write.

    Writes `spec` where spec.json is damaged, and adds the digests that a record of version 0.1 lacks. Hold the
    generation's lock.
    """
    done, content = folder.done(), folder.read(SPEC)
    if done is None:
        return False
    if SPEC in done.files and _intact(content, done.files[SPEC]):
        return False
    if done.digest is not None and SPEC not in done.files:
        return False
    if done.digest is not None or content is None or folder.spec() is None:
        content = encode_spec(spec)
        folder.write(SPEC, content)
    folder.write_json(DONE, done.covering_spec(content).model_dump())
    return True


def _checkpoint_parts(name: str) -> tuple[int, str]:
    """Return the epoch and the checksum in a checkpoint's name."""
    match = _CHECKPOINT.fullmatch(name)
    assert match is not None
    return int(match[1]), match[2]


def _intact(content: bytes | None, file: FileDigest) -> bool:
    return content is not None and len(content) == file.bytes and digest(content) == file.sha256
