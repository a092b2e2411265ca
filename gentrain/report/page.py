"""Render the report as one HTML page that loads nothing from elsewhere; all names from users are escaped."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from gentrain.report.drawing import INK, SERIES, Plot, Style, draw_inline
from gentrain.report.matrix import second_pairs
from gentrain.report.records import GenerationRecord, StudyReport, primary_text
from gentrain.report.rows import ReportTable
from gentrain.report.training import TrainingScores
from gentrain.report.tree import Node, Tree, build_trees
from gentrain.scores.metrics import TOP5_CLASSES
from gentrain.study.loading import dump_study
from gentrain.study.sections import imported

FIGURE_BYTES = 3_500_000
"""Limit for all figures of a page, which keeps it below 5 MB; the page says how many panels it leaves out."""
PAIRS = 10


@dataclass(frozen=True)
class _PageFigure:
    plot: Plot
    panels: tuple[tuple[str, Markup], ...]
    left_out: int


def render_page(
    report: StudyReport,
    *,
    tables: Sequence[ReportTable],
    plots: Sequence[Plot],
    styles: Sequence[Style],
    training: Sequence[TrainingScores],
) -> str:
    """Return the page's HTML.

    Args:
        report: records of the study.
        tables: result of `tables.build_tables`.
        plots: result of `figures.build_plots`.
        styles: looks of the processes, for the legend.
        training: data of figure 1.
    """
    trees = build_trees(report)
    script = _resource("page.js")
    colors = {style.series: css_color(style.color) for style in styles}
    environment = Environment(
        loader=FunctionLoader(_resource), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        report=report,
        tables=tables,
        figures=_figures(plots),
        styles=styles,
        css=css_color,
        hue=lambda node: _hue(node, colors),
        facts=_facts(report),
        gaps=(
            ("Generations without a result", report.missing),
            ("Chains that failed", [f"{name}: {reason}" for name, reason in report.failures.items()]),
            ("Files", report.notes),
        ),
        pairs=_pairs(report, training),
        trees=trees,
        drawn=sum(len(tree.nodes) for tree in trees),
        summaries={node.record.key: _summary(node) for tree in trees for node in tree.nodes},
        generations=_generations(trees),
        data=_data(report),
        commands=_commands(report),
        machines=_machines(report),
        yaml=dump_study(report.study),
        version=version("gentrain"),
        date=datetime.now(UTC).date().isoformat(),
        style=Markup(_resource("page.css")),
        script=Markup(script),
        script_digest=Markup(base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()),
    )


def css_color(color: str) -> str:
    """Return the CSS value for a plot's colour; the page defines a light and a dark variant of each."""
    return "currentColor" if color == INK else f"var(--s{SERIES.index(color)})"


@cache
def _resource(name: str) -> str:
    return (files("gentrain.report") / name).read_text(encoding="utf-8")


def _figures(plots: Sequence[Plot]) -> list[_PageFigure]:
    figures, left = [], FIGURE_BYTES
    for plot in plots:
        panels: list[tuple[str, Markup]] = []
        for index, panel in enumerate(plot.panels):
            alt = f"{plot.title}: {panel.title}. {plot.caption}"
            svg = draw_inline(panel, size=plot.size, prefix=f"{plot.id}-{index}", alt=alt)
            if len(svg.encode()) > left:
                break
            left -= len(svg.encode())
            panels.append((panel.title, Markup(svg)))
        figures.append(_PageFigure(plot, tuple(panels), len(plot.panels) - len(panels)))
    return figures


def _facts(report: StudyReport) -> list[tuple[str, str]]:
    total = len(report.distinct)
    classes = report.num_classes
    return [
        ("generations finished", f"{report.finished:,} of {total:,}"),
        ("networks" if len(report.networks) != 1 else "network", ", ".join(report.networks) or "–"),
        ("seeds" if report.seeds != 1 else "seed", f"{report.seeds:,}"),
        ("dataset", report.study.dataset.source),
        ("classes", "unknown" if classes is None else f"{classes:,}"),
    ]


def _pairs(report: StudyReport, training: Sequence[TrainingScores]) -> list[tuple[str, list[tuple[str, str, float]]]]:
    if report.manifest is None:
        return []
    return [(f"{s.network}, {s.origin}", second_pairs(s, report.manifest, count=PAIRS)) for s in training]


def _hue(node: Node, colors: dict[str, str]) -> str:
    return colors[node.series[0]] if len(node.series) == 1 else "currentColor"


def _summary(node: Node) -> str:
    processes = dict.fromkeys(chain.label for chain in node.chains)
    error = f"top-1 error {node.text} %" if node.record.values else node.text
    return f"M({node.record.generation}), seed {node.chains[0].study.seed}, {', '.join(processes)}: {error}"


def _generations(trees: Sequence[Tree]) -> dict[str, list[list[str]]]:
    """Return the facts shown of each generation, by key: name, value, and a link where there is one."""
    return {node.record.key: _generation_facts(node) for tree in trees for node in tree.nodes}


def _generation_facts(node: Node) -> list[list[str]]:
    record = node.record
    rows = [
        ["generation", f"{record.generation}"],
        ["chains", ", ".join(chain.name for chain in node.chains)],
        ["state", record.state if record.values else f"{record.state}, {record.epoch} epochs finished"],
    ]
    for name, column, scale, unit in (
        ("top-1 error", "top1_error", 100, " %"),
        ("top-5 error", "top5_error", 100, " %"),
        ("NLL", "nll", 1, " nats"),
        ("primary score", "primary_measured", 1, f" measured, {primary_text(record.predicted)} predicted"),
    ):
        few = record.spec is not None and record.spec.num_classes < TOP5_CLASSES
        if column in record.values and not (few and column == "top5_error"):
            rows.append([name, f"{scale * record.values[column]:.{2 if scale == 100 else 3}f}{unit}"])
    for chain in node.chains:
        ensemble = chain.generations[record.generation].values.get("ensemble_top1_error")
        if ensemble is not None:
            rows.append([f"ensemble of {chain.label}", f"{100 * ensemble:.2f} % top-1"])
    if record.done is not None:
        rows += [["training", f"{record.done.seconds:,.1f} seconds"], ["trained on", _machine(record)]]
        rows.append(["key", record.key, f"../../../generations/{record.key}/"])
    else:
        rows.append(["key", record.key])
    return rows


def _machine(record: GenerationRecord) -> str:
    assert record.done is not None
    done = record.done
    return f"{done.device}, workers {done.workers}, threads {done.threads} each"


def _data(report: StudyReport) -> list[tuple[str, str]]:
    manifest = report.manifest
    if manifest is None:
        return []
    duplicates = [f"{n:,} within {name}" for name, n in manifest.duplicates.within.items()]
    duplicates += [f"{n:,} across {name}" for name, n in manifest.duplicates.across.items()]
    rows = [
        ("source", manifest.source),
        ("classes", f"{len(manifest.classes):,}"),
        *((name, f"{info.count:,} images") for name, info in manifest.splits.items()),
        ("pixels", f"{manifest.height} × {manifest.width}"),
        ("exact duplicates", ", ".join(duplicates)),
        ("skipped", f"{len(manifest.skipped):,} broken images"),
        ("fingerprint", manifest.fingerprint),
    ]
    if manifest.groups:
        rows.insert(2, ("groups", ", ".join(manifest.groups)))
    return rows


def _commands(report: StudyReport) -> list[str]:
    study, runs = report.study, shlex.quote(report.uri)
    command = "sweep" if study.several else "chain"
    data = "" if study.dataset.source == "digits" or imported(study.dataset.source) else " --data DIR"
    return [
        f"gentrain {command} {shlex.quote(f'{report.uri}/studies/{study.name}/study.yaml')}{data} --runs {runs}",
        f"gentrain report {shlex.quote(study.name)} --runs {runs}",
    ]


def _machines(report: StudyReport) -> list[tuple[Any, ...]]:
    counts: Counter[tuple[str, int, int, str]] = Counter()
    seconds: Counter[tuple[str, int, int, str]] = Counter()
    for record in report.distinct.values():
        if (done := record.done) is not None:
            versions = ", ".join(f"{name} {version}" for name, version in done.versions.items())
            place = (done.device, done.workers, done.threads, versions)
            counts[place] += 1
            seconds[place] += done.seconds  # type: ignore[assignment]
    return [(*place, count, f"{seconds[place]:,.0f}") for place, count in counts.items()]
