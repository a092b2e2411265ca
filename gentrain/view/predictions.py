"""Show what a model makes of image files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from gentrain.errors import printable
from gentrain.view.base import widest_fitting
from gentrain.view.tables import percent

if TYPE_CHECKING:
    from gentrain.train.predicting import Prediction


@dataclass(frozen=True)
class PredictionsTable:
    """Shows a row for each image: its likeliest classes with their scores, as many as the terminal has room for."""

    predictions: Sequence[Prediction]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the table with the most classes that fits the width."""
        most = max((len(prediction.classes) for prediction in self.predictions), default=0)
        yield widest_fitting(console, (self._table(n, console.width // 2) for n in range(max(most, 1), 0, -1)))

    def _table(self, places: int, path_width: int) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("image", overflow="fold", max_width=path_width)
        for place in range(places):
            table.add_column("class" if place == 0 else "", style="bold" if place == 0 else "", overflow="fold")
        for prediction in self.predictions:
            pairs = list(zip(prediction.classes, prediction.scores, strict=True))[:places]
            cells = [Text(f"{printable(name)} {percent(score)}") for name, score in pairs]
            if prediction.problem is None:
                table.add_row(Text(printable(prediction.image)), *cells)
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
