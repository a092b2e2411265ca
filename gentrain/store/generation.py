"""One generation's folder: its record, its verified files, its checkpoints, its claim."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as pafs
from pydantic import ValidationError

from gentrain.errors import StoreError
from gentrain.store.claims import POLL_SECONDS, Claimant, LockClaimant, RecordClaimant, Waiting
from gentrain.store.done import DONE, SPEC, Done, FileDigest, describe
from gentrain.store.folder import Folder, digest
from gentrain.store.record import Claim, DoneFile, SwappedRecord
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
        super().__init__(folder.filesystem, folder.path, folder.objects)
        self.key = key
        self.train = folder / "train"
        self.record: DoneFile | SwappedRecord
        if self.objects is None:
            self.record = DoneFile(self, key)
        else:
            self.record = SwappedRecord(self, key, self.objects)

    def done(self) -> Done | None:
        """Return the record of a finished generation; None where it is missing or damaged. Files aren't verified."""
        _, done = self.record.done() or ("", None)
        return done

    def file(self, name: str, *, done: Done | None = None) -> bytes | None:
        """Return a file's content, unverified; None where there is none.

        Args:
            name: of the file; where the record gives it another name in the folder, that one is read.
            done: the record, where the caller has read it already.
        """
        if self.record.checksum_names and (done := done or self.done()) is not None:
            return self.read(done.place(name))
        return self.read(name)

    def spec(self, *, done: Done | None = None) -> GenerationSpec | None:
        """Return the generation's spec; None where it is missing, damaged or another generation's.

        Args:
            done: the record, where the caller has read it already.
        """
        return GenerationSpec.parse(self.file(SPEC, done=done), key=self.key)

    def inspect(self) -> Inspection:
        """Verify every file of a finished generation against its record."""
        record = self.record.done()
        if record is None:
            return Inspection(None)
        name, done = record
        if done is None:
            return Inspection(None, (name,))
        damaged = [name for name, file in done.files.items() if not _intact(self.read(done.place(name)), file)]
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
        content = self.read(done.place(name))
        return content if _intact(content, done.files[name]) else None

    def finish(self, files: Mapping[str, bytes], *, token: str | None = None, **facts: Any) -> Done:
        """Write a generation's files, then the record over their digests.

        On S3 the store refuses the record where the claim is lost (see `gentrain.store.record`), and a file's name
        carries its checksum: a writer that has lost its claim, however late it wakes, changes no byte that a record
        names.

        Args:
            files: contents by name.
            token: of the claim under which the generation was trained; None where nobody has claimed it.
            facts: the record's other fields.

        Raises:
            StoreError: when a fact can't be recorded, such as a score that is not finite.
            TakenOverError: when another has the claim.
        """
        digests = {name: FileDigest(**describe(content)) for name, content in files.items()}
        try:
            done = Done.sealed(key=self.key, files=digests, checksum_names=self.record.checksum_names, **facts)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise StoreError(f"{self}/{DONE}: can't record {where or 'the scores'}: missing or out of range") from error
        if token is not None:
            self.record.check(token)
        for name, content in files.items():
            self.write(done.place(name), content)
        self.record.write_done(done, token=token)
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

    # Claims: one holder trains a generation; a worker that outlived its claim sees that and stops.

    def claimant(self, holder: str) -> Claimant:
        """Return this process's way to the generation's claim; `holder` names it to those who wait."""
        if isinstance(self.record, SwappedRecord):
            return RecordClaimant(self.record, holder=holder)
        return LockClaimant(self, self.record)

    @contextlib.contextmanager
    def claimed(self, holder: str, *, waiting: Waiting) -> Iterator[Claim]:
        """Wait until the generation is free, and hold its claim for the block.

        Args:
            holder: names this process to those who wait.
            waiting: called with who has the claim, and since when, where it must be waited for.
        """
        claimant = self.claimant(holder)
        while (claim := claimant.attempt(waiting)) is None:
            time.sleep(POLL_SECONDS)
        with claimant.kept(claim):
            yield claim

    def check_claim(self, token: str) -> None:
        """Raise TakenOverError when another has the claim."""
        self.record.check(token)

    def at_work(self) -> bool:
        """Return whether this generation seems to be trained: its lock is held, or its checkpoints are recent.

        The lock is certain on the machine that holds it. On S3 the claim must have been renewed in the last two
        minutes. Elsewhere the newest file of the training must be no older than thrice the time between the two newest
        checkpoints, two minutes at least.
        """
        if self.local:
            return self.lock_held()
        if isinstance(self.record, SwappedRecord):
            claim = self.record.read().claim
            return claim is not None and time.time() - claim.renewed < RECENT_SECONDS
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
    generation's lock where it has one.
    """
    done = folder.done()
    if done is None:
        return False
    content = folder.file(SPEC, done=done)
    if SPEC in done.files and _intact(content, done.files[SPEC]):
        return False
    if done.digest is not None and SPEC not in done.files:
        return False
    damaged = done.digest is not None or content is None or folder.spec(done=done) is None
    if damaged or content is None:
        content = encode_spec(spec)
    amended = done.covering_spec(content)
    if damaged or amended.place(SPEC) != done.place(SPEC):
        folder.write(amended.place(SPEC), content)
    return folder.record.amend_done(done, amended)


def _checkpoint_parts(name: str) -> tuple[int, str]:
    """Return the epoch and the checksum in a checkpoint's name."""
    match = _CHECKPOINT.fullmatch(name)
    assert match is not None
    return int(match[1]), match[2]


def _intact(content: bytes | None, file: FileDigest) -> bool:
    return content is not None and len(content) == file.bytes and digest(content) == file.sha256
