"""A chain, patriarch to last student, as pure and idempotent logic over a runner; it decides and doesn't execute."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from gentrain.config import Study
from gentrain.ensemble import running_ensemble
from gentrain.errors import StoreError
from gentrain.events import ChainStarted, GenerationDone, GenerationQueued, Note, Observer
from gentrain.lineage import Chain, GenerationSpec, StudentSpec
from gentrain.metrics import score
from gentrain.predictions import decode_predictions
from gentrain.store import EPOCHS, MODEL, PREDICTIONS, Done, RunStore


class Runner(Protocol):
    """Trains one generation to its DONE, from nothing or from its newest checkpoint."""

    def run_generation(self, spec: GenerationSpec, *, weights_done: bool = False) -> None:
        """Train `spec`, whose teacher is finished; `weights_done`: only its predictions are to be made again."""


def run_chain(
    chain: Chain, *, study: Study, store: RunStore, runner: Runner, observe: Observer
) -> list[dict[str, Any]]:
    """Bring every generation of the chain to its end; return its rows of results.parquet.

    A finished generation is verified and reused. Calling this again after any interruption goes on where it stopped.
    """
    observe(ChainStarted(chain.name, study.recipe.epochs, chain.targets, chain.keys, str(store.study(study.name))))
    rows: list[dict[str, Any]] = []
    probabilities: list[np.ndarray] = []
    for spec in chain.specs:
        done, reused = ensure_generation(spec, store=store, runner=runner, observe=observe)
        found, labels = decode_predictions(store.generation(spec.key).read_verified(PREDICTIONS))
        probabilities.append(found)
        rows.append(_row(chain, spec, done, probabilities, labels))
        observe(GenerationDone(spec.generation, rows[-1], reused))
    return rows


def ensure_generation(spec: GenerationSpec, *, store: RunStore, runner: Runner, observe: Observer) -> tuple[Done, bool]:
    """Return a generation's verified record, and whether it was there already; train what is missing or damaged."""
    folder = store.generation(spec.key)
    if (found := folder.inspect()).done and found.sound and not folder.training:
        return found.done, True
    waiting = Note(
        f"generation {spec.generation} ({spec.key}) is being trained by another process here; waiting for it"
    )
    with folder.locked(waiting=lambda: observe(waiting)):
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
        "train_seconds": done.seconds,
        "workers": done.workers,
    }
    ensemble = score(running_ensemble(np.stack(probabilities))[-1], labels) if len(probabilities) > 1 else None
    for name in ("top1_error", "top5_error", "nll", "ece"):
        row[f"ensemble_{name}"] = getattr(ensemble, name) if ensemble else None
    return row
