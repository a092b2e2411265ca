"""Score predictions by errors, likelihood and calibration. Errors are fractions; means are over samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.floating]
Labels = NDArray[np.integer]


TOP5_CLASSES = 10
"""Fewest classes for which a top-5 error is shown: of fewer, half or more would be right by chance."""


def top_k_error(probabilities: Probabilities, labels: Labels, *, k: int) -> float:
    """Return the fraction of samples whose label is not among the k largest scores of (N, C).

    Equal scores rank by class number, the lower class first.
    """
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    ahead = (probabilities > own) | ((probabilities == own) & earlier)
    return float((ahead.sum(axis=1) >= k).mean())


def nll(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean negative log-likelihood in nats; a zero probability counts as the smallest normal float32."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1).astype(np.float64)
    return float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean())


def calibration_error(probabilities: Probabilities, labels: Labels, *, bins: int = 15) -> float:
    """Return the expected calibration error: |accuracy - confidence| over equal-width bins, weighted by samples."""
    confidence, correct, index = _binned(probabilities, labels, bins)
    gaps = np.bincount(index, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def reliability(probabilities: Probabilities, labels: Labels, *, bins: int = 15) -> NDArray[np.float64]:
    """Return the data of a reliability diagram (3, bins): samples, and their sums of confidence and of hits.

    The bins are those of `calibration_error`, of equal width from 0 to 1; sums of several networks may be added.
    """
    confidence, correct, index = _binned(probabilities, labels, bins)
    columns = (None, confidence, correct)
    return np.stack([np.bincount(index, weights=weights, minlength=bins).astype(np.float64) for weights in columns])


def _binned(
    probabilities: Probabilities, labels: Labels, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Return each sample's confidence, whether it is right, and its bin."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    return (
        confidence,
        probabilities.argmax(axis=1) == labels,
        np.minimum((confidence * bins).astype(np.int64), bins - 1),
    )


def primary_score(probabilities: Probabilities) -> float:
    """Return the mean over samples of the largest softmax score."""
    return float(probabilities.max(axis=1).astype(np.float64).mean())


@dataclass(frozen=True)
class Scores:
    """Holds every score of one set of predictions: `nll` in nats, `ece` as `calibration_error` returns it."""

    top1_error: float
    top5_error: float
    nll: float
    ece: float
    primary: float


def score(probabilities: Probabilities, labels: Labels) -> Scores:
    """Return every score of probabilities (N, C) against labels (N,)."""
    return Scores(
        top1_error=top_k_error(probabilities, labels, k=1),
        top5_error=top_k_error(probabilities, labels, k=5),
        nll=nll(probabilities, labels),
        ece=calibration_error(probabilities, labels),
        primary=primary_score(probabilities),
    )
