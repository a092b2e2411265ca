"""A chain, patriarch to last student, as pure and idempotent logic over a runner; it decides and doesn't execute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from gentrain.errors import StoreError
from gentrain.events import (
    ChainSaturated,
    ChainStarted,
    GenerationDone,
    GenerationQueued,
    GenerationWaiting,
    Note,
    Observer,
    TargetsKnown,
)
from gentrain.scores.ensembles import label_scores, member_weights, running_ensemble, weighted_ensemble
from gentrain.scores.metrics import score
from gentrain.store.generation import EPOCHS, MODEL, PREDICTIONS, VALIDATION_PREDICTIONS, Done, Inspection
from gentrain.store.predictions import decode_predictions
from gentrain.store.run import RunStore
from gentrain.study.lineage import Chain, GenerationSpec, StudentSpec
from gentrain.study.process import saturated
from gentrain.study.schema import Study

COLUMNS = ("top1_error", "top5_error", "nll", "ece")


class Lease(Protocol):
    """Waits for the right to train a generation alone and holds that right for a block."""

    def __call__(self, spec: GenerationSpec, *, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Return the block's context manager; `waiting` is called when another is training `spec`."""


def lease_by_lock(store: RunStore) -> Lease:
    """Return leases held by the lock of the generation's folder: enough where the store is one disk."""

    def lease(spec: GenerationSpec, *, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        return store.generation(spec.key).locked(waiting=waiting)

    return lease


class Runner(Protocol):
    """Trains one generation to its DONE, from nothing or from its newest checkpoint."""

    lease: Lease

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
    held_out: list[np.ndarray] = []
    validation: list[float] = []
    measured: list[float] = []
    targets = chain.targets
    for generation, spec in enumerate(chain.specs):
        given = generation < chain.pretrained
        done, reused = ensure_generation(
            spec, store=store, runner=runner, observe=observe, generation=generation, given=given
        )
        if given:
            measured.append(done.train_primary)
            targets = (*measured, *targets[len(measured) :])
            if len(measured) == chain.pretrained:
                targets = chain.targets_from(measured)
                observe(TargetsKnown(chain.targets_from(measured)))
        folder = store.generation(spec.key)
        found, labels = decode_predictions(folder.read_verified(PREDICTIONS))
        probabilities.append(found)
        if done.validation_scores:
            held_out.append(label_scores(*decode_predictions(folder.read_verified(VALIDATION_PREDICTIONS))))
        row = _row(chain, spec, done) | {"generation": generation, "primary_predicted": targets[generation]}
        rows.append(row | ensemble_columns(probabilities, labels, held_out))
        observe(GenerationDone(generation, rows[-1], reused))
        validation += [rows[-1]["validation_error"]] if done.validation_scores else []
        if saturated(validation, patience=study.patience) and spec is not chain.specs[-1]:
            observe(ChainSaturated(chain.name, generation))
            break
    return rows


def missing_keys(chain: Chain, *, study: Study, inspect: Callable[[str], Inspection]) -> tuple[str, ...]:
    """Return the keys that the chain still has to train; `inspect` verifies what the store has of one."""
    validation: list[float] = []
    for index, spec in enumerate(chain.specs):
        found = inspect(spec.key)
        if found.done is None or not found.valid:
            return tuple(key for key in chain.keys[index:] if key == spec.key or not inspect(key).valid)
        validation += [found.done.validation_scores["top1_error"]] if found.done.validation_scores else []
        if saturated(validation, patience=study.patience):
            break
    return ()


def ensure_generation(
    spec: GenerationSpec,
    *,
    store: RunStore,
    runner: Runner,
    observe: Observer,
    generation: int | None = None,
    given: bool = False,
) -> tuple[Done, bool]:
    """Return a generation's verified record, and whether it was there already; train what is missing or damaged.

    Args:
        spec: of the generation, whose teachers are finished.
        store: where it is.
        runner: that trains it.
        observe: told what happens.
        generation: its place in the chain, where that isn't its own number: a given one had another place elsewhere.
        given: whether the chain begins with it as it is: its weights are there, or can't be had here.

    Raises:
        StoreError: when training ends without a result, or a given generation is damaged.
    """
    generation = spec.generation if generation is None else generation
    folder = store.generation(spec.key)
    if (found := folder.inspect()).done and found.valid and not folder.training:
        return found.done, True
    with runner.lease(spec, waiting=lambda: observe(GenerationWaiting(generation, spec.key))):
        found = folder.inspect()
        if found.done and found.valid:
            folder.clear_training()  # left by a command that was killed at the very end
            return found.done, True
        weights_done = spec.pretrained or (found.done is not None and not {MODEL, EPOCHS} & set(found.damaged))
        if given and not weights_done:
            raise StoreError(f"{folder}: a given generation is damaged; run the study that trained it again")
        if found.damaged:
            remedy = "evaluated again from its weights" if weights_done else "trained again"
            names = ", ".join(found.damaged)
            text = f"generation {generation} ({folder}): {names} damaged or missing; it is {remedy}"
            observe(Note(text, "warning"))
        observe(GenerationQueued(generation))
        runner.run_generation(spec, weights_done=weights_done)
        found = folder.inspect()
        if found.done is None or not found.valid:
            raise StoreError(f"{folder}: training ended without a sound result; run the same command again")
        folder.clear_training()
        return found.done, False


def _row(chain: Chain, spec: GenerationSpec, done: Done) -> dict[str, Any]:
    """Return what a generation's row says of itself alone."""
    return {
        "chain": chain.name,
        "generation": spec.generation,
        "key": spec.key,
        "f_a1": chain.f_a1,
        "lambda": spec.task.lam if isinstance(spec.task, StudentSpec) else None,
        "network": spec.network.name,
        "seed": spec.seed,
        **{name: done.scores[name] for name in COLUMNS},
        "primary_measured": done.train_primary,
        "primary_test": done.scores["primary"],
        "validation_error": done.validation_scores["top1_error"] if done.validation_scores else None,
        "train_seconds": done.seconds,
        "workers": done.workers,
    }


def ensemble_columns(
    probabilities: Sequence[np.ndarray], labels: np.ndarray, held_out: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Return what a row says of the ensembles of the generations so far, on the test split; None of a lone patriarch.

    Args:
        probabilities: (N, C) of each generation on the test split.
        labels: (N,) of the test split.
        held_out: label scores of each generation on the held-out split, by which members are weighted and selected;
            empty where there is no such split.
    """
    several = len(probabilities) > 1
    members = np.stack(probabilities)
    found: dict[str, np.ndarray | None] = {"ensemble": running_ensemble(members)[-1] if several else None}
    weights: dict[str, np.ndarray | None] = {"weighted": None, "selected": None}
    if several and len(held_out) == len(probabilities):
        weights = {kind: member_weights(kind, np.stack(held_out)) for kind in ("weighted", "selected")}
    for kind, by in weights.items():
        found[kind] = None if by is None else weighted_ensemble(members, by)
    row: dict[str, Any] = {}
    for kind, ensemble in found.items():
        scores = None if ensemble is None else score(ensemble, labels)
        row |= {f"{kind}_{name}": getattr(scores, name) if scores else None for name in COLUMNS}
    weighted, selected = weights["weighted"], weights["selected"]
    row["ensemble_weights"] = None if weighted is None else weighted.tolist()
    row["selected_generations"] = None if selected is None else np.flatnonzero(selected).tolist()
    return row
