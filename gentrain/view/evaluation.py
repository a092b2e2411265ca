"""Show what a generation or an ensemble gets wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from gentrain.errors import printable
from gentrain.scores.confusion import top_confusions
from gentrain.scores.metrics import TOP5_CLASSES
from gentrain.view.tables import bare_percent, percent, three

if TYPE_CHECKING:
    from gentrain.results.evaluate import Evaluation

MOST_ROWS = 10


def evaluation_tables(evaluation: Evaluation) -> list[Table]:
    """Return scores, errors within and across groups, worst classes, commonest mistakes, agreement of generations."""
    names, confusion = list(map(printable, evaluation.manifest.classes)), evaluation.confusion
    members = f"generation {evaluation.generation}"
    if evaluation.ensemble:
        used = [f"{g} × {weight:.2f}" for g, weight in enumerate(evaluation.weights or ()) if weight]
        members = f"ensemble of generations {', '.join(used) if used else f'0 to {evaluation.generation}'}"
    scores = Table(
        title=f"{evaluation.chain}: {members}, {evaluation.split} split, {confusion.sum():,} images",
        title_justify="left", title_style="bold", show_header=False,
    )  # fmt: skip
    scores.add_column("")
    scores.add_column("", justify="right")
    scores.add_row("top-1 error", percent(evaluation.scores.top1_error))
    if len(names) >= TOP5_CLASSES:
        scores.add_row("top-5 error", percent(evaluation.scores.top5_error))
    if groups := evaluation.groups:
        scores.add_row("  predicted another class of its group", percent(groups.within))
        scores.add_row("  predicted another group", percent(groups.outside))
        scores.add_row(
            "mistakes within the group", f"{percent(groups.share_within)} (by chance {percent(groups.chance)})"
        )
    scores.add_row("NLL", three(evaluation.scores.nll))
    scores.add_row("calibration error", percent(evaluation.scores.ece))
    scores.add_row("mean primary score", three(evaluation.scores.primary))

    worst = Table(title="worst classes", title_justify="left", title_style="bold")
    worst.add_column("class")
    worst.add_column("error", justify="right")
    errors = evaluation.class_errors
    ranked = sorted((-float(error), name) for error, name in zip(errors, names, strict=True) if error == error)  # noqa: PLR0124
    for error, name in ranked[:MOST_ROWS]:
        worst.add_row(Text(name), percent(-error))

    mistakes = Table(title="commonest mistakes", title_justify="left", title_style="bold")
    for column in ("true class", "predicted"):
        mistakes.add_column(column)
    mistakes.add_column("images", justify="right")
    for true, predicted, count in top_confusions(confusion, count=MOST_ROWS):
        mistakes.add_row(Text(names[true]), Text(names[predicted]), str(count))

    agree = Table(title="same prediction, % of images", title_justify="left", title_style="bold")
    agree.add_column("")
    for generation in range(len(evaluation.agreement)):
        agree.add_column(f"Gen #{generation}", justify="right")
    for generation, row in enumerate(evaluation.agreement):
        agree.add_row(f"Gen #{generation}", *(bare_percent(float(value)) for value in row))
    return [scores, worst, mistakes, agree]
