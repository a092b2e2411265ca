"""A chain, patriarch to last student, as pure and idempotent logic over a runner; it decides and doesn't execute."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from gentrain.config import Study
from gentrain.ensemble import running_ensemble
from gentrain.errors import StoreError
from gentrain.events import (
    ChainSaturated,
    ChainStarted,
    GenerationDone,
    GenerationQueued,
    GenerationWaiting,
    Note,
    Observer,
)
from gentrain.lineage import Chain, GenerationSpec, StudentSpec
from gentrain.metrics import score
from gentrain.predictions import decode_predictions
from gentrain.process import saturated
from gentrain.store import EPOCHS, MODEL, PREDICTIONS, Done, Inspection, RunStore


class Turn(Protocol):
    """Waits for the right to train a generation, alone, and holds it for a block."""

    def __call__(self, spec: GenerationSpec, *, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Return the block's context manager; `waiting` is called when another is training `spec`."""


def turn_by_lock(store: RunStore) -> Turn:
    """Return turns by the lock of the generation's folder: enough where the store is one disk."""

    def turn(spec: GenerationSpec, *, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        return store.generation(spec.key).locked(waiting=waiting)

    return turn


class Runner(Protocol):
    """Trains one generation to its DONE, from nothing or from its newest checkpoint."""

    turn: Turn

    def run_generation(self, spec: GenerationSpec, *, weights_done: bool = False) -> None:
        """Train `spec`, whose teacher is finished; `weights_done`: only its predictions are to be made again."""


def run_chain(
    chain: Chain, *, study: Study, store: RunStore, runner: Runner, observe: Observer
) -> list[dict[str, Any]]:
    """Bring every generation of the chain to its end; return its rows of results.parquet.

    A finished generation is verified and reused. Calling this again after any interruption goes on where it stopped.
    With `study.patience`, a chain that has saturated ends early (see `saturated`).
    """
    observe(ChainStarted(chain.name, study.recipe.epochs, chain.targets, chain.keys, str(store.study(study.name))))
    rows: list[dict[str, Any]] = []
    probabilities: list[np.ndarray] = []
    validation: list[float] = []
    for spec in chain.specs:
        done, reused = ensure_generation(spec, store=store, runner=runner, observe=observe)
        found, labels = decode_predictions(store.generation(spec.key).read_verified(PREDICTIONS))
        probabilities.append(found)
        rows.append(_row(chain, spec, done, probabilities, labels))
        observe(GenerationDone(spec.generation, rows[-1], reused))
        validation += [rows[-1]["validation_error"]] if done.validation_scores else []
        if saturated(validation, patience=study.patience) and spec is not chain.specs[-1]:
            observe(ChainSaturated(chain.name, spec.generation))
            break
    return rows


def missing_keys(chain: Chain, *, study: Study, inspect: Callable[[str], Inspection]) -> tuple[str, ...]:
    """Return the keys that the chain still has to train; `inspect` verifies what the store has of one."""
    validation: list[float] = []
    for index, spec in enumerate(chain.specs):
        found = inspect(spec.key)
        if found.done is None or not found.sound:
            return tuple(key for key in chain.keys[index:] if key == spec.key or not inspect(key).sound)
        validation += [found.done.validation_scores["top1_error"]] if found.done.validation_scores else []
        if saturated(validation, patience=study.patience):
            break
    return ()


def ensure_generation(spec: GenerationSpec, *, store: RunStore, runner: Runner, observe: Observer) -> tuple[Done, bool]:
    """Return a generation's verified record, and whether it was there already; train what is missing or damaged."""
    folder = store.generation(spec.key)
    if (found := folder.inspect()).done and found.sound and not folder.training:
        return found.done, True
    with runner.turn(spec, waiting=lambda: observe(GenerationWaiting(spec.generation, spec.key))):
        found = folder.inspect()
        if found.done and found.sound:
            folder.clear_training()  # left by a command that was killed at the very end
            return found.done, True
        weights_done = found.done is not None and not {MODEL, EPOCHS} & set(found.damaged)
        if found.damaged:
            remedy = "evaluated again from its weights" if weights_done else "trained again"
            names = ", ".join(found.damaged)
            text = f"generation {spec.generation} ({folder.folder}): {names} damaged or missing; it is {remedy}"
            observe(Note(text, "warning"))
        observe(GenerationQueued(spec.generation))
        runner.run_generation(spec, weights_done=weights_done)
        found = folder.inspect()
        if found.done is None or not found.sound:
            raise StoreError(f"{folder.folder}: training ended without a sound result; run the same command again")
        folder.clear_training()
        return found.done, False


def _row(
    chain: Chain, spec: GenerationSpec, done: Done, probabilities: list[np.ndarray], labels: np.ndarray
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "chain": chain.name,
        "generation": spec.generation,
        "key": spec.key,
        "f_a1": chain.f_a1,
        "lambda": spec.task.lam if isinstance(spec.task, StudentSpec) else None,
        "network": spec.network.name,
        "seed": spec.seed,
        **{name: done.scores[name] for name in ("top1_error", "top5_error", "nll", "ece")},
        "primary_measured": done.train_primary,
        "primary_predicted": chain.targets[spec.generation],
        "primary_test": done.scores["primary"],
        "validation_error": done.validation_scores["top1_error"] if done.validation_scores else None,
        "train_seconds": done.seconds,
        "workers": done.workers,
    }
    ensemble = score(running_ensemble(np.stack(probabilities))[-1], labels) if len(probabilities) > 1 else None
    for name in ("top1_error", "top5_error", "nll", "ece"):
        row[f"ensemble_{name}"] = getattr(ensemble, name) if ensemble else None
    return row
