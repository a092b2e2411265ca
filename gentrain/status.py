"""How far a study is, read from the store alone: no Ray, no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import yaml
from pydantic import ValidationError

from gentrain.config import Study, parse_study
from gentrain.errors import ConfigError
from gentrain.process import saturated
from gentrain.store import DONE, Done, RunStore

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


def study_status(store: RunStore, name: str) -> StudyStatus:
    """Return the state of every generation of every chain; records are read, files are not verified.

    Raises:
        ConfigError: when there is no such study, naming those there are.
    """
    folder = store.study(name)
    content = folder.read("study.yaml")
    if content is None:
        known = ", ".join(study_names(store)) or "none"
        raise ConfigError(f"{name}: no such study in {store.root}; there: {known}")
    study = parse_study(yaml.safe_load(content), where=f"{folder}/study.yaml")
    chains, failures = {}, {}
    for file in (folder / "chains").names():
        entry = json.loads((folder / "chains").read(file) or b"{}")
        cells = [_generation(store, g, key) for g, key in enumerate(entry["keys"])]
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
    if (content := folder.folder.read(DONE)) is not None:
        try:
            done = Done.model_validate_json(content)
            error, state = done.scores["top1_error"], "done"
            validation = done.validation_scores["top1_error"] if done.validation_scores else None
        except (ValidationError, KeyError):
            state = "damaged"
    elif folder.at_work():
        state = "running"
    else:
        state = "interrupted" if epoch else "waiting"
    return GenerationStatus(generation, key, state, epoch, error, validation)
