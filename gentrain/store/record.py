"""Where a generation's claim and its DONE are kept: in files of a disk, or in one object that is swapped.

On a disk a lock keeps writers apart, and DONE.json is a file. On S3, claim and DONE are fields of one object,
record.json, that is only ever replaced by compare-and-swap. So the store itself refuses a DONE whose writer has lost
the claim: the claim's loss changed the object. A claim's term counts the claims so far; its token is never used again.

The generation's other files need no such fence. Their names carry their checksums, so whoever writes a name writes the
same bytes, however late. A holder that lost the claim can add files, which no DONE names, but change none that one
names.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from gentrain.errors import TakenOverError
from gentrain.store.conditional import ConditionalObjects, Versioned, compare_and_swap
from gentrain.store.done import DONE, Done
from gentrain.store.folder import Folder

RECORD = "record.json"
OWNER = "owner"
"""File of a training on a disk: the token of its last claim."""


class Claim(BaseModel):
    """The right to train a generation, as it is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str
    holder: str = ""
    """Who holds it, for people."""
    since: float = 0.0
    renewed: float = 0.0
    """Seconds since 1970, by the holder's clock."""
    renewals: Annotated[int, Field(ge=0)] = 0


class Record(BaseModel):
    """The content of record.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    term: Annotated[int, Field(ge=0)] = 0
    """Claims so far, this one included."""
    claim: Claim | None = None
    done: dict[str, Any] | None = None
    """`Done`, as JSON; what was finished stays until a later holder's replaces it."""

    @classmethod
    def parse(cls, content: bytes, *, key: str) -> Record | None:
        """Return the record in `content`; None where it is damaged or another generation's."""
        try:
            record = cls.model_validate_json(content)
        except ValueError:
            return None
        return record if record.key == key else None

    def encode(self) -> bytes:
        """Return the content of record.json."""
        return (self.model_dump_json(indent=2) + "\n").encode()

    def held_by(self, token: str | None) -> bool:
        """Return whether the claim is that of `token`; None: whether there is no claim."""
        return token == (self.claim.token if self.claim else None)


class GenerationRecord(Protocol):
    """The claim and DONE of one generation."""

    checksum_names: bool
    """Whether its files' names carry their checksums."""

    def done(self) -> tuple[str, Done | None] | None:
        """Return the name of the file that holds DONE, and the record in it if it is valid; None: not finished."""

    def write_done(self, done: Done, *, token: str | None) -> None:
        """Record a finished generation.

        Args:
            done: the record.
            token: of the writer's claim; None where it has none, and nobody else may have one.

        Raises:
            TakenOverError: when another has the claim.
        """

    def amend_done(self, before: Done, after: Done) -> bool:
        """Replace a valid record by one that covers more; return False where another is there by now."""

    def retract(self) -> None:
        """Forget that the generation is finished, before its files are deleted; hold its claim."""

    def check(self, token: str) -> None:
        """Raise TakenOverError when another has the claim."""


class DoneFile:
    """DONE.json and the owner's token as files: on a disk under the folder's lock.

    On an object store without conditional writes nothing keeps two writers apart: the last one wins.
    """

    checksum_names = False

    def __init__(self, folder: Folder, key: str) -> None:
        self._folder, self._key = folder, key

    def done(self) -> tuple[str, Done | None] | None:
        """See `GenerationRecord.done`."""
        content = self._folder.read(DONE)
        return None if content is None else (DONE, Done.parse(content, key=self._key))

    def write_done(self, done: Done, *, token: str | None) -> None:
        """See `GenerationRecord.write_done`."""
        if token is not None:
            self.check(token)
        self._folder.write_json(DONE, done.model_dump())

    def amend_done(self, before: Done, after: Done) -> bool:
        """See `GenerationRecord.amend_done`."""
        self._folder.write_json(DONE, after.model_dump())
        return True

    def retract(self) -> None:
        """See `GenerationRecord.retract`."""
        self._folder.delete(DONE)

    def claim(self, token: str) -> None:
        """Take the folder over; hold its lock."""
        (self._folder / "train").write(OWNER, token.encode())

    def check(self, token: str) -> None:
        """See `GenerationRecord.check`."""
        if (self._folder / "train").read(OWNER) != token.encode():
            raise taken_over(self._folder)


class SwappedRecord:
    """record.json on a store with conditional writes; every change is a compare-and-swap.

    A generation of a version before has DONE.json and no record.json: it is read, and stays valid.
    """

    checksum_names = True

    def __init__(
        self, folder: Folder, key: str, objects: ConditionalObjects, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.folder, self.key, self._objects, self._sleep = folder, key, objects, sleep
        self._path = f"{folder}/{RECORD}"
        self._done_file = DoneFile(folder, key)

    def done(self) -> tuple[str, Done | None] | None:
        """See `GenerationRecord.done`."""
        versioned = self._objects.read(self._path)
        if versioned is not None:
            record = Record.parse(versioned.content, key=self.key)
            if record is None:
                return RECORD, None
            if record.done is not None:
                return RECORD, Done.of_mapping(record.done, key=self.key)
        return self._done_file.done()

    def write_done(self, done: Done, *, token: str | None) -> None:
        """See `GenerationRecord.write_done`."""
        finished = _as_json(done)

        def change(record: Record, _: str) -> Record | None:
            if record.done == finished:
                return None  # by a write of this one that wasn't answered
            if not record.held_by(token):
                raise taken_over(self.folder, record.claim)
            return record.model_copy(update={"done": finished})

        self.update(change)

    def amend_done(self, before: Done, after: Done) -> bool:
        """See `GenerationRecord.amend_done`."""
        amended = _as_json(after)

        def change(record: Record, _: str) -> Record | None:
            if record.done is None:
                _, there = self._done_file.done() or (DONE, None)
            else:
                there = Done.of_mapping(record.done, key=self.key)
            return record.model_copy(update={"done": amended}) if there == before else None

        return self.update(change).done == amended

    def retract(self) -> None:
        """See `GenerationRecord.retract`."""
        self._done_file.retract()
        self.update(lambda record, _: record.model_copy(update={"done": None}) if record.done else None)

    def check(self, token: str) -> None:
        """See `GenerationRecord.check`."""
        record = self.read()
        if not record.held_by(token):
            raise taken_over(self.folder, record.claim)

    def read(self) -> Record:
        """Return the record; an empty one where there is none or it is damaged."""
        return self._parse(self._objects.read(self._path))

    def update(self, change: Callable[[Record, str], Record | None]) -> Record:
        """Replace the record by what `change` makes of it and its ETag; return the record that stands.

        See `compare_and_swap` for what `change` must bear.
        """

        def encoded(before: Versioned | None) -> bytes | None:
            record = change(self._parse(before), before.etag if before else "")
            return None if record is None else record.encode()

        return self._parse(compare_and_swap(self._objects, self._path, encoded, sleep=self._sleep))

    def _parse(self, versioned: Versioned | None) -> Record:
        record = None if versioned is None else Record.parse(versioned.content, key=self.key)
        return record or Record(key=self.key)


def taken_over(folder: Folder, claim: Claim | None = None) -> TakenOverError:
    """Return the error of a holder that has lost its claim to another's."""
    by = claim.holder if claim and claim.holder else "another process"
    return TakenOverError(
        f"{folder}: {by} has taken this generation over; this one stops; run its command again to go on"
    )


def _as_json(done: Done) -> dict[str, Any]:
    mapping: dict[str, Any] = json.loads(json.dumps(done.model_dump()))
    return mapping
