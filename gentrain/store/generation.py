"""One generation's folder: its record, its verified files, its checkpoints, its claim."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from gentrain.errors import StoreError
from gentrain.store import checkpoints
from gentrain.store.claims import Claimant, LockClaimant, RecordClaimant, Waiting, at_work, claimed
from gentrain.store.done import DONE, EPOCHS, FILES, SPEC, Done, FileDigest, describe
from gentrain.store.folder import Folder, check_files, digest
from gentrain.store.record import Claim, DoneFile, SwappedRecord
from gentrain.study.lineage import GenerationSpec


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

    def read(self, name: str) -> bytes | None:
        """Return a file's content; no bytes where something that is no file has its name: that is damage."""
        return self.read_record(name)

    def make_ready(self) -> None:
        """Delete what killed writes left behind; raise NotAFileError where a folder is in the way of a file."""
        self.sweep()
        self.train.sweep()
        check_files(self, *sorted(FILES), DONE)

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
            return Inspection(None, (DONE,) if unvouched(self) else ())
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

        A writer that has lost its claim changes no byte that a record names: see `gentrain.store.record`.

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

    def save_checkpoint(self, epoch: int, content: bytes) -> None:
        """Write the state after `epoch` finished epochs; delete all but the newest two."""
        checkpoints.save(self.train, epoch, content)

    def newest_checkpoint(
        self, *, warn: Callable[[str], None], problem: checkpoints.Problem = checkpoints.no_problem
    ) -> tuple[int, bytes] | None:
        """See `checkpoints.newest`."""
        return checkpoints.newest(self.train, warn=warn, problem=problem)

    def newest_epoch(self) -> int:
        """Return the epoch of the newest checkpoint by its name, unverified; 0 where there is none."""
        return checkpoints.newest_epoch(self.train)

    def claimant(self, holder: str) -> Claimant:
        """Return this process's way to the claim, of which there is one; `holder` names it to those who wait."""
        if isinstance(self.record, SwappedRecord):
            return RecordClaimant(self.record, holder=holder)
        return LockClaimant(self, self.record, holder=holder)

    def claimed(self, holder: str, *, waiting: Waiting) -> AbstractContextManager[Claim]:
        """Wait until the generation is free, and hold its claim for the block; see `claims.claimed`."""
        return claimed(self.claimant(holder), waiting=waiting)

    def check_claim(self, token: str) -> None:
        """Raise TakenOverError when another has the claim."""
        self.record.check(token)

    def at_work(self) -> bool:
        """Return whether this generation seems to be trained; see `claims.at_work`."""
        return at_work(self, self.record)


def unvouched(folder: GenerationFolder) -> bool:
    """Return whether there are files of a finished training on a disk, where there is no DONE.json."""
    return folder.local and EPOCHS in folder.names()


def encode_spec(spec: GenerationSpec) -> bytes:
    """Return the content of spec.json."""
    return json.dumps(spec.model_dump(mode="json"), indent=2).encode()


def restore_spec(folder: GenerationFolder, spec: GenerationSpec, **facts: Any) -> bool:
    """Make a valid DONE.json cover a valid spec.json; return whether there was anything to write.

    Writes `spec` where spec.json is damaged, and adds the digests that a record of version 0.1 lacks; `facts` replace
    what that record says. Hold the generation's lock where it has one.
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
    amended = done.covering_spec(content, **facts)
    if damaged or amended.place(SPEC) != done.place(SPEC):
        folder.write(amended.place(SPEC), content)
    return folder.record.amend_done(done, amended)


def _intact(content: bytes | None, file: FileDigest) -> bool:
    return content is not None and len(content) == file.bytes and digest(content) == file.sha256
