"""Average the predictions of a chain's generations: all so far, weighted, or selected on the held-out split."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Kind = Literal["mean", "weighted", "selected"]

GAP = 1e-6
"""Nats of held-out NLL by which `mixture_weights` may miss the best weights."""
MOST_ITERATIONS = 5000


def running_ensemble(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return the mean of M(0)..M(g) for every g: stacked probabilities (G+1, N, C) -> (G+1, N, C), float64.

    The patriarch is included; entry 0 is the patriarch alone.
    """
    stacked = np.asarray(probabilities, dtype=np.float64)
    members = np.arange(1, len(stacked) + 1).reshape(-1, *[1] * (stacked.ndim - 1))
    mean: NDArray[np.float64] = np.cumsum(stacked, axis=0) / members
    return mean


def weighted_ensemble(probabilities: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """Return Σ_m w_m·f_m: stacked probabilities (M, N, C) and weights (M,) -> (N, C), float64."""
    stacked = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(np.tensordot(np.asarray(weights, dtype=np.float64), stacked, axes=1))


def label_scores(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return each sample's score of its label: (N, C) -> (N,); 0 counts as the smallest normal float32."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].astype(np.float64)
    return np.maximum(own, np.finfo(np.float32).tiny)


def member_weights(kind: Kind, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights of an ensemble's members, from their label scores (M, N) on the held-out split."""
    if kind == "weighted":
        return mixture_weights(scores)
    members = select_members(scores) if kind == "selected" else tuple(range(len(scores)))
    weights = np.zeros(len(scores))
    weights[list(members)] = 1 / len(members)
    return weights


def mixture_weights(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the w on the simplex that minimise the mixture's NLL, -mean_i log Σ_m w_m·p_mi.

    With p_mi the score that member m gives sample i's label, the NLL is convex in w. From equal weights, EM repeats

        g_m = mean_i p_mi / Σ_l w_l·p_li        w_m <- w_m·g_m

    which keeps Σ w = 1 and never raises the NLL. As Σ_m w_m·g_m = 1, convexity bounds the distance to the minimum by
    max_m g_m - 1; iterations end when that is at most `GAP`, or after `MOST_ITERATIONS`. Nothing is random.

    Args:
        scores: (M, N), positive, on the held-out split.
    """
    weights = np.full(len(scores), 1 / len(scores))
    for _ in range(MOST_ITERATIONS):
        gains = (scores / (weights @ scores)).mean(axis=1)
        if gains.max() - 1 <= GAP:
            break
        weights = weights * gains
        weights /= weights.sum()
    return weights


def select_members(scores: NDArray[np.float64]) -> tuple[int, ...]:
    """Return the members whose plain mean is best, by greedy forward selection (Caruana et al. 2004).

    It starts from the member with the least NLL and adds the one that lowers the NLL of the mean most, the earlier of
    equals, until none lowers it. Without replacement: each member counts once or not at all, so the result says which
    networks to keep; `mixture_weights` gives unequal weights.

    Args:
        scores: (M, N), positive: of each sample's label, on the held-out split.

    Returns:
        Indices of the members, rising.
    """
    chosen: list[int] = []
    total, best = np.zeros(scores.shape[1]), np.inf
    while left := [member for member in range(len(scores)) if member not in chosen]:
        losses = {member: float(-np.log((total + scores[member]) / (len(chosen) + 1)).mean()) for member in left}
        member = min(left, key=losses.__getitem__)
        if losses[member] >= best:
            break
        best, total = losses[member], total + scores[member]
        chosen.append(member)
    return tuple(sorted(chosen))
