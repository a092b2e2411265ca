"""Count what a network confuses and where generations differ. Errors are fractions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.floating]
Labels = NDArray[np.integer]


def confusion_matrix(probabilities: Probabilities, labels: Labels) -> NDArray[np.int64]:
    """Return counts (C, C): true class by predicted class."""
    classes = probabilities.shape[1]
    cells = np.bincount(labels * classes + probabilities.argmax(axis=1), minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.int64)


def class_errors(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each true class's top-1 error (C,); nan for a class without samples."""
    totals = confusion.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(1 - np.diag(confusion) / totals, dtype=np.float64)


def top_confusions(confusion: NDArray[np.int64], *, count: int) -> list[tuple[int, int, int]]:
    """Return the most frequent mistakes as (true class, predicted class, samples), most first."""
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [np.unravel_index(index, wrong.shape) for index in order]
    return [(int(true), int(other), int(wrong[true, other])) for true, other in pairs if wrong[true, other]]


@dataclass(frozen=True)
class GroupErrors:
    """Says whether mistakes stay among similar classes: the paper's claim, on CIFAR-100's groups of five."""

    within: float
    """Fraction of all samples that is mistaken for another class of the same group."""
    outside: float
    """Fraction of all samples that is mistaken for a class of another group."""
    chance: float
    """Fraction of the mistakes that would stay within the group if wrong classes were drawn uniformly."""

    @property
    def share_within(self) -> float:
        """Fraction of the mistakes that stays within the group; nan where there are no mistakes."""
        wrong = self.within + self.outside
        return self.within / wrong if wrong else float("nan")


def group_errors(confusion: NDArray[np.int64], class_groups: NDArray[np.integer]) -> GroupErrors:
    """Return how mistakes divide among groups: counts (C, C) and the group of each class (C,)."""
    same = class_groups[:, None] == class_groups[None, :]
    wrong = confusion - np.diag(np.diag(confusion))
    total = confusion.sum()
    classes = len(class_groups)
    by_class = wrong.sum(axis=1)
    chance = ((same.sum(axis=1) - 1) / max(1, classes - 1) * by_class).sum() / max(1, by_class.sum())
    return GroupErrors(
        within=float((wrong * same).sum() / total), outside=float((wrong * ~same).sum() / total), chance=float(chance)
    )


def agreement(members: Probabilities) -> NDArray[np.float64]:
    """Return the fraction of samples on which two generations predict the same class: (G, N, C) -> (G, G)."""
    predicted = members.argmax(axis=2)
    return np.asarray((predicted[:, None] == predicted[None]).mean(axis=2), dtype=np.float64)


def score_by_rank(probabilities: Probabilities) -> NDArray[np.float64]:
    """Return the mean over samples of the k-th largest score, by rank (C,): figure 1, left. It sums to 1."""
    return np.asarray(-np.sort(-probabilities, axis=1).mean(axis=0, dtype=np.float64))


def second_class_matrix(probabilities: Probabilities, labels: Labels) -> NDArray[np.int64]:
    """Return counts (C, C): true class by class of the second highest score: figure 1, right.

    Equal scores rank by class number, the lower class first. The diagonal counts samples whose own class is second.
    """
    classes = probabilities.shape[1]
    second = np.argsort(-probabilities, axis=1, kind="stable")[:, 1]
    return (
        np.bincount(labels * classes + second, minlength=classes * classes).reshape(classes, classes).astype(np.int64)
    )
