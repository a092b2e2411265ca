"""From workers to the driver: a small actor that holds events until the driver fetches them."""

from __future__ import annotations

import threading
from typing import Any

import ray

from gentrain.errors import GentrainError
from gentrain.events import Event, Observer

POLL_SECONDS = 0.25


class ProgressBoard:
    """Events in order: those who work post, the driver drains."""

    def __init__(self) -> None:
        self._events: list[Event | GentrainError] = []
        self._failures: dict[str, str] = {}

    def post(self, event: Event | GentrainError) -> None:
        """Add an event, or the error that ended the training."""
        self._events.append(event)

    def fail(self, chain: str, reason: str) -> None:
        """Note why a chain ended early."""
        self._failures[chain] = reason

    def failures(self) -> dict[str, str]:
        """Return why chains ended early, by name."""
        return self._failures

    def drain(self) -> list[Event | GentrainError]:
        """Return what came since the last call."""
        events, self._events = self._events, []
        return events


class Listener:
    """Passes a board's events on to an observer while the block runs; keeps a posted error for afterwards."""

    def __init__(self, board: Any, observe: Observer) -> None:
        self._board, self._observe = board, observe
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gentrain-progress", daemon=True)
        self.error: GentrainError | None = None

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._fetch()

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._fetch()

    def _fetch(self) -> None:
        try:
            events = ray.get(self._board.drain.remote(), timeout=10)
        except ray.exceptions.RayError:
            return  # the view misses some lines; the store is the truth
        for event in events:
            if isinstance(event, GentrainError):
                self.error = event
            else:
                self._observe(event)
