"""The registry of a sweep: an actor on the head that gives out turns, and a chain's side of it."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray

from gentrain.cluster.progress import Every
from gentrain.errors import GentrainError, TakenOverError
from gentrain.run.leases import LEASE_SECONDS, Admission, Answer, take_turn
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec

RENEW_SECONDS = LEASE_SECONDS / 10


class Registry:
    """`Admission` as an actor. It is restarted when it dies, and learns from the holders what it knew."""

    def __init__(self, priorities: Mapping[str, float], slots: int) -> None:
        again = ray.get_runtime_context().was_current_actor_reconstructed
        self._admission = Admission(priorities, slots=slots, recovering=again)

    def request(self, key: str, holder: str) -> Answer:
        """See `Admission.request`."""
        return self._admission.request(key, holder, time.monotonic())

    def renew(self, key: str, holder: str) -> bool:
        """See `Admission.renew`."""
        return self._admission.renew(key, holder, time.monotonic())

    def release(self, key: str, holder: str, finished: bool, reason: str) -> None:
        """See `Admission.release`."""
        self._admission.release(key, holder, finished=finished, reason=reason)

    def reopen(self, key: str) -> None:
        """See `Admission.reopen`."""
        self._admission.reopen(key)

    def reason(self, key: str) -> str:
        """See `Admission.reason`."""
        return self._admission.reason(key)

    def held(self) -> dict[str, str]:
        """See `Admission.held`."""
        return self._admission.held

    def set_slots(self, slots: int) -> None:
        """Follow a cluster that grew or shrank."""
        self._admission.slots = slots


def start_registry(priorities: Mapping[str, float], slots: int, *, name: str) -> Any:
    """Start the registry on the head node, by a name for the dashboard."""
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "resources": {"node:__internal_head__": 1e-3}}
    return ray.remote(name=name, **options)(Registry).remote(dict(priorities), slots)


class Turns:
    """How a chain of a sweep waits for its turn at a generation: see `gentrain.run.chain.Runner.turn`."""

    def __init__(self, registry: Any, store: RunStore, *, chain: str) -> None:
        self._registry, self._store = registry, store
        self._holder = f"{chain} {uuid.uuid4().hex[:8]}"

    @contextlib.contextmanager
    def __call__(self, spec: GenerationSpec, *, waiting: Callable[[], None]) -> Iterator[None]:
        """Wait until `spec` is this chain's to train, or finished by another, and hold it for the block."""
        folder = self._store.generation(spec.key)
        if not take_turn(self._ask, spec.key, sound=lambda: folder.inspect().valid, waiting=waiting):
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
        return ray.get(getattr(self._registry, question).remote(key, *holder, *arguments))

    @contextlib.contextmanager
    def _renewing(self, key: str) -> Iterator[None]:

        def renew() -> None:
            self._ask("renew", key)

        with Every(RENEW_SECONDS, renew):
            yield
