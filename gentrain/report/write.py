"""Write a study's report: read the run folder, compute figure 1's scores, draw, write page, tables and figures."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gentrain.events import Note, Observer
from gentrain.report.drawing import draw_file
from gentrain.report.figures import build_plots, build_styles
from gentrain.report.formats import FORMATS
from gentrain.report.gather import gather_study
from gentrain.report.learning import read_epochs
from gentrain.report.page import render_page
from gentrain.report.records import StudyReport
from gentrain.report.rows import ReportTable
from gentrain.report.tables import build_tables
from gentrain.report.training import training_scores
from gentrain.store.run import RunStore

REPORT, TRAINING = "report", "training"
PAGE = "report.html"


@dataclass(frozen=True)
class Written:
    """Hold a written report."""

    report: StudyReport
    tables: tuple[ReportTable, ...]
    page: str
    """Path or URI of the HTML page."""


def write_report(
    store: RunStore,
    study: str,
    *,
    training: bool = True,
    place: str | None = None,
    observe: Observer = lambda _: None,
) -> Written:
    """Write a study's report into its folder: the page, the tables in every format, each figure as PNG and SVG.

    Args:
        store: the run folder.
        study: name of a study in it, finished or not.
        training: whether to draw figure 1, for which patriarchs predict their training set once.
        place: the run folder as the page names it; default: its URI.
        observe: receives notes on slow steps and warnings on damaged files.

    Raises:
        ConfigError, StoreError: see `gather.gather_study`.
        ResourceError: the folder can't be written.
    """
    report = gather_study(store, study)
    report = replace(report, uri=place) if place else report
    folder = store.study(study) / REPORT
    for note in report.notes:
        observe(Note(note, "warning"))
    scores = training_scores(report, store, folder / TRAINING, observe=observe) if training else ()
    tables, plots, styles = (
        build_tables(report),
        build_plots(report, scores, read_epochs(report, store)),
        build_styles(report),
    )
    for part in (folder, folder / "figures", folder / TRAINING):
        part.sweep()
    for name, write in FORMATS.values():
        folder.write(name, write(tables).encode())
    for plot in plots:
        for kind in ("png", "svg"):
            (folder / "figures").write(f"{plot.id}.{kind}", draw_file(plot, kind))
    page = render_page(report, tables=tables, plots=plots, styles=tuple(styles.values()), training=scores)
    folder.write(PAGE, page.encode())
    return Written(report, tables, f"{folder}/{PAGE}")
