"""Draw the learning curves: errors by epoch, from each generation's epochs.parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from gentrain.report.drawing import Panel, Pen, Plot, Style
from gentrain.report.records import Group, StudyReport
from gentrain.store.done import EPOCHS
from gentrain.store.folder import decode_table
from gentrain.store.run import RunStore

Epochs = Sequence[Mapping[str, Any]]
"""Rows of epochs.parquet."""


def read_epochs(report: StudyReport, store: RunStore) -> dict[str, Epochs]:
    """Return the epochs of the finished generations of each process's first seed, by key; damaged ones are left out."""
    epochs: dict[str, Epochs] = {}
    for group in report.groups:
        for record in group.first.generations:
            if record.done is None or record.key in epochs:
                continue
            content = store.generation(record.key).read_intact(EPOCHS, done=record.done)
            rows = decode_table(content) if content is not None else []
            if rows and {"epoch", "train_error", "test_error"} <= rows[0].keys():
                epochs[record.key] = rows
    return epochs


def learning_plot(report: StudyReport, epochs: Mapping[str, Epochs], styles: Mapping[str, Style]) -> Plot:
    """Return a panel for each process and network, with a line for each generation of its first seed."""
    panels = []
    for network, groups in report.networks.items():
        for group in groups:
            if any(record.key in epochs for record in group.first.generations):
                title = f"{network}, {group.name}" if len(report.networks) > 1 else group.name
                panels.append(Panel(title, partial(_draw, group=group, epochs=epochs, style=styles[group.series])))
    return Plot(
        "learning",
        "Learning curves: error by epoch",
        "Top-1 error on the test set (solid) and on the augmented training set (dotted) of one seed; the darker, the "
        "later the generation. The last epoch is the result.",
        tuple(panels),
    )


def _draw(pen: Pen, *, group: Group, epochs: Mapping[str, Epochs], style: Style) -> None:
    known = [record for record in group.first.generations if record.key in epochs]
    for index, record in enumerate(known):
        alpha = 0.35 + 0.65 * (index + 1) / len(known)
        for column, line in (("train_error", ":"), ("test_error", "-")):
            rows = [(row["epoch"], 100 * row[column]) for row in epochs[record.key] if row[column] is not None]
            if not rows:
                continue
            label = f"M({record.generation})" if line == "-" else None
            places, errors = np.array(rows).T
            (drawn,) = pen.axes.plot(
                places, errors, color=style.color, linestyle=line, linewidth=1.3 if line == "-" else 1.0,
                alpha=alpha, label=label, marker="." if len(rows) == 1 else None,
            )  # fmt: skip
            pen.mark(drawn, style)
    pen.axes.set_xlabel("epoch")
    pen.axes.set_ylabel("top-1 error %")
    pen.axes.set_ylim(bottom=0)
    pen.axes.legend(loc="best", fontsize=7, ncols=1 + len(known) // 7, handlelength=1.5)
