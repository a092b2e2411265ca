"""The lease table: who may train which generation on the devices there are.

Pure bookkeeping, without Ray, clocks or threads; `gentrain.cluster.leases` puts it into an actor, and the simulation
in `tests/running/test_leases.py` drives it with a simulated clock. A chain asks again and again until it gets the lease
and renews it at intervals, so the lease of a chain that died lapses. A chain holds no device while it waits, so no two
chains can wait for each other.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from gentrain.errors import GentrainError, TakenOverError
from gentrain.store.claims import Waiting
from gentrain.store.generation import GenerationFolder
from gentrain.store.record import Claim

Answer = Literal["train", "look", "wait", "failed"]
LEASE_SECONDS = 20.0
"""A lease that isn't renewed for so long lapses: its holder counts as dead."""
POLL_SECONDS = (0.25, 2.0)
"""Pause between two requests of a chain that waits: at first, and at most."""
POLL_GROWTH = 1.2
FRESH_SECONDS = 2.5 * POLL_SECONDS[1]
"""A request that isn't repeated for so long counts no more."""


@dataclass
class _Grant:
    holder: str
    renewed: float


class LeaseTable:
    """Grants leases: one training a key, as many at once as the devices hold, the most urgent first.

    Times are seconds of the caller's clock, which must not run backwards.

    Args:
        priorities: urgency of every key, by convention the work that waits for it; keys that are missing count as 0.
        slots: trainings that the devices hold at once.
        recovering: whether an earlier table was lost: nothing is granted for `LEASE_SECONDS`, so that holders renew
            their leases first.
    """

    def __init__(self, priorities: Mapping[str, float], *, slots: int, recovering: bool = False) -> None:
        self.priorities = priorities
        self.slots = slots
        self._recovering = recovering
        self._until: float | None = None
        self._leases: dict[str, _Grant] = {}
        self._asked: dict[str, float] = {}
        self._finished: set[str] = set()
        self._failed: dict[str, GentrainError] = {}

    def request(self, key: str, holder: str, now: float) -> Answer:
        """Ask for the lease of `key`.

        Returns:
            "train": `holder` has the lease; "wait": ask again; "look": the generation is finished, read the store;
            "failed": it can't be trained, see `error`.
        """
        if key in self._finished:
            return "look"
        if key in self._failed:
            return "failed"
        self._lapse(now)
        lease = self._leases.get(key)
        if lease is not None:
            if lease.holder != holder:
                return "wait"
            lease.renewed = now
            return "train"
        self._asked[key] = now
        if self._recovers(now) or self._ahead(key, now) >= self.slots - len(self._leases):
            return "wait"
        del self._asked[key]
        self._leases[key] = _Grant(holder, now)
        return "train"

    def renew(self, key: str, holder: str, now: float) -> bool:
        """Prolong the lease of `key`; return False where it has lapsed and another holds it, or `key` is finished."""
        if key in self._finished:
            return False
        lease = self._leases.setdefault(key, _Grant(holder, now))
        if lease.holder != holder:
            return False
        lease.renewed = now
        return True

    def release(self, key: str, holder: str, *, finished: bool, error: GentrainError | None = None) -> None:
        """Give the lease back.

        Args:
            key: of the generation.
            holder: of the lease; another holder's lease stays as it is.
            finished: whether the generation is in the store, whole and verified.
            error: why it can't be trained, if it failed for good; every later request is answered with it.
        """
        if error is not None:
            self._failed[key] = error
            self._asked.pop(key, None)
        if finished:
            self._finished.add(key)
            self._asked.pop(key, None)
        if (lease := self._leases.get(key)) is not None and lease.holder == holder:
            del self._leases[key]

    def reopen(self, key: str) -> None:
        """Take back that `key` is finished: its files in the store are damaged."""
        self._finished.discard(key)

    def error(self, key: str) -> GentrainError:
        """Return why `key` can't be trained."""
        return self._failed[key]

    @property
    def held(self) -> dict[str, str]:
        """Holders by the keys of their leases."""
        return {key: lease.holder for key, lease in self._leases.items()}

    def _lapse(self, now: float) -> None:
        for key in [key for key, lease in self._leases.items() if now - lease.renewed > LEASE_SECONDS]:
            del self._leases[key]

    def _recovers(self, now: float) -> bool:
        if self._recovering and self._until is None:
            self._until = now + LEASE_SECONDS
        return self._until is not None and now < self._until

    def _ahead(self, key: str, now: float) -> int:
        """Return how many others wait that are more urgent, or as urgent with a smaller key."""
        mine = (-self.priorities.get(key, 0.0), key)
        expired = [other for other, asked in self._asked.items() if now - asked > FRESH_SECONDS]
        for other in expired:
            del self._asked[other]
        return sum((-self.priorities.get(other, 0.0), other) < mine for other in self._asked)


def acquire_lease(
    ask: Callable[..., Any],
    key: str,
    *,
    valid: Callable[[], bool],
    waiting: Callable[[], None],
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Ask for the lease of `key` until this chain holds it (True) or another has finished the generation (False).

    Args:
        ask: calls a method of the lease table by name, with the key.
        key: of the generation.
        valid: whether the store has the generation, whole and verified.
        waiting: called once when another chain trains it, or no device is free.
        sleep: waits for some seconds.

    Raises:
        GentrainError: the error of the chain that tried to train it and could not.
    """
    waits, pause = False, POLL_SECONDS[0]
    answer: Answer
    while (answer := ask("request", key)) != "train":
        if answer == "failed":
            raise ask("error", key)
        if answer == "look":
            if valid():
                return False
            ask("reopen", key)
            continue
        if not waits:
            waiting()
            waits = True
        sleep(pause)
        pause = min(pause * POLL_GROWTH, POLL_SECONDS[1])
    return True


@contextlib.contextmanager
def leased(
    ask: Callable[..., Any],
    folder: GenerationFolder,
    *,
    holder: str,
    renewing: Callable[[], AbstractContextManager[object]],
    waiting: Waiting,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Claim | None]:
    """Hold a generation's lease and its claim in the store for the block; yield None where it is finished by now.

    The lease keeps the chains of one sweep apart, the claim other sweeps on the same store. Where a sweep elsewhere has
    the claim, the lease is given back, so that this sweep's devices take other generations meanwhile, and asked for
    again after a pause.

    Args:
        ask: calls a method of the lease table by name, with the key.
        folder: of the generation.
        holder: names this chain to others.
        renewing: renews the lease while its block runs.
        waiting: called once for each reason to wait: with who has the claim, or with nothing.
        sleep: waits for some seconds.

    Raises:
        GentrainError: the error of the chain that tried to train it and could not.
    """
    reasons: set[str] = set()

    def wait_for(reason: str) -> None:
        if reason not in reasons:
            reasons.add(reason)
            waiting(reason)

    key, claimant, claim = folder.key, folder.claimant(holder), None
    while acquire_lease(ask, key, valid=lambda: folder.inspect().valid, waiting=lambda: wait_for(""), sleep=sleep):
        failure: GentrainError | None = None
        claim = None
        try:
            with renewing():
                claim = claimant.attempt(wait_for)
                if claim is not None:
                    with claimant.kept(claim):
                        yield claim
                    return
        except TakenOverError:
            raise  # the generation itself has not failed: another chain trains it
        except GentrainError as error:
            failure = error
            raise
        finally:
            ask("release", key, claim is not None and folder.inspect().valid, failure)
        sleep(POLL_SECONDS[1])
    yield None
