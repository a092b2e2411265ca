"""How far a study is, read from the store alone: no Ray, no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import yaml
from pydantic import ValidationError

from gentrain.config import parse_study
from gentrain.errors import ConfigError
from gentrain.store import DONE, Done, RunStore

State = Literal["done", "running", "interrupted", "waiting", "damaged"]


@dataclass(frozen=True)
class GenerationStatus:
    """One generation of one chain."""

    generation: int
    key: str
    state: State
    epoch: int
    """Finished epochs, as its newest checkpoint tells."""
    top1_error: float | None


@dataclass(frozen=True)
class StudyStatus:
    """A study: its chains and their generations."""

    name: str
    epochs: int
    chains: dict[str, tuple[GenerationStatus, ...]]


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
    chains = {}
    for file in (folder / "chains").names():
        record = json.loads((folder / "chains").read(file) or b"{}")
        chains[record["name"]] = tuple(_generation(store, g, key) for g, key in enumerate(record["keys"]))
    return StudyStatus(name=name, epochs=study.recipe.epochs, chains=chains)


def _generation(store: RunStore, generation: int, key: str) -> GenerationStatus:
    folder = store.generation(key)
    state: State
    epoch, error = folder.newest_epoch(), None
    if (content := folder.folder.read(DONE)) is not None:
        try:
            error, state = Done.model_validate_json(content).scores["top1_error"], "done"
        except (ValidationError, KeyError):
            state = "damaged"
    elif folder.lock_held():
        state = "running"
    else:
        state = "interrupted" if epoch else "waiting"
    return GenerationStatus(generation=generation, key=key, state=state, epoch=epoch, top1_error=error)
