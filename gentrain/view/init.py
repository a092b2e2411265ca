"""Show what `gentrain init` saw in a folder of images, and the study that it wrote."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from gentrain.errors import printable

if TYPE_CHECKING:
    from gentrain.running.init import FirstStudy

MOST_CLASSES = 5


def survey_table(first: FirstStudy, *, folder: str) -> Table:
    """Return a folder's classes, counts and sizes, and the recipe that was chosen."""
    survey, study = first.survey, first.study
    table = Table(title=printable(folder), title_justify="left", title_style="bold", show_header=False)
    table.add_column("")
    table.add_column("", overflow="fold")
    names = ", ".join(map(printable, survey.classes[:MOST_CLASSES]))
    more = ", …" if len(survey.classes) > MOST_CLASSES else ""
    table.add_row("classes", Text(f"{len(survey.classes):,}: {names}{more}"))
    each = survey.counts["train"]
    table.add_row("training images", f"{survey.images('train'):,}, {min(each):,} to {max(each):,} a class")
    split = "" if survey.test_part is None else f", {survey.test_part:.0%} of each class by a fixed seed"
    table.add_row("test images", f"{survey.images('test'):,}{split}")
    smallest, median, largest = survey.sides
    table.add_row("shorter side, pixels", f"{smallest:,} to {largest:,}, median {median:,}")
    table.add_row("copies, unreadable", f"{survey.copies:,}, {len(survey.broken):,}")
    table.add_section()
    dataset, recipe = study.dataset, study.recipe
    table.add_row("network", f"{study.network.name} at {dataset.image_size} × {dataset.image_size} pixels")
    table.add_row("stored as", str(dataset.storage))
    table.add_row("recipe", f"{recipe.epochs} epochs, batches of {recipe.batch_size}, {study.generations} students")
    return table


def survey_lines(first: FirstStudy) -> Iterator[Text]:
    """Yield a line for each oddity, then what to run next."""
    for oddity in first.survey.oddities:
        yield Text(f"note: {oddity}", style="yellow")
    yield Text(f"study: {printable(str(first.file))}", style="bold")
    file = printable(shlex.quote(str(first.file)))
    yield Text(f"next: gentrain chain {file} --smoke   (a minute, to see that it works)")
    yield Text(f"      gentrain chain {file}")
