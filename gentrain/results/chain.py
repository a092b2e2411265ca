"""A chain's results, read from the store: the rows of results.parquet, generation by generation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from gentrain.scores.ensembles import label_scores, member_weights, running_ensemble, weighted_ensemble
from gentrain.scores.metrics import score
from gentrain.store.done import DONE, PREDICTIONS, SPEC, VALIDATION_PREDICTIONS, Done
from gentrain.store.generation import GenerationFolder, Inspection
from gentrain.store.predictions import decode_predictions
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec, predicted_scores
from gentrain.study.process import saturated
from gentrain.study.schema import Study
from gentrain.study.tasks import StudentSpec

COLUMNS = ("top1_error", "top5_error", "nll", "ece")
"""Scores of a network, and with a prefix those of each kind of ensemble; errors are fractions."""


class ChainKeys(Protocol):
    """A chain as it is planned or recorded: its generations' keys in order, and its settings."""

    @property
    def name(self) -> str:
        """Name of the chain."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of its generations."""

    @property
    def settings(self) -> Study:
        """The chain's own study, without a grid."""


@dataclass(frozen=True)
class RecordedChain:
    """A chain as a study's last run recorded it, with its settings."""

    name: str
    keys: tuple[str, ...]
    settings: Study


@dataclass(frozen=True)
class FinishedGeneration:
    """A finished generation as it is stored, verified."""

    spec: GenerationSpec
    done: Done
    probabilities: np.ndarray
    """(N, C) float32, of the test split."""
    labels: np.ndarray
    """(N,), of the test split."""
    held_out: np.ndarray | None
    """`label_scores` of the held-out split (M,); None where there is no such split."""


@dataclass(frozen=True)
class GenerationResult:
    """One generation of a chain, with the ensembles of all generations up to it."""

    finished: FinishedGeneration
    row: dict[str, Any]
    """Of results.parquet; the ensembles' columns are None where an earlier generation is missing."""
    ensemble: np.ndarray | None
    """(N, C) float64: the running ensemble on the test split; None for the first generation."""
    ends: bool
    """Whether the chain ends here: it is its last generation, or its held-out error has saturated."""


class Generations:
    """Reads finished generations for several chains: every file once.

    What chains share is kept until the last of them has taken it.

    Args:
        store: the run folder.
        chains: those that will be read; each takes each of its generations once.
    """

    def __init__(self, store: RunStore, chains: Iterable[ChainKeys]) -> None:
        self._store = store
        self._wanted = Counter(key for chain in chains for key in chain.keys)
        self._inspections: dict[str, Inspection] = {}
        self._kept: dict[str, FinishedGeneration] = {}
        self.damaged: dict[str, None] = {}
        """Paths of files that `take` could not use, in order."""

    def inspect(self, key: str) -> Inspection:
        """Return the verification of every file of a generation, done once."""
        if key not in self._inspections:
            self._inspections[key] = self._store.generation(key).inspect()
        return self._inspections[key]

    def forget(self, key: str) -> None:
        """Verify a generation again the next time: its record was changed."""
        self._inspections.pop(key, None)

    def skip(self, chain: ChainKeys) -> None:
        """Count a chain's generations as taken: it will not be read."""
        for key in chain.keys:
            self._wanted[key] -= 1
            if self._wanted[key] <= 0:
                self._kept.pop(key, None)

    def take(self, key: str) -> FinishedGeneration | None:
        """Return a finished generation; None where it is unfinished or a file of it that is needed is damaged."""
        finished = self._kept.pop(key, None) or self._read(self._store.generation(key))
        self._wanted[key] -= 1
        if finished is not None and self._wanted[key] > 0:
            self._kept[key] = finished
        return finished

    def _read(self, folder: GenerationFolder) -> FinishedGeneration | None:
        inspection = self._inspections.get(folder.key)
        done = inspection.done if inspection else folder.done()
        if done is None:
            if DONE in (inspection or folder.inspect()).damaged:
                self.damaged[f"{folder}/{DONE}"] = None
            return None
        predictions = folder.read_intact(PREDICTIONS, done=done)
        held_out = folder.read_intact(VALIDATION_PREDICTIONS, done=done) if done.validation_scores else None
        spec = folder.spec(done=done)
        wanted = {PREDICTIONS: predictions, SPEC: spec}
        if done.validation_scores:
            wanted[VALIDATION_PREDICTIONS] = held_out
        self.damaged |= {f"{folder}/{name}": None for name, content in wanted.items() if content is None}
        if predictions is None or spec is None or None in wanted.values():
            return None
        by = None if held_out is None else label_scores(*decode_predictions(held_out))
        return FinishedGeneration(spec, done, *decode_predictions(predictions), by)


def read_chain(chain: ChainKeys, generations: Generations) -> Iterator[GenerationResult | None]:
    """Yield the result of each generation in order, read when it is asked for; None for one that isn't finished.

    Ensembles go as far as every member is there.
    """
    settings = chain.settings
    members: list[np.ndarray] = []
    held_out: list[np.ndarray] = []
    measured: list[float] = []
    errors: list[float] = []
    for place, key in enumerate(chain.keys):
        finished = generations.take(key)
        if finished is None:
            yield None
            continue
        done = finished.done
        if place < len(settings.pretrained):
            measured.append(done.train_primary)
        row = _own_columns(chain, place, finished)
        row["primary_predicted"] = _predicted(settings, measured, place)
        ensemble = None
        if len(members) == place:
            members.append(finished.probabilities)
            held_out += [] if finished.held_out is None else [finished.held_out]
            ensemble = running_ensemble(np.stack(members))[-1] if place else None
            row |= _ensemble_columns(members, ensemble, finished.labels, held_out)
        else:
            row |= _ensemble_columns([], None, finished.labels, [])
        errors += [done.validation_scores["top1_error"]] if done.validation_scores else []
        ends = place + 1 == len(chain.keys) or saturated(errors, patience=settings.patience)
        yield GenerationResult(finished, row, ensemble, ends)


def finished_rows(chain: ChainKeys, generations: Generations) -> list[dict[str, Any]] | None:
    """Return the rows of a finished chain; None where a generation of it is missing or damaged."""
    rows = []
    for result in read_chain(chain, generations):
        if result is None:
            return None
        rows.append(result.row)
        if result.ends:
            break
    return rows


def _predicted(settings: Study, measured: Sequence[float], place: int) -> float | None:
    scores = predicted_scores(settings, measured)
    return scores[place] if place < len(scores) else None


def _own_columns(chain: ChainKeys, place: int, finished: FinishedGeneration) -> dict[str, Any]:
    """Return the columns that a generation has without its ensembles."""
    spec, done = finished.spec, finished.done
    scores = asdict(score(finished.probabilities, finished.labels))
    return {
        "chain": chain.name,
        "generation": place,
        "key": spec.key,
        "f_a1": None if chain.settings.pretrained else chain.settings.process.aim,
        "lambda": spec.task.lam if isinstance(spec.task, StudentSpec) else None,
        "network": spec.network.name,
        "seed": spec.seed,
        **{name: scores[name] for name in COLUMNS},
        "primary_measured": done.train_primary,
        "primary_test": scores["primary"],
        "validation_error": done.validation_scores["top1_error"] if done.validation_scores else None,
        "train_seconds": done.seconds,
        "workers": done.workers,
    }


def _ensemble_columns(
    members: Sequence[np.ndarray], mean: np.ndarray | None, labels: np.ndarray, held_out: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Return the columns of the ensembles of the generations so far, on the test split; None of a lone patriarch.

    Args:
        members: probabilities (N, C) of each generation on the test split.
        mean: their mean (N, C), None where there is one member or none.
        labels: (N,) of the test split.
        held_out: label scores of each generation on the held-out split, by which members are weighted and selected;
            empty where there is no such split.
    """
    weights: dict[str, np.ndarray | None] = {"weighted": None, "selected": None}
    if mean is not None and len(held_out) == len(members):
        weights = {kind: member_weights(kind, np.stack(held_out)) for kind in ("weighted", "selected")}
    ensembles = {"ensemble": mean} | {
        kind: None if by is None else weighted_ensemble(np.stack(members), by) for kind, by in weights.items()
    }
    row: dict[str, Any] = {}
    for kind, probabilities in ensembles.items():
        scores = {} if probabilities is None else asdict(score(probabilities, labels))
        row |= {f"{kind}_{name}": scores.get(name) for name in COLUMNS}
    weighted, selected = weights["weighted"], weights["selected"]
    row["ensemble_weights"] = None if weighted is None else weighted.tolist()
    row["selected_generations"] = None if selected is None else np.flatnonzero(selected).tolist()
    return row
