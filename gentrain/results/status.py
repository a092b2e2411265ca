"""How far a study is, read from the store alone: no Ray, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gentrain.errors import StoreError
from gentrain.store.done import DONE
from gentrain.store.generation import unvouched
from gentrain.store.run import RunStore
from gentrain.store.study_record import recorded_chains, recorded_study
from gentrain.study.process import saturated
from gentrain.study.schema import Study

State = Literal["done", "running", "interrupted", "waiting", "failed", "stopped", "saturated", "damaged"]
"""interrupted: begun, and nobody trains it; stopped, saturated: not wanted any more (scheduler, patience)."""


@dataclass(frozen=True)
class GenerationStatus:
    """One generation of one chain."""

    generation: int
    key: str
    state: State
    epoch: int
    """Finished epochs, as its newest checkpoint tells."""
    top1_error: float | None
    validation_error: float | None = None
    epochs: int | None = None
    """Of its whole training; None for the study's."""


@dataclass(frozen=True)
class StudyStatus:
    """A study: its chains and their generations."""

    name: str
    epochs: int
    chains: dict[str, tuple[GenerationStatus, ...]]
    failures: dict[str, str]
    """Why chains could not be finished when they were last run."""
    notes: tuple[str, ...] = ()
    """A line for each record that is damaged: of a chain, which is left out, or of a generation."""


def study_status(store: RunStore, name: str) -> StudyStatus:
    """Return the state of every generation of every chain; records are read, files are not verified.

    Raises:
        ConfigError, StoreError: see `recorded_study` and `recorded_chains`.
    """
    study = recorded_study(store, name)
    notes: list[str] = []
    entries = recorded_chains(store, name, warn=notes.append)
    keys = dict.fromkeys(key for entry in entries.values() for key in entry.keys)
    begun = _begun(store)
    states = {
        key: _generation(store, key) if begun is None or key in begun else GenerationStatus(0, key, "waiting", 0, None)
        for key in keys
    }
    notes += [
        f"{store.generation(key)}: {DONE} is damaged or missing, so nothing vouches for the other files; run the study "
        "again: it trains the generation again"
        for key, state in states.items()
        if state.state == "damaged"
    ]
    chains = {
        entry.name: _ended(
            [
                replace(states[key], generation=place, epochs=(entry.settings or study).epochs_of(place))
                for place, key in enumerate(entry.keys)
            ],
            study,
            failed=entry.failed is not None,
            stopped=entry.stopped,
        )
        for entry in entries.values()
    }
    failures = {entry.name: entry.failed for entry in entries.values() if entry.failed is not None}
    return StudyStatus(study.name, study.recipe.epochs, chains, failures, tuple(notes))


def _ended(
    cells: Sequence[GenerationStatus], study: Study, *, failed: bool, stopped: bool
) -> tuple[GenerationStatus, ...]:
    """Mark what will not be trained, and why."""
    ended: list[GenerationStatus] = []
    verdict: State | None = None
    validation: list[float] = []
    for cell in cells:
        if verdict and cell.state in ("waiting", "interrupted"):
            ended.append(replace(cell, state=verdict))
            continue
        ended.append(cell)
        validation += [] if cell.validation_error is None else [cell.validation_error]
        if cell.state == "done" and saturated(validation, patience=study.patience):
            verdict = "saturated"
    missing = next((i for i, cell in enumerate(ended) if cell.state in ("waiting", "interrupted")), None)
    if missing is not None and failed:
        ended[missing] = replace(ended[missing], state="failed")
    elif missing is not None and stopped and study.scheduler.name != "fifo":
        ended[missing:] = [replace(cell, state="stopped") for cell in ended[missing:]]
    return tuple(ended)


def _begun(store: RunStore) -> frozenset[str] | None:
    """Return the keys of the generations of which there is anything, by one listing; None where that can't be had."""
    try:
        return frozenset((store.root / "generations").names())
    except StoreError:
        return None


def _generation(store: RunStore, key: str) -> GenerationStatus:
    """Return the state of one generation, whatever its place in a chain."""
    folder = store.generation(key)
    state: State
    epoch, error, validation = folder.newest_epoch(), None, None
    if (record := folder.record.done()) is not None:
        _, done = record
        state = "damaged" if done is None else "done"
        if done is not None:
            error = done.scores["top1_error"]
            validation = done.validation_scores["top1_error"] if done.validation_scores else None
    elif folder.at_work():
        state = "running"
    elif not epoch and unvouched(folder):
        state = "damaged"
    else:
        state = "interrupted" if epoch else "waiting"
    return GenerationStatus(0, key, state, epoch, error, validation)
