"""Leases of a sweep: the lease table in an actor on the head, and a chain's side of it."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray

from gentrain.cluster.queue import Periodic
from gentrain.errors import GentrainError, TakenOverError
from gentrain.run.leases import LEASE_SECONDS, Answer, LeaseTable, acquire_lease
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec

RENEW_SECONDS = LEASE_SECONDS / 10


class LeaseActor:
    """`LeaseTable` as an actor. It is restarted when it dies, and learns from the holders what it knew."""

    def __init__(self, priorities: Mapping[str, float], slots: int) -> None:
        again = ray.get_runtime_context().was_current_actor_reconstructed
        self._table = LeaseTable(priorities, slots=slots, recovering=again)

    def request(self, key: str, holder: str) -> Answer:
        """See `LeaseTable.request`."""
        return self._table.request(key, holder, time.monotonic())

    def renew(self, key: str, holder: str) -> bool:
        """See `LeaseTable.renew`."""
        return self._table.renew(key, holder, time.monotonic())

    def release(self, key: str, holder: str, finished: bool, reason: str) -> None:
        """See `LeaseTable.release`."""
        self._table.release(key, holder, finished=finished, reason=reason)

    def reopen(self, key: str) -> None:
        """See `LeaseTable.reopen`."""
        self._table.reopen(key)

    def reason(self, key: str) -> str:
        """See `LeaseTable.reason`."""
        return self._table.reason(key)

    def held(self) -> dict[str, str]:
        """See `LeaseTable.held`."""
        return self._table.held

    def set_slots(self, slots: int) -> None:
        """Follow a cluster that grew or shrank."""
        self._table.slots = slots


def start_lease_actor(priorities: Mapping[str, float], slots: int, *, name: str) -> Any:
    """Start the lease actor on the head node; `name` is what the dashboard calls it."""
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "resources": {"node:__internal_head__": 1e-3}}
    return ray.remote(name=name, **options)(LeaseActor).remote(dict(priorities), slots)


class ChainLeases:
    """Asks the lease actor for one chain; a `gentrain.run.chain.Lease`."""

    def __init__(self, leases: Any, store: RunStore, *, chain: str) -> None:
        self._leases, self._store = leases, store
        self._holder = f"{chain} {uuid.uuid4().hex[:8]}"

    @contextlib.contextmanager
    def __call__(self, spec: GenerationSpec, *, waiting: Callable[[], None]) -> Iterator[None]:
        """Wait until `spec` is this chain's to train, or finished by another, and hold it for the block."""
        folder = self._store.generation(spec.key)
        if not acquire_lease(self._ask, spec.key, valid=lambda: folder.inspect().valid, waiting=waiting):
            yield
            return
        reason = ""
        try:
            with self._renewing(spec.key), folder.locked(waiting=waiting):
                yield
        except TakenOverError:
            raise
        except GentrainError as error:
            reason = str(error)
            raise
        finally:
            self._ask("release", spec.key, folder.inspect().valid, reason)

    def _ask(self, question: str, key: str, *arguments: Any) -> Any:
        holder = () if question in ("reopen", "reason") else (self._holder,)
        return ray.get(getattr(self._leases, question).remote(key, *holder, *arguments))

    @contextlib.contextmanager
    def _renewing(self, key: str) -> Iterator[None]:

        def renew() -> None:
            self._ask("renew", key)

        with Periodic(RENEW_SECONDS, renew):
            yield
