"""Give a run's events to one sink in a thread, so that a slow tracker delays nothing and a broken one ends nothing."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gentrain.errors import cut, first_line
from gentrain.events import ChainStarted, EpochDone, Event, GenerationDone, GenerationStarted, InChain, Note, Observer
from gentrain.trackers.ledger import DONE, Ledger
from gentrain.trackers.sink import Sink, Training, Values, run_name

CLOSE_SECONDS = 30.0
"""How long the end of a run waits for what a tracker hasn't written yet."""
MOST_WAITING = 10_000
"""Events that wait for a tracker; what comes on top is dropped, and written when its generation ends, or next time."""
Epochs = Callable[[str], Sequence[Mapping[str, Any]]]
"""Returns the rows of epochs.parquet of a finished generation by its key; none where they can't be read."""
_TAKEN = ChainStarted | GenerationStarted | EpochDone | GenerationDone


class Feed:
    """Passes events on to one sink: an observer that returns at once.

    What the sink has got stands in a ledger, so each epoch goes there once, whatever is killed and run again. When a
    generation ends, the sink gets the epochs that it missed: the tracker was down, or another process trained it.

    Args:
        name: of the tracker.
        sink: to write to.
        ledger: of what it has got.
        study: name of the study.
        epochs: reads the epochs of a finished generation.
        observe: gets the one line about a tracker that fails.
    """

    def __init__(self, name: str, sink: Sink, *, ledger: Ledger, study: str, epochs: Epochs, observe: Observer) -> None:
        self._name, self._sink, self._ledger, self._study = name, sink, ledger, study
        self._epochs, self._observe = epochs, observe
        self._chains: dict[str, ChainStarted] = {}
        self._chain = ""  # of events without a chain's name: the only one
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"gentrain-{name}", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Queue an event; never waits."""
        inner = event.event if isinstance(event, InChain) else event
        if not self._ended and isinstance(inner, _TAKEN) and self._queue.qsize() < MOST_WAITING:
            self._queue.put(event)

    def close(self) -> None:
        """Wait until the sink has got all events, `CLOSE_SECONDS` at most."""
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._give_up(f"no answer for {CLOSE_SECONDS:.0f} s, {self._queue.qsize()} entries wait")

    def _run(self) -> None:
        try:
            while (event := self._queue.get()) is not None:
                self._take(event)
            self._sink.close()
        except Exception as error:  # whatever a tracker raises is no reason to end a training
            self._give_up(f"{type(error).__name__}: {cut(first_line(error))}")

    def _give_up(self, problem: str) -> None:
        if not self._ended:
            self._ended = True
            text = f"tracker {self._name}: {problem}; training goes on, and the next run writes what is missing there"
            self._observe(Note(text, "warning"))

    def _take(self, event: Event) -> None:
        chain, inner = (event.chain, event.event) if isinstance(event, InChain) else (self._chain, event)
        if isinstance(inner, ChainStarted):
            self._chain = inner.chain
            self._chains[inner.chain] = inner
        elif isinstance(inner, EpochDone | GenerationDone) and chain in self._chains:
            training = self._training(self._chains[chain], inner.generation)
            written = self._ledger.has(training)
            if isinstance(inner, EpochDone):
                self._write_epochs(training, [inner.row], written)
            elif DONE not in written:
                rows = self._epochs(training.key)
                self._write_epochs(training, rows, written)
                self._sink.done(training, max((row["epoch"] for row in rows), default=0), _numbers(inner.row))
                self._ledger.add(training, DONE)

    def _write_epochs(self, training: Training, rows: Sequence[Mapping[str, Any]], written: frozenset[int]) -> None:
        for row in rows:
            if row["epoch"] not in written:
                self._sink.epoch(training, row["epoch"], _numbers(row))
                self._ledger.add(training, row["epoch"])

    def _training(self, start: ChainStarted, generation: int) -> Training:
        teachers = start.teachers[generation] if start.teachers else ()
        return Training(
            study=self._study,
            chain=start.chain,
            generation=generation,
            key=start.keys[generation],
            teachers=tuple(run_name(start.chain, teacher) for teacher in teachers),
            settings=start.settings,
        )


_NAMES = frozenset({"epoch", "generation", "seed", "workers", "images"})
"""Columns of numbers that are no measurements."""


def _numbers(row: Mapping[str, Any]) -> Values:
    """Return what was measured, by column."""
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float) and name not in _NAMES}
