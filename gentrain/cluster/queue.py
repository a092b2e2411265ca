"""From workers to the driver: a small actor that holds events until the driver fetches them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gentrain.errors import GentrainError
from gentrain.events import Event, Observer

POLL_SECONDS = 0.25


class EventQueue:
    """Events in order: those who work post, the driver drains."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Event | GentrainError]] = []
        self._ended: dict[str, GentrainError | None] = {}

    def post(self, event: Event | GentrainError, attempt: str = "") -> None:
        """Add an event, or the error that ended the training: of this attempt, where a queue serves several."""
        self._events.append((attempt, event))

    def end(self, chain: str, error: GentrainError | None) -> None:
        """Note that a chain has ended: with this error, or finished."""
        self._ended[chain] = error

    def ended(self) -> dict[str, GentrainError | None]:
        """Return how chains ended, by their names; those that are still running aren't in it."""
        return self._ended

    def drain(self, attempt: str = "") -> list[Event | GentrainError]:
        """Return what came since the last call; what a worker of another attempt had left to say is dropped."""
        events, self._events = self._events, []
        return [event for of, event in events if of == attempt]


def start_event_queue(name: str) -> Any:
    """Start an event queue on the node of the caller, who alone reads it, by a name for the dashboard.

    So it's lost with another node never; should its process die, a new one takes its place and some lines are missed.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(name=name, **options)(EventQueue).remote()


class Periodic:
    """Calls `action` every so many seconds while the block runs, in a thread; a Ray that is gone is no error."""

    def __init__(self, seconds: float, action: Callable[[], None]) -> None:
        self._seconds, self._action = seconds, action
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gentrain-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            with contextlib.suppress(ray.exceptions.RayError):
                self._action()


class Listener(Periodic):
    """Passes a queue's events on to an observer while the block runs; keeps a posted error for afterwards."""

    def __init__(self, queue: Any, observe: Observer, *, attempt: str = "") -> None:
        super().__init__(POLL_SECONDS, self._fetch)
        self._queue, self._observe, self._attempt = queue, observe, attempt
        self.error: GentrainError | None = None

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        with contextlib.suppress(ray.exceptions.RayError):  # the view misses some lines; the store is the truth
            self._fetch()

    def _fetch(self) -> None:
        for event in ray.get(self._queue.drain.remote(self._attempt), timeout=10):
            if isinstance(event, GentrainError):
                self.error = event
            else:
                self._observe(event)
