"""What a generation or an ensemble of a finished chain is worth, on any prepared split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gentrain.data.prepare.dataset import find_prepared
from gentrain.data.prepare.manifest import Manifest
from gentrain.data.prepare.share import obtain
from gentrain.errors import ConfigError, StoreError
from gentrain.results.status import study_status
from gentrain.scores.confusion import (
    GroupErrors,
    agreement,
    class_errors,
    confusion_matrix,
    group_errors,
    top_confusions,
)
from gentrain.scores.ensembles import Kind, label_scores, member_weights, weighted_ensemble
from gentrain.scores.metrics import Scores, score
from gentrain.store.generation import PREDICTIONS, SPEC, VALIDATION_PREDICTIONS
from gentrain.store.predictions import decode_predictions
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec

STORED = {"test": PREDICTIONS, "validation": VALIDATION_PREDICTIONS}


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
    keys = _finished(store, study, chain)
    name, done = keys
    last = len(done) - 1 if generation is None else generation
    if not 0 <= last < len(done):
        raise ConfigError(f"--generation {generation}: {name} has generations 0 to {len(done) - 1} finished")
    specs = [_read_spec(store, key) for key in done]
    folder = find_prepared(specs[0].data, store.data)
    if folder is None:
        raise ConfigError(f"{store.data}: no prepared dataset of {name}; run gentrain prepare on its study")
    data = obtain(folder.name, store)
    if split not in data.manifest.splits:
        raise ConfigError(f"--split {split}: the dataset has {', '.join(data.manifest.splits)}")
    found = [_predictions(store, spec, folder.name, split) for spec in specs]
    members, labels = np.stack([probabilities for probabilities, _ in found]), found[0][1]
    weights = _weights(store, name, specs[: last + 1], ensemble) if ensemble else None
    probabilities = members[last] if weights is None else weighted_ensemble(members[: last + 1], weights)
    return Evaluation(
        chain=name,
        split=split,
        generation=last,
        ensemble=weights is not None,
        weights=None if weights is None else tuple(weights.tolist()),
        scores=score(probabilities, labels),
        manifest=data.manifest,
        confusion=confusion_matrix(probabilities, labels),
        agreement=agreement(members),
    )


def _finished(store: RunStore, study: str, chain: str | None) -> tuple[str, Sequence[str]]:
    chains = study_status(store, study).chains
    if chain is None and len(chains) != 1:
        raise ConfigError(f"{study} has {len(chains)} chains; choose one with --chain: {', '.join(chains)}")
    name = chain or next(iter(chains))
    if name not in chains:
        raise ConfigError(f"--chain {name}: not in {study}; there: {', '.join(chains)}")
    done: list[str] = []
    for cell in chains[name]:
        if cell.state != "done":
            break
        done.append(cell.key)
    if not done:
        raise ConfigError(f"{name}: no generation is finished yet; see gentrain status {study}")
    return name, done


def _read_spec(store: RunStore, key: str) -> GenerationSpec:
    spec = store.generation(key).spec()
    if spec is None:
        raise StoreError(f"{store.generation(key)}/{SPEC}: missing or damaged; run the study again to restore it")
    return spec


def _weights(store: RunStore, chain: str, specs: Sequence[GenerationSpec], kind: Kind) -> np.ndarray:
    """Return the weights of an ensemble's members, fitted to nothing but the held-out split."""
    if kind == "mean":
        return np.full(len(specs), 1 / len(specs))
    records = [store.generation(spec.key).inspect().done for spec in specs]
    if not all(done is not None and done.validation_scores for done in records):
        raise ConfigError(
            f"--ensemble-kind {kind}: {chain} has no images held out of the training set; set dataset.validation, say "
            "0.1, or use mean"
        )
    scores = [label_scores(*_predictions(store, spec, "", "validation")) for spec in specs]
    return member_weights(kind, np.stack(scores))


def _predictions(store: RunStore, spec: GenerationSpec, data: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    if split in STORED:
        return decode_predictions(store.generation(spec.key).read_verified(STORED[split]))
    from gentrain.train.inference import predict_split

    return predict_split(spec, split, store=store, data=data, threads=len(os.sched_getaffinity(0)))
