"""How far a study is, read from the store alone: no Ray, no torch."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import yaml

from gentrain.errors import ConfigError, StoreError
from gentrain.store.generation import DONE, Done
from gentrain.store.run import RunStore
from gentrain.study.loading import parse_study
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


@dataclass(frozen=True)
class StudyStatus:
    """A study: its chains and their generations."""

    name: str
    epochs: int
    chains: dict[str, tuple[GenerationStatus, ...]]
    failures: dict[str, str]
    """Why chains could not be finished when they were last run."""


def study_names(store: RunStore) -> list[str]:
    """Return the names of the studies in the run folder."""
    return (store.root / "studies").names()


def recorded_study(store: RunStore, name: str) -> Study:
    """Return a study as its last run resolved it.

    Raises:
        ConfigError: when there is no such study, naming the nearest and those there are.
        StoreError: when its record is damaged.
    """
    folder = store.study(name)
    content = folder.read("study.yaml")
    if content is None:
        known = study_names(store)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{name}: no such study in {store.root}; {hint}there: {', '.join(known) or 'none'}")
    try:
        mapping = yaml.safe_load(content)
    except yaml.YAMLError:
        mapping = None
    if not isinstance(mapping, dict):
        raise StoreError(f"{folder}/study.yaml: damaged; run the study again to restore it")
    return parse_study(mapping, where=f"{folder}/study.yaml")


def study_status(store: RunStore, name: str) -> StudyStatus:
    """Return the state of every generation of every chain; records are read, files are not verified.

    Raises:
        ConfigError, StoreError: see `recorded_study`.
    """
    study = recorded_study(store, name)
    folder = store.study(name) / "chains"
    chains, failures = {}, {}
    for file in folder.names():
        try:
            entry = json.loads(folder.read(file) or b"{}")
            cells = [_generation(store, g, key) for g, key in enumerate(entry["keys"])]
        except (ValueError, KeyError, TypeError):
            raise StoreError(f"{folder}/{file}: damaged; run the study again to restore it") from None
        if entry.get("failed"):
            failures[entry["name"]] = entry["failed"]
        chains[entry["name"]] = _ended(
            cells, study, failed=bool(entry.get("failed")), stopped=bool(entry.get("stopped"))
        )
    return StudyStatus(study.name, study.recipe.epochs, chains, failures)


def _ended(
    cells: Sequence[GenerationStatus], study: Study, *, failed: bool, stopped: bool
) -> tuple[GenerationStatus, ...]:
    """Mark what will not be trained, and why."""
    found: list[GenerationStatus] = []
    verdict: State | None = None
    validation: list[float] = []
    for cell in cells:
        if verdict and cell.state in ("waiting", "interrupted"):
            found.append(replace(cell, state=verdict))
            continue
        found.append(cell)
        validation += [] if cell.validation_error is None else [cell.validation_error]
        if cell.state == "done" and saturated(validation, patience=study.patience):
            verdict = "saturated"
    missing = next((i for i, cell in enumerate(found) if cell.state in ("waiting", "interrupted")), None)
    if missing is not None and failed:
        found[missing] = replace(found[missing], state="failed")
    elif missing is not None and stopped and study.scheduler.name != "fifo":
        found[missing:] = [replace(cell, state="stopped") for cell in found[missing:]]
    return tuple(found)


def _generation(store: RunStore, generation: int, key: str) -> GenerationStatus:
    folder = store.generation(key)
    state: State
    epoch, error, validation = folder.newest_epoch(), None, None
    if (content := folder.read(DONE)) is not None:
        done = Done.parse(content, key=key)
        state = "damaged" if done is None else "done"
        if done is not None:
            error = done.scores["top1_error"]
            validation = done.validation_scores["top1_error"] if done.validation_scores else None
    elif folder.at_work():
        state = "running"
    else:
        state = "interrupted" if epoch else "waiting"
    return GenerationStatus(generation, key, state, epoch, error, validation)
