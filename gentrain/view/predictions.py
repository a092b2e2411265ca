"""Show what a model makes of image files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from gentrain.errors import printable
from gentrain.view.tables import percent

if TYPE_CHECKING:
    from gentrain.train.predicting import Prediction


def predictions_table(predictions: Sequence[Prediction]) -> Table:
    """Return a row for each image: its likeliest classes with their scores, the best one bold."""
    most = max((len(prediction.classes) for prediction in predictions), default=0)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("image", overflow="fold")
    for place in range(most):
        table.add_column("class" if place == 0 else "", style="bold" if place == 0 else "", overflow="fold")
    for prediction in predictions:
        cells = [
            f"{printable(name)} {percent(score)}"
            for name, score in zip(prediction.classes, prediction.scores, strict=True)
        ]
        if prediction.problem is None:
            table.add_row(Text(printable(prediction.image)), *map(Text, cells))
    return table


def predictions_csv(predictions: Sequence[Prediction]) -> str:
    """Return a CSV file with a row for each image: its likeliest classes, their scores, and why there are none."""
    most = max((len(prediction.classes) for prediction in predictions), default=0)
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(
        ["image", *(f"{name}_{place}" for place in range(1, most + 1) for name in ("class", "score")), "problem"]
    )
    for prediction in predictions:
        pairs = zip(prediction.classes, prediction.scores, strict=True)
        cells = [cell for name, score in pairs for cell in (name, f"{score:.6f}")] or [""] * (2 * most)
        writer.writerow([printable(prediction.image), *cells, prediction.problem or ""])
    return sink.getvalue()
