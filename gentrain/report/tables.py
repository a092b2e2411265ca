"""Build a report's tables as data: our results with their spread over seeds, the paper's beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from gentrain.report.differences import difference_table
from gentrain.report.records import Group, StudyReport, baseline, with_baseline
from gentrain.report.rows import DASH, Cell, Kind, ReportTable, Row
from gentrain.results.published import (
    DISTILLATION,
    PAPER_RESNETS,
    TABLE_NOTES,
    Measure,
    PublishedRow,
    deviations,
    paper_recipe,
    published_rows,
)
from gentrain.scores.metrics import TOP5_CLASSES
from gentrain.scores.spread import Spread, paired_difference


@dataclass(frozen=True)
class _MeasureRow:
    """Define a row of the table of other measures."""

    label: str
    column: str
    scale: float = 1.0
    digits: int = 3
    kind: Kind = "single"


MEASURES = (
    _MeasureRow("NLL, nats", "nll"),
    _MeasureRow("  + ensemble", "ensemble_nll", kind="ensemble"),
    _MeasureRow("calibration error %", "ece", 100, 2),
    _MeasureRow("  + ensemble", "ensemble_ece", 100, 2, "ensemble"),
    _MeasureRow("primary score, training", "primary_measured"),
)


def build_tables(report: StudyReport) -> tuple[ReportTable, ...]:
    """Return all tables: an overview, then for each network its errors as in the paper, differences, other measures."""
    tables = [_overview(report)] if report.groups else []
    for index, (network, groups) in enumerate(report.networks.items()):
        tables.append(_errors(report, network, groups, "top1_error", id=f"top1-{index}"))
        if report.num_classes is None or report.num_classes >= TOP5_CLASSES:
            tables.append(_errors(report, network, groups, "top5_error", id=f"top5-{index}"))
        if differences := difference_table(network, groups, id=f"differences-{index}"):
            tables.append(differences)
        tables.append(_measures(report, network, groups, id=f"measures-{index}"))
    return tuple(tables)


def _overview(report: StudyReport) -> ReportTable:
    rows, seeds = [], _seeds(report.groups)
    for network, groups in report.networks.items():
        reference = baseline(groups, "top1_error")
        for group in groups:
            last = group.last or 0
            single, ensemble = (group.spread(name, last) for name in ("top1_error", "ensemble_top1_error"))
            known = (
                group.spread("top1_error", 0),
                single,
                ensemble,
                paired_difference(ensemble or single, None if group.baseline else reference),
            )
            label = f"{network}  {group.name}" if len(report.networks) > 1 else group.name
            if group.last is not None and last < group.length - 1:
                label += f" (Gen #{last} of {group.length - 1} so far)"
            cells = tuple(_cell(spread, seeds) for spread in known)
            rows.append(Row(label, cells, process=group.first.label, series=group.series))
    return ReportTable(
        id="overview",
        title="At a glance: top-1 error % on the test set",
        network=", ".join(report.networks),
        columns=("Gen #0", "last", "+ ensemble", "− baseline"),
        rows=tuple(rows),
        notes=(
            _spread_note(report.groups),
            "last: the last finished generation; − baseline: the ensemble's error (the network's without an ensemble) "
            "minus the baseline's over the seeds that both have, in percentage points; negative is better.",
        ),
    )


def _errors(
    report: StudyReport,
    network: str,
    groups: Sequence[Group],
    measure: Measure,
    *,
    id: str,  # noqa: A002
) -> ReportTable:
    source = report.study.dataset.source
    published = [row for row in published_rows(source, network) if measure in row.errors]
    length = max([group.length for group in groups] + [len(row.errors[measure]) for row in published])
    known = {(row.label, row.ensemble): row for row in published}
    rows, seeds = [], _seeds(groups)
    for group in with_baseline(groups):
        label = group.first.label
        plain = known.pop((label, False), None)
        cells = [_cell(group.spread(measure, g), seeds, _at(plain, measure, g)) for g in range(length)]
        if group.baseline:
            cells[0] = _cell(baseline(tuple(groups), measure), seeds, _at(plain, measure, 0))
        rows.append(Row(group.name, tuple(cells), process=label, series=group.series))
        paper = known.pop((label, True), None)
        if group.length > 1 or paper:
            column = f"ensemble_{measure}"
            cells = [_cell(group.spread(column, g), seeds, _at(paper, measure, g)) for g in range(length)]
            rows.append(Row("  + ensemble", tuple(cells), "ensemble", label, group.series))
        for by in ("weighted", "selected"):  # on the held-out split, where there is one
            spreads = [group.spread(f"{by}_{measure}", g) for g in range(length)]
            if any(spreads):
                cells = [_cell(spread, seeds) for spread in spreads]
                rows.append(Row(f"  + {by} ensemble", tuple(cells), "ensemble", label, group.series))
    for row in known.values():
        name = "Baseline" if row.baseline else row.label
        cells = [Cell(published=row.at(measure, g)) for g in range(length)]
        text = "  + ensemble" if row.ensemble else f"{name} (not in this study)"
        kind: Kind = "ensemble" if row.ensemble else "single"
        rows.append(Row(text, tuple(cells), kind, row.label))
    number = {"top1_error": "top-1", "top5_error": "top-5"}[measure]
    return ReportTable(
        id=id,
        title=f"{network}: {number} error % on the test set",
        network=network,
        columns=tuple(f"Gen #{g}" for g in range(length)),
        rows=tuple(rows),
        notes=(_spread_note(groups), *_paper_notes(report, network, groups, published)),
    )


def _measures(
    report: StudyReport,
    network: str,
    groups: Sequence[Group],
    *,
    id: str,  # noqa: A002
) -> ReportTable:
    length = max(group.length for group in groups)
    rows, seeds = [], _seeds(groups)
    for group in groups:
        label = group.first.label
        row = partial(Row, process=label, series=group.series)
        for measure in MEASURES:
            if measure.kind == "ensemble" and group.length == 1:
                continue
            cells = [_cell(group.spread(measure.column, g), seeds, scale=measure.scale) for g in range(length)]
            text = measure.label if measure.kind == "ensemble" else f"{label} {measure.label}"
            rows.append(row(text, tuple(cells), measure.kind, digits=measure.digits))
        targets = [Cell(group.predicted(g)) if g < group.length else Cell() for g in range(length)]
        rows.append(row("  predicted", tuple(targets), "other", digits=3))
        if group.length > 1:
            gains = tuple(_cell(group.gain(g), seeds) for g in range(length))
            rows.append(row(f"{label} ensemble gain, points", gains, signed=True))
        seconds = tuple(_cell(group.spread("train_seconds", g), seeds, scale=1) for g in range(length))
        rows.append(row(f"{label} training, seconds", seconds, digits=0, interval=False))
    return ReportTable(
        id=id,
        title=f"{network}: likelihood, calibration, energy, time",
        network=network,
        columns=tuple(f"Gen #{g}" for g in range(length)),
        rows=tuple(rows),
        notes=(
            _spread_note(groups),
            "primary score: mean largest score over the augmented training set in the last epoch; predicted: "
            f"w_g = 1 - (1 - f_a1)·λ^g, which holds for student loss kl at temperature 1 ({DASH} elsewhere). "
            "Ensemble gain: the network's top-1 error minus the ensemble's.",
        ),
    )


def _cell(spread: Spread | None, seeds: int, published: float | None = None, *, scale: float = 100) -> Cell:
    return Cell.of(spread, partial=spread is not None and spread.n < seeds, published=published, scale=scale)


def _seeds(groups: Iterable[Group]) -> int:
    """Return the most seeds that a process has: the n of a table, where a cell doesn't say otherwise."""
    return max((len(group.chains) for group in groups), default=0)


def _at(row: PublishedRow | None, measure: Measure, generation: int) -> float | None:
    return row.at(measure, generation) if row else None


def _spread_note(groups: Iterable[Group]) -> str:
    seeds = _seeds(groups)
    if seeds <= 1:
        return "One seed, n = 1: no spread, no interval."
    return (
        f"Mean ± sample standard deviation over seeds, n = {seeds} unless stated, and the mean's 95 % interval by "
        "Student's t; none where n = 1."
    )


def _paper_notes(
    report: StudyReport, network: str, groups: Sequence[Group], published: Sequence[PublishedRow]
) -> list[str]:
    point, source = groups[0].first.study, report.study.dataset.source
    if paper_recipe(source, network) is None:
        return [f"The paper has no figures for {network} on {source}."]
    images = report.manifest.splits["train"].count if report.manifest else None
    differing = deviations(point, num_classes=report.num_classes, images=images)
    notes = []
    if published:
        notes.append(
            f"paper: {'; '.join(dict.fromkeys(row.table for row in published))}; difference: ours minus the paper's, "
            f"in percentage points; {DASH}: no value."
        )
        notes += [TABLE_NOTES[published[0].table]] if published[0].table in TABLE_NOTES else []
    elif point.network.name in PAPER_RESNETS:
        notes.append("The paper shows its ResNets in figure 2 only, without numbers.")
    if differing:
        notes.append(f"Not the paper's settings, so differences don't test a reproduction: {'; '.join(differing)}.")
    elif paper_recipe(source, network) is DISTILLATION:
        notes.append("The recipe is the papers'.")
    else:
        notes.append("All settings that the paper states are the same here.")
    return notes
