"""Claims: who may train a generation, across all processes that share a store.

On a disk a claim is the folder's lock, which the kernel frees when its holder dies. On S3 it is a field of the
generation's record (`gentrain.store.record`): taken by compare-and-swap, renewed by its holder, and free to be taken
over when it wasn't renewed for `CLAIM_SECONDS`. Whoever waits measures that time with its own clock, so clocks of two
machines are never compared. A holder that was only asleep finds its writes refused.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Protocol

from gentrain.errors import StoreError
from gentrain.store import checkpoints
from gentrain.store.folder import Folder
from gentrain.store.record import Claim, DoneFile, Record, SwappedRecord, taken_over

CLAIM_SECONDS = 30.0
"""A claim whose record doesn't change for so long may be taken over."""
RENEW_SECONDS = CLAIM_SECONDS / 6
POLL_SECONDS = 2.0
"""Pause of those who wait for a claim."""

Waiting = Callable[[str], None]
"""Called with who has the claim, and since when, as text."""


class Claimant(Protocol):
    """One process's way to a generation's claim."""

    def attempt(self, waiting: Waiting) -> Claim | None:
        """Take the claim; None where another has it: try again. `waiting` is called once for each other holder."""

    def kept(self, claim: Claim) -> contextlib.AbstractContextManager[None]:
        """Keep the claim for the block, then give it back."""


class LockClaimant:
    """Claims by the folder's lock; `attempt` waits until it is free. Where there are no locks, nobody waits."""

    def __init__(self, folder: Folder, record: DoneFile, *, holder: str = "") -> None:
        self._folder, self._record, self._holder = folder, record, holder
        self._lock = contextlib.ExitStack()

    def attempt(self, waiting: Waiting) -> Claim:
        """See `Claimant.attempt`."""
        claim = Claim(token=uuid.uuid4().hex)
        with contextlib.ExitStack() as lock:
            lock.enter_context(
                self._folder.locked(waiting=lambda: waiting(self._folder.lock_holder()), holder=self._holder)
            )
            self._record.claim(claim.token)
            self._lock = lock.pop_all()
        return claim

    @contextlib.contextmanager
    def kept(self, claim: Claim) -> Iterator[None]:
        """See `Claimant.kept`."""
        with self._lock:
            yield


class RecordClaimant:
    """Claims by compare-and-swap on the generation's record.

    Args:
        record: of the generation.
        holder: who claims, for people.
        clock: this process's, in seconds; it must not run backwards.
    """

    def __init__(self, record: SwappedRecord, *, holder: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._record, self._holder, self._clock = record, holder, clock
        self._seen: tuple[str, float] | None = None
        """ETag of another's claim, and when it was first seen."""
        self._named = ""

    def attempt(self, waiting: Waiting) -> Claim | None:
        """See `Claimant.attempt`."""
        tokens: set[str] = set()
        """Of this attempt's writes: a new one each, so that none comes back after another holder."""

        def change(record: Record, etag: str) -> Record | None:
            if record.claim is not None and record.claim.token in tokens:
                return None  # by a write that wasn't answered
            if record.claim is not None and not self._lapsed(etag):
                return None
            now, token = time.time(), uuid.uuid4().hex
            tokens.add(token)
            claim = Claim(token=token, holder=self._holder, since=now, renewed=now)
            return record.model_copy(update={"term": record.term + 1, "claim": claim})

        record = self._record.update(change)
        claim = record.claim
        if claim is not None and claim.token in tokens:
            self._seen, self._named = None, ""
            return claim
        if claim is not None and claim.token != self._named:
            self._named = claim.token
            waiting(describe_claim(record))
        return None

    def renew(self, claim: Claim) -> None:
        """Show that the claim's holder is alive.

        Raises:
            TakenOverError: when another has the claim.
            StoreError: when the store doesn't answer.
        """

        def change(record: Record, _: str) -> Record:
            mine = record.claim
            if mine is None or mine.token != claim.token:
                raise taken_over(self._record.folder, mine)
            renewed = mine.model_copy(update={"renewals": mine.renewals + 1, "renewed": time.time()})
            return record.model_copy(update={"claim": renewed})

        self._record.update(change)

    def release(self, claim: Claim) -> None:
        """Give the claim back; another's stays."""
        self._record.update(
            lambda record, _: record.model_copy(update={"claim": None}) if record.held_by(claim.token) else None
        )

    @contextlib.contextmanager
    def kept(self, claim: Claim) -> Iterator[None]:
        """See `Claimant.kept`: a thread renews the claim meanwhile."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(RENEW_SECONDS):
                with contextlib.suppress(StoreError):  # its writes will be refused, or the store answers the next time
                    self.renew(claim)

        thread = threading.Thread(target=renew, name="gentrain-claim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with contextlib.suppress(StoreError):  # it lapses
                self.release(claim)

    def _lapsed(self, etag: str) -> bool:
        if self._seen is None or self._seen[0] != etag:
            self._seen = etag, self._clock()
        return self._clock() - self._seen[1] >= CLAIM_SECONDS


@contextlib.contextmanager
def claimed(claimant: Claimant, *, waiting: Waiting) -> Iterator[Claim]:
    """Wait until a generation is free, and hold its claim for the block.

    Args:
        claimant: this process's way to the claim.
        waiting: called with who has the claim, and since when, where it must be waited for.
    """
    while (claim := claimant.attempt(waiting)) is None:
        time.sleep(POLL_SECONDS)
    with claimant.kept(claim):
        yield claim


def at_work(folder: Folder, record: DoneFile | SwappedRecord) -> bool:
    """Return whether a generation seems to be trained.

    The lock is certain on the machine that holds it. On S3 the claim must have been renewed in the last two minutes,
    elsewhere the newest file of the training must be recent.
    """
    if folder.local:
        return folder.lock_held()
    if isinstance(record, SwappedRecord):
        claim = record.read().claim
        return claim is not None and time.time() - claim.renewed < checkpoints.RECENT_SECONDS
    return checkpoints.recent(folder / "train")


def describe_claim(record: Record) -> str:
    """Return who holds a record's claim, and since when."""
    claim = record.claim
    if claim is None:
        return ""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(claim.since))
    lapses = f"claim {record.term}; it lapses {CLAIM_SECONDS:.0f} s after its holder's end"
    return f"{claim.holder or 'another process'} since {since} ({lapses})"
