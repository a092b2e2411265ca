"""Events from workers and trials to the process that shows them: an actor holds them until they are fetched."""

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
    """Events in order of arrival, and how chains ended; workers and trials write, one `Listener` reads."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Event | GentrainError]] = []
        self._ended: dict[str, GentrainError | None] = {}

    def post(self, event: Event | GentrainError, attempt: str = "") -> None:
        """Add an event, or the error that ended a training.

        Args:
            event: what happened.
            attempt: the claim under which the worker trains, where one queue serves several trainings.
        """
        self._events.append((attempt, event))

    def drain(self, attempt: str = "") -> list[Event | GentrainError]:
        """Return all events since the last call; those of other attempts, whose workers came too late, are dropped."""
        events, self._events = self._events, []
        return [event for origin, event in events if origin == attempt]

    def end(self, chain: str, error: GentrainError | None) -> None:
        """Note that a chain has ended: with this error, or finished."""
        self._ended[chain] = error

    def ended(self) -> dict[str, GentrainError | None]:
        """Return how chains ended, by their names; those that still run are not in it."""
        return self._ended


def start_event_queue(name: str) -> Any:
    """Start an event queue on the caller's node, and return its handle; `name` is shown on Ray's dashboard.

    On the node of its reader it isn't lost with another one. If its process dies, Ray starts an empty queue in its
    place, and events that weren't fetched are lost.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(name=name, **options)(EventQueue).remote()


class Periodic:
    """Calls `action` every so many seconds in a thread while the block runs; errors of Ray's are ignored."""

    def __init__(self, seconds: float, action: Callable[[], None]) -> None:
        self._seconds, self._action = seconds, action
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gentrain-periodic", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            with contextlib.suppress(ray.exceptions.RayError):  # an actor that restarts answers the next call
                self._action()


class Listener(Periodic):
    """Passes the events of a queue to an observer while the block runs; `error` is the last error posted, if any."""

    def __init__(self, queue: Any, observe: Observer, *, attempt: str = "") -> None:
        super().__init__(POLL_SECONDS, self._fetch)
        self._queue, self._observe, self._attempt = queue, observe, attempt
        self.error: GentrainError | None = None

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        with contextlib.suppress(ray.exceptions.RayError):  # only lines of the view are lost; results are in the store
            self._fetch()

    def _fetch(self) -> None:
        for event in ray.get(self._queue.drain.remote(self._attempt), timeout=10):
            if isinstance(event, GentrainError):
                self.error = event
            else:
                self._observe(event)
