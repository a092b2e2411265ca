"""Learning curves as the store has them: epochs of finished generations, and of those that are trained now."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gentrain.results.status import GenerationStatus, StudyStatus
from gentrain.store.checkpoints import newest_rows
from gentrain.store.done import EPOCHS
from gentrain.store.folder import decode_table
from gentrain.store.run import RunStore


@dataclass(frozen=True)
class Curve:
    """The top-1 errors of a generation by epoch: on the test split, or in training where that isn't evaluated."""

    cell: GenerationStatus
    errors: tuple[float, ...]


class Curves:
    """Reads the curves of a study again and again; a finished generation's file is read once."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._finished: dict[str, tuple[float, ...]] = {}

    def of(self, status: StudyStatus) -> dict[str, tuple[Curve, ...]]:
        """Return the curves of each chain's generations that have any epochs; what can't be read is left out."""
        curves = {name: [Curve(cell, self._errors(cell)) for cell in chain] for name, chain in status.chains.items()}
        return {name: tuple(curve for curve in own if curve.errors) for name, own in curves.items()}

    def _errors(self, cell: GenerationStatus) -> tuple[float, ...]:
        if cell.key in self._finished:
            return self._finished[cell.key]
        folder = self._store.generation(cell.key)
        if cell.state != "done":
            return _errors(newest_rows(folder.train)) if cell.epoch else ()
        content = folder.read_intact(EPOCHS)
        with contextlib.suppress(ValueError, KeyError):  # no such table, though it has its checksum
            self._finished[cell.key] = _errors(decode_table(content) if content is not None else ())
        return self._finished.get(cell.key, ())


def _errors(rows: Iterable[Mapping[str, Any]]) -> tuple[float, ...]:
    """Return an error for each epoch; none where the test split was evaluated less often, but for its last."""
    rows = list(rows)
    tested: Sequence[float] = [row["test_error"] for row in rows if row["test_error"] is not None]
    return tuple(tested) if len(tested) == len(rows) else tuple(row["train_error"] for row in rows)
