"""Compute figure 1's data: the patriarchs' scores on the training set. Computed once, then kept beside the report."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load, save

from gentrain.errors import ConfigError, DataError, StoreError
from gentrain.events import Note, Observer
from gentrain.report.records import ChainRecord, StudyReport
from gentrain.scores.confusion import score_by_rank, second_class_matrix
from gentrain.scores.metrics import top_k_error
from gentrain.store.folder import Folder, digest
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec


@dataclass(frozen=True)
class TrainingScores:
    """Summarise one patriarch's scores on its training set, without augmentation."""

    key: str
    network: str
    origin: str
    """See `ChainRecord.origin`."""
    seed: int
    samples: int
    error: float
    """Top-1, a fraction."""
    by_rank: np.ndarray
    """(C,): mean of the k-th largest score."""
    second: np.ndarray
    """(C, C): number of samples by true class and class of the second highest score."""


def training_scores(
    report: StudyReport, store: RunStore, folder: Folder, *, observe: Observer
) -> tuple[TrainingScores, ...]:
    """Return the scores of the finished patriarchs, for one seed of each network and f_a1.

    Args:
        report: records of the study.
        store: the run folder.
        folder: where the scores are kept by key, with a checksum in the file name; damaged files are computed again.
        observe: receives a note before each prediction and a warning for each patriarch left out.
    """
    scores: list[TrainingScores] = []
    for chain in _patriarchs(report):
        record = chain.generations[0]
        assert record.spec is not None
        kept = _read(folder, record.key)
        if kept is None:
            if report.data is None or report.manifest is None:
                text = f"{chain.name}: left out of figure 1: its prepared training set isn't in the run folder"
                observe(Note(text, "warning"))
                continue
            count = report.manifest.splits["train"].count
            observe(Note(f"{chain.name}: predicting the {count:,} training images for figure 1 (once)"))
            try:
                kept = _compute(record.spec, store=store, data=report.data)
            except (StoreError, DataError, ConfigError) as error:
                observe(Note(f"{chain.name}: left out of figure 1: {error}", "warning"))
                continue
            content = save(kept)
            folder.write(f"{record.key}.{digest(content)[:16]}.safetensors", content)
        scores.append(
            TrainingScores(
                key=record.key,
                network=chain.study.network.name,
                origin=chain.origin,
                seed=chain.study.seed,
                samples=int(kept["second"].sum()),
                error=float(kept["error"][0]),
                by_rank=kept["by_rank"],
                second=kept["second"],
            )
        )
    return tuple(scores)


def _patriarchs(report: StudyReport) -> list[ChainRecord]:
    """Return one chain for each distinct finished patriarch, first seed of its network only."""
    chosen: dict[tuple[str, str], ChainRecord] = {}
    for chain in sorted(report.chains, key=lambda chain: (not chain.strict, chain.study.seed)):
        if chain.generations and chain.generations[0].values:
            chosen.setdefault((chain.study.network.name, chain.origin), chain)
    networks = list(dict.fromkeys(chain.study.network.name for chain in report.chains))
    return sorted(chosen.values(), key=lambda chain: networks.index(chain.study.network.name))


def _compute(spec: GenerationSpec, *, store: RunStore, data: str) -> dict[str, np.ndarray]:
    from gentrain.train.inference import predict_batches

    classes = spec.num_classes
    by_rank, second = np.zeros(classes), np.zeros((classes, classes), dtype=np.int64)
    wrong, samples = 0.0, 0
    threads = len(os.sched_getaffinity(0))
    for _, labels, probabilities in predict_batches(spec, "train", store=store, data=data, threads=threads):
        count = len(labels)
        by_rank += score_by_rank(probabilities) * count
        second += second_class_matrix(probabilities, labels)
        wrong += top_k_error(probabilities, labels, k=1) * count
        samples += count
    return {"by_rank": by_rank / samples, "second": second, "error": np.array([wrong / samples])}


def _read(folder: Folder, key: str) -> dict[str, np.ndarray] | None:
    for name in folder.names():
        owner, _, rest = name.partition(".")
        if owner == key:
            content = folder.read(name)
            if content is not None and digest(content)[:16] == rest.partition(".")[0]:
                return dict(load(content))
            folder.delete(name)
    return None
