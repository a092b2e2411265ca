"""Leases of a sweep: the lease table in an actor on the head, and a chain's side of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import ray

from gentrain.cluster._compat import head_resource
from gentrain.cluster.queue import Periodic
from gentrain.errors import GentrainError
from gentrain.running.leases import LEASE_SECONDS, Answer, LeaseTable, leased
from gentrain.store.claims import Waiting
from gentrain.store.locks import name_holder
from gentrain.store.record import Claim
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec

RENEW_SECONDS = LEASE_SECONDS / 10


class LeaseActor:
    """A `LeaseTable` as an actor, with its own clock; Ray restarts it, and renewals fill the new table again."""

    def __init__(self, priorities: Mapping[str, float], slots: int) -> None:
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        self._table = LeaseTable(priorities, slots=slots, recovering=restarted)

    def request(self, key: str, holder: str) -> Answer:
        """See `LeaseTable.request`."""
        return self._table.request(key, holder, time.monotonic())

    def renew(self, key: str, holder: str) -> bool:
        """See `LeaseTable.renew`."""
        return self._table.renew(key, holder, time.monotonic())

    def release(self, key: str, holder: str, finished: bool, error: GentrainError | None) -> None:
        """See `LeaseTable.release`."""
        self._table.release(key, holder, finished=finished, error=error)

    def reopen(self, key: str) -> None:
        """See `LeaseTable.reopen`."""
        self._table.reopen(key)

    def error(self, key: str) -> GentrainError:
        """See `LeaseTable.error`."""
        return self._table.error(key)

    def held(self) -> dict[str, str]:
        """See `LeaseTable.held`."""
        return self._table.held

    def set_slots(self, slots: int) -> None:
        """Set how many trainings the devices hold, as the cluster grows or shrinks."""
        self._table.slots = slots


def start_lease_actor(priorities: Mapping[str, float], slots: int, *, name: str) -> Any:
    """Start the lease actor on the head node, and return its handle; `name` is shown on Ray's dashboard."""
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "resources": {head_resource(): 1e-3}}
    return ray.remote(name=name, **options)(LeaseActor).remote(dict(priorities), slots)


class ChainLeases:
    """Leases of one chain of a sweep, from the sweep's lease actor; implements `gentrain.running.chain.Lease`."""

    def __init__(self, actor: Any, store: RunStore, *, study: str, chain: str) -> None:
        self._actor, self._store, self._name = actor, store, f"{study}, {chain}"
        self._holder = f"{chain} {uuid.uuid4().hex[:8]}"

    def __call__(self, spec: GenerationSpec, *, waiting: Waiting) -> AbstractContextManager[Claim | None]:
        """See `gentrain.running.leases.leased`."""
        return leased(
            self._ask,
            self._store.generation(spec.key),
            holder=name_holder(self._name),
            renewing=lambda: Periodic(RENEW_SECONDS, lambda: self._ask("renew", spec.key)),
            waiting=waiting,
        )

    def _ask(self, question: str, key: str, *arguments: Any) -> Any:
        holder = () if question in ("reopen", "error") else (self._holder,)
        return ray.get(getattr(self._actor, question).remote(key, *holder, *arguments))
