"""The lease table: who may train which generation on the devices there are.

Pure bookkeeping, without Ray, clocks or threads; `gentrain.cluster.leases` puts it into an actor, and the simulation
in `tests/run/test_leases.py` drives it with a simulated clock. A chain asks again and again until it gets the lease
and renews it at intervals, so the lease of a chain that died lapses. A chain holds no device while it waits, so no two
chains can wait for each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gentrain.errors import TrainingError

Answer = Literal["train", "look", "wait", "failed"]
LEASE_SECONDS = 20.0
"""A lease that wasn't renewed for so long lapses; its holder is taken for dead."""
POLL_SECONDS = (0.25, 2.0)
"""Between two questions of one that waits: at first, and when it has waited for long."""
POLL_GROWTH = 1.2
FRESH_SECONDS = 2.5 * POLL_SECONDS[1]
"""One that hasn't asked for so long is not waiting any more."""


@dataclass
class _Lease:
    holder: str
    renewed: float


class LeaseTable:
    """The table of leases: one training a key, as many at once as the devices hold, the most urgent first.

    Args:
        priorities: urgency of every key, by convention the work that waits for it; others count as 0.
        slots: trainings that the devices hold at once.
        recovering: when what was known before was lost: nothing is granted for as long as a lease lasts, so that those
            who hold one can say so.
    """

    def __init__(self, priorities: Mapping[str, float], *, slots: int, recovering: bool = False) -> None:
        self.priorities = priorities
        self.slots = slots
        self._recovering = recovering
        self._until: float | None = None
        self._leases: dict[str, _Lease] = {}
        self._asked: dict[str, float] = {}
        self._finished: set[str] = set()
        self._failed: dict[str, str] = {}

    def request(self, key: str, holder: str, now: float) -> Answer:
        """Ask for the right to train `key`; "look": it is finished, so the store has it; "failed": see `reason`."""
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
        self._leases[key] = _Lease(holder, now)
        return "train"

    def renew(self, key: str, holder: str, now: float) -> bool:
        """Say that `holder` is alive and trains `key`; False when the lease has lapsed and is another's now."""
        if key in self._finished:
            return False
        lease = self._leases.setdefault(key, _Lease(holder, now))
        if lease.holder != holder:
            return False
        lease.renewed = now
        return True

    def release(self, key: str, holder: str, *, finished: bool, reason: str = "") -> None:
        """Give the lease back.

        Args:
            key: of the generation.
            holder: of the lease; another's is left as it is.
            finished: whether the generation is in the store, whole and verified.
            reason: why it can't be trained, if it failed for good: nobody else needs to find that out again.
        """
        if reason:
            self._failed[key] = reason
            self._asked.pop(key, None)
        if finished:
            self._finished.add(key)
            self._asked.pop(key, None)
        if (lease := self._leases.get(key)) is not None and lease.holder == holder:
            del self._leases[key]

    def reopen(self, key: str) -> None:
        """Take back that `key` is finished: what the store has of it is damaged."""
        self._finished.discard(key)

    def reason(self, key: str) -> str:
        """Return why `key` failed."""
        return self._failed[key]

    @property
    def held(self) -> dict[str, str]:
        """Holders by the keys that are being trained."""
        return {key: lease.holder for key, lease in self._leases.items()}

    def _lapse(self, now: float) -> None:
        for key in [key for key, lease in self._leases.items() if now - lease.renewed > LEASE_SECONDS]:
            del self._leases[key]

    def _recovers(self, now: float) -> bool:
        if self._recovering and self._until is None:
            self._until = now + LEASE_SECONDS
        return self._until is not None and now < self._until

    def _ahead(self, key: str, now: float) -> int:
        """Return how many others wait for a device and are more urgent; equals in the order of their keys."""
        mine = (-self.priorities.get(key, 0.0), key)
        gone = [other for other, asked in self._asked.items() if now - asked > FRESH_SECONDS]
        for other in gone:
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
    """Ask until this chain holds the lease (True), or until the generation is there, whole and verified (False).

    Raises:
        TrainingError: when another chain found that it can't be trained, with the reason.
    """
    told, pause = False, POLL_SECONDS[0]
    answer: Answer
    while (answer := ask("request", key)) != "train":
        if answer == "failed":
            raise TrainingError(ask("reason", key))
        if answer == "look":
            if valid():
                return False
            ask("reopen", key)
            continue
        if not told:
            waiting()
            told = True
        sleep(pause)
        pause = min(pause * POLL_GROWTH, POLL_SECONDS[1])
    return True
