"""What a network confuses, and how generations differ: pure functions of predictions. Errors are fractions."""

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
    """Return the commonest mistakes as (true class, predicted class, samples), most first."""
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [np.unravel_index(index, wrong.shape) for index in order]
    return [(int(true), int(found), int(wrong[true, found])) for true, found in pairs if wrong[true, found]]


@dataclass(frozen=True)
class GroupErrors:
    """Whether mistakes stay among look-alikes: the paper's claim about similarity, on CIFAR-100's groups of five."""

    within: float
    """Part of all samples that is mistaken for another class of its own group."""
    outside: float
    """Part of all samples that is mistaken for a class of another group."""
    chance: float
    """Part of the mistakes that would stay within the group if wrong classes were drawn evenly."""

    @property
    def share_within(self) -> float:
        """Part of the mistakes that stays within the group; nan where there are none."""
        wrong = self.within + self.outside
        return self.within / wrong if wrong else float("nan")


def group_errors(confusion: NDArray[np.int64], class_groups: NDArray[np.integer]) -> GroupErrors:
    """Return where mistakes go, by the group of each class (C,)."""
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
    """Return the part of samples on which two generations predict the same class: (G, N, C) -> (G, G)."""
    predicted = members.argmax(axis=2)
    return np.asarray((predicted[:, None] == predicted[None]).mean(axis=2), dtype=np.float64)


def score_by_rank(probabilities: Probabilities) -> NDArray[np.float64]:
    """Return the mean over samples of the k-th largest score, by rank (C,): figure 1, left. It sums to 1."""
    return np.asarray(-np.sort(-probabilities, axis=1).mean(axis=0, dtype=np.float64))


def second_class_matrix(probabilities: Probabilities, labels: Labels) -> NDArray[np.int64]:
    """Return counts (C, C): true class by class of the second highest score: figure 1, right.

    Of equal scores the lower class is the higher. Counts on the diagonal are samples whose own class comes second.
    """
    classes = probabilities.shape[1]
    second = np.argsort(-probabilities, axis=1, kind="stable")[:, 1]
    return (
        np.bincount(labels * classes + second, minlength=classes * classes).reshape(classes, classes).astype(np.int64)
    )
