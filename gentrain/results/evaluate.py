"""What a generation or an ensemble of a finished chain is worth, on any prepared split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gentrain.data.prepare.dataset import find_prepared
from gentrain.data.prepare.manifest import Manifest
from gentrain.data.prepare.share import find_trained_on, obtain
from gentrain.errors import ConfigError, StoreError
from gentrain.results.chain import FinishedGeneration, GenerationResult, Generations, RecordedChain, read_chain
from gentrain.results.legacy import chain_settings
from gentrain.scores.confusion import (
    GroupErrors,
    agreement,
    class_errors,
    confusion_matrix,
    group_errors,
    top_confusions,
)
from gentrain.scores.ensembles import Kind, member_weights, weighted_ensemble
from gentrain.scores.metrics import Scores, score
from gentrain.store.done import VALIDATION_PREDICTIONS
from gentrain.store.predictions import decode_predictions
from gentrain.store.run import RunStore
from gentrain.store.study_record import recorded_chains, recorded_study


@dataclass(frozen=True)
class Evaluation:
    """One network, or the running ensemble up to it, on one split."""

    chain: str
    split: str
    generation: int
    ensemble: bool
    scores: Scores
    manifest: Manifest
    confusion: np.ndarray
    agreement: np.ndarray
    """(G, G), of the chain's finished generations on this split."""
    weights: tuple[float, ...] | None
    """Of the ensemble's members, generations 0 to this one; None for a single generation."""

    @property
    def class_errors(self) -> np.ndarray:
        """See `analysis.class_errors`."""
        return class_errors(self.confusion)

    @property
    def groups(self) -> GroupErrors | None:
        """See `analysis.group_errors`; None where the dataset has no groups."""
        groups = self.manifest.class_groups
        return None if groups is None else group_errors(self.confusion, np.asarray(groups))

    def summary(self) -> dict[str, Any]:
        """Return everything, for machines."""
        names, groups = self.manifest.classes, self.groups
        return {
            "chain": self.chain,
            "split": self.split,
            "generation": self.generation,
            "ensemble": self.ensemble,
            "weights": self.weights,
            **asdict(self.scores),
            "within_group_error": groups.within if groups else None,
            "outside_group_error": groups.outside if groups else None,
            "class_errors": dict(zip(names, self.class_errors.tolist(), strict=True)),
            "confusions": [
                [names[true], names[found], count] for true, found, count in top_confusions(self.confusion, count=20)
            ],
            "agreement": self.agreement.tolist(),
        }


def evaluate_chain(
    store: RunStore,
    study: str,
    *,
    chain: str | None = None,
    generation: int | None = None,
    ensemble: Kind | None = None,
    split: str = "test",
) -> Evaluation:
    """Return what one generation of a chain is worth, or the running ensemble up to it.

    Args:
        store: the run folder.
        study: name of a study in it.
        chain: name of a chain of the study; not needed where there is one.
        generation: by default the last that is finished.
        ensemble: of generations 0..`generation`: their mean, or weighted or selected on the held-out split; None for
            the generation alone.
        split: test, validation or train; stored predictions are used where there are such, else the weights.

    Raises:
        ConfigError: naming what there is.
    """
    recorded = recorded_chain(store, study, chain)
    results = finished_results(store, study, recorded)
    last = len(results) - 1 if generation is None else generation
    if not 0 <= last < len(results):
        raise ConfigError(
            f"--generation {generation}: {recorded.name} has generations 0 to {len(results) - 1} finished"
        )
    specs = [result.finished.spec for result in results]
    folder = find_prepared(specs[0].data, store.data)
    manifest = obtain(folder.name, store).manifest if folder else find_trained_on(specs[0].key, specs[0].data, store)
    if manifest is None or (folder is None and split == "train"):
        raise ConfigError(f"{store.data}: no prepared dataset of {recorded.name}; run gentrain prepare on its study")
    if split not in manifest.splits:
        raise ConfigError(f"--split {split}: the dataset has {', '.join(manifest.splits)}")
    data = folder.name if folder else ""
    predictions = [_predictions(store, result.finished, data, split) for result in results]
    members, labels = np.stack([probabilities for probabilities, _ in predictions]), predictions[0][1]
    weights = ensemble_weights(recorded.name, results[: last + 1], ensemble) if ensemble else None
    probabilities = members[last] if weights is None else weighted_ensemble(members[: last + 1], weights)
    return Evaluation(
        chain=recorded.name,
        split=split,
        generation=last,
        ensemble=weights is not None,
        weights=None if weights is None else tuple(weights.tolist()),
        scores=score(probabilities, labels),
        manifest=manifest,
        confusion=confusion_matrix(probabilities, labels),
        agreement=agreement(members),
    )


def recorded_chain(store: RunStore, study: str, chain: str | None) -> RecordedChain:
    """Return a chain of a study as it is recorded; by default its only one.

    Raises:
        ConfigError: naming the chains there are.
        StoreError: when its record is damaged.
    """
    damaged: list[str] = []
    whole, entries = recorded_study(store, study), recorded_chains(store, study, warn=damaged.append)
    if damaged and (not entries if chain is None else chain not in entries):
        raise StoreError("; ".join(damaged))
    if not entries:
        raise ConfigError(f"{study}: no chain of it is recorded; run the study again")
    if chain is None and len(entries) != 1:
        raise ConfigError(f"{study} has {len(entries)} chains; choose one with --chain: {', '.join(entries)}")
    name = chain or next(iter(entries))
    if name not in entries:
        raise ConfigError(f"--chain {name}: not in {study}; there: {', '.join(entries)}")
    settings = chain_settings(entries[name], whole, store)
    if settings is None:
        raise ConfigError(f"{name}: no generation is finished yet; see gentrain status {study}")
    return RecordedChain(name, entries[name].keys, settings)


def finished_results(store: RunStore, study: str, chain: RecordedChain) -> list[GenerationResult]:
    """Return the results of the chain's generations up to the first that isn't finished.

    Raises:
        ConfigError: when none is finished.
        StoreError: when one that is finished is damaged.
    """
    generations = Generations(store, [chain])
    results = []
    for result in read_chain(chain, generations):
        if result is None:
            break
        results.append(result)
    if generations.damaged:
        damaged = next(iter(generations.damaged))
        raise StoreError(f"{damaged}: missing or damaged; run the study again to restore it")
    if not results:
        raise ConfigError(f"{chain.name}: no generation is finished yet; see gentrain status {study}")
    return results


def ensemble_weights(chain: str, results: Sequence[GenerationResult], kind: Kind) -> np.ndarray:
    """Return the weights of an ensemble's members, fitted to nothing but the held-out split."""
    if kind == "mean":
        return np.full(len(results), 1 / len(results))
    scores = [result.finished.held_out for result in results if result.finished.held_out is not None]
    if len(scores) < len(results):
        raise ConfigError(
            f"--ensemble-kind {kind}: {chain} has no images held out of the training set; set dataset.validation, say "
            "0.1, or use mean"
        )
    return member_weights(kind, np.stack(scores))


def _predictions(store: RunStore, finished: FinishedGeneration, data: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (probabilities (N, C), labels (N,)) of a generation on a split: stored ones, else from its weights."""
    if split == "test":
        return finished.probabilities, finished.labels
    if split == "validation":
        folder = store.generation(finished.spec.key)
        return decode_predictions(folder.read_verified(VALIDATION_PREDICTIONS, done=finished.done))
    from gentrain.train.inference import predict_split

    return predict_split(finished.spec, split, store=store, data=data, threads=len(os.sched_getaffinity(0)))
