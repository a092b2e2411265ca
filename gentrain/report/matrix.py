"""Draw classes against classes: figure 1, right (the second highest score, on the training set), and confusions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from gentrain.data.prepare.manifest import Manifest
from gentrain.errors import printable
from gentrain.report.drawing import Panel, Pen, Plot
from gentrain.report.records import MOST_CLASSES, StudyReport
from gentrain.report.training import TrainingScores
from gentrain.scores.confusion import top_confusions

SHOWN = 30
"""Classes that are drawn where there are more than `MOST_CLASSES`: those of the commonest pairs."""
LONGEST = 22


def matrix_plot(training: Sequence[TrainingScores], manifest: Manifest | None, *, paper: bool = True) -> Plot | None:
    """Return a matrix for each patriarch, with classes ordered by group where there are groups; None without data.

    `paper` is whether the title names the paper's figure.
    """
    if not training or manifest is None:
        return None
    rows = [_shares(scores.second) for scores in training]
    order = _order(training, manifest)
    highest = max(float(row[np.ix_(order, order)].max()) for row in rows)
    panels = [
        Panel(
            f"{scores.network}, {scores.origin}: training error {100 * scores.error:.2f} %",
            partial(_draw, shares=row[np.ix_(order, order)], order=order, manifest=manifest, highest=highest),
        )
        for scores, row in zip(training, rows, strict=True)
    ]
    count = len(manifest.classes)
    caption = (
        "Per cent of each true class's training images (row) whose second highest score is on the column's class, for "
        "the patriarchs of one seed. Diagonal: images whose true class comes second."
    )
    if manifest.groups:
        caption += " Classes are ordered by group, with lines between groups."
    if len(order) < count:
        caption += f" Of {count:,} classes the {len(order)} of the commonest pairs are shown; rows don't sum to 100."
    size = (6.0, 5.2) if len(order) > 12 else (4.6, 4.2)
    title = "Figure 1, right" if paper else "Second classes"
    return Plot(
        "figure1-right", f"{title}: true class × class of the second highest score", caption, tuple(panels),
        size=size, columns=2,
    )  # fmt: skip


def confusion_plot(report: StudyReport) -> Plot | None:
    """Return the confusion matrix of each process's last finished generation, of one seed; None without data."""
    manifest = report.manifest
    if manifest is None or len(manifest.classes) > MOST_CLASSES:
        return None
    known = {}
    for network, groups in report.networks.items():
        for group in groups:
            records = [record for record in group.first.generations if record.confusion is not None]
            if records and records[-1].confusion is not None:
                title = f"{network}, {group.name}" if len(report.networks) > 1 else group.name
                known[f"{title}, Gen #{records[-1].generation}"] = _shares(records[-1].confusion)
    if not known:
        return None
    count = len(manifest.classes)
    order = np.argsort(manifest.class_groups or np.zeros(count), kind="stable")
    panels = [
        Panel(
            title,
            partial(
                _draw, shares=share[np.ix_(order, order)], order=order, manifest=manifest, highest=100.0,
                across="predicted class",
            ),
        )
        for title, share in known.items()
    ]  # fmt: skip
    return Plot(
        "confusion",
        "Confusion: true class × predicted class",
        "Per cent of each true class's test images (row) that are predicted as the column's class, by the ensemble up "
        "to the last finished generation (by the network where it is the first), of one seed.",
        tuple(panels),
        size=(6.0, 5.2) if count > 12 else (4.6, 4.2),
        columns=2,
    )


def _shares(matrix: np.ndarray) -> np.ndarray:
    """Return each row in per cent of its sum."""
    shares: np.ndarray = 100 * matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    return shares


def second_pairs(scores: TrainingScores, manifest: Manifest, *, count: int) -> list[tuple[str, str, float]]:
    """Return the commonest pairs as (true class, second class, fraction of the true class's images)."""
    totals = np.maximum(1, scores.second.sum(axis=1))
    names = manifest.classes
    return [
        (names[true], names[other], images / float(totals[true]))
        for true, other, images in top_confusions(scores.second, count=count)
    ]


def _order(training: Sequence[TrainingScores], manifest: Manifest) -> np.ndarray:
    """Return the indices of the classes to draw, in order."""
    count = len(manifest.classes)
    groups = np.asarray(manifest.class_groups if manifest.class_groups is not None else np.zeros(count))
    order = np.argsort(groups, kind="stable")
    if count <= MOST_CLASSES:
        return order
    kept: dict[int, None] = {}
    for true, other, _ in top_confusions(np.sum([scores.second for scores in training], axis=0), count=4 * SHOWN):
        if len({*kept, true, other}) <= SHOWN:
            kept |= {true: None, other: None}
    return np.array([index for index in order if index in kept])


def _draw(
    pen: Pen,
    *,
    shares: np.ndarray,
    order: np.ndarray,
    manifest: Manifest,
    highest: float,
    across: str = "class of the second highest score",
) -> None:
    axes, count = pen.axes, len(order)
    axes.grid(visible=False)
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=highest, interpolation="nearest")
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, label="% of the true class's images")
    bar.outline.set_visible(False)
    groups = None if manifest.class_groups is None else np.asarray(manifest.class_groups)[order]
    if groups is not None:
        for edge in np.flatnonzero(np.diff(groups)) + 0.5:
            for line in (axes.axhline, axes.axvline):
                line(edge, color="#ffffff", linewidth=0.8, alpha=0.8)
    if count <= SHOWN:
        places, names = np.arange(count), [manifest.classes[index] for index in order]
    elif groups is not None and manifest.groups:
        kinds = list(dict.fromkeys(groups.tolist()))
        places = np.array([np.flatnonzero(groups == kind).mean() for kind in kinds])
        names = [manifest.groups[kind] for kind in kinds]
    else:
        places = np.arange(0, count, 10)
        names = [manifest.classes[order[place]] for place in places]
    names = [printable(name) for name in names]  # a control character is no valid SVG
    shown = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    small = 8 if len(shown) <= 12 else 6.5
    axes.set_xticks(places, shown, rotation=90, fontsize=small)
    axes.set_yticks(places, shown, fontsize=small)
    axes.tick_params(length=0)
    axes.set_xlabel(across)
    axes.set_ylabel("true class")
    if count <= SHOWN:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                color = "#ffffff" if share < 0.5 * highest else "#000000"
                size = 7 if count <= 12 else 4.5
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=size, color=color)
