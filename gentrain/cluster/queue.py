"""What passes between a chain and its workers, and between a sweep and its trials: an actor holds it.

Events and errors go to the process that shows them, and the next generation goes to a worker group that has finished
one. The actor may die and be started again without what it held; both sides repeat their questions.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gentrain.errors import GentrainError
from gentrain.events import Event, Observer

POLL_SECONDS = 0.25
Standing = Literal["open", "done", "left"]
"""How a job stands: the worker group has it or may take it, has finished it, or has left without it."""


@dataclass(frozen=True)
class PostedJob:
    """Passes a job through the queue, whose process needn't import what it is made of."""

    token: str
    """Of the claim under which it is trained."""
    job: Any
    """Ray's reference to it."""


class EventQueue:
    """Events in order of arrival, how chains ended, and the job of a chain's worker group."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Event | GentrainError]] = []
        self._ended: dict[str, GentrainError | None] = {}
        self._group = ""
        self._job: PostedJob | None = None
        self._done = ""
        """Token of the job that the group has finished last."""
        self._starts = 0
        """How often the group's first worker has begun: more than once where Ray Train has started the group again."""
        self._closed = False

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

    def offer(self, group: str, job: PostedJob) -> tuple[list[Event | GentrainError], Standing]:
        """Give a worker group a job, unless it has it; return the job's events since the last call, and how it stands.

        The chain repeats the call until the job is done, so that a queue that was started again knows it, too.
        """
        if group != self._group:
            self._group, self._job, self._done, self._starts, self._closed = group, None, "", 0, False
        if not self._closed:
            self._job = job
        standing: Standing = "done" if job.token == self._done else "left" if self._closed else "open"
        return self.drain(job.token), standing

    def take(self, group: str, done: str, *, last: bool) -> PostedJob | Literal["wait", "leave"]:
        """Return what a worker group does next: a job, ask again, or give its devices back.

        A group that Ray Train has started again does the job that it was in, and then leaves: each generation has all
        restarts of `MAX_FAILURES`.

        Args:
            group: its name; the group of an earlier offer leaves.
            done: token of the job that it has finished, "" where it has just been started.
            last: whether it leaves where there is no job.
        """
        if self._group not in ("", group) or self._closed:
            return "leave"
        self._group = group
        self._done = done or self._done
        self._starts += not done
        if self._job is not None and self._job.token != self._done:
            return self._job
        self._closed = last or (self._starts > 1 and self._job is not None)
        return "leave" if self._closed else "wait"

    def close(self, group: str) -> None:
        """Let a worker group that has done its job leave."""
        if self._group in ("", group):
            self._group, self._closed = group, True


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
    """Passes the events of a queue to an observer while the block runs."""

    def __init__(self, queue: Any, observe: Observer) -> None:
        super().__init__(POLL_SECONDS, self._fetch)
        self._queue, self._observe = queue, observe

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        with contextlib.suppress(ray.exceptions.RayError):  # only lines of the view are lost; results are in the store
            self._fetch()

    def _fetch(self) -> None:
        for event in ray.get(self._queue.drain.remote(), timeout=10):
            self._observe(event)
