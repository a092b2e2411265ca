"""Build the report's figures: the paper's two, energy, ensemble gain, reliability. Errors are in per cent.

A new figure is a function that returns a `Plot`, called in `build_plots`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from gentrain.report.differences import error_difference, reference_of
from gentrain.report.drawing import INK, MARKERS, SERIES, Panel, Pen, Plot, Style
from gentrain.report.learning import Epochs, learning_plot
from gentrain.report.matrix import confusion_plot, matrix_plot
from gentrain.report.records import ENSEMBLE, SINGLE, Group, StudyReport, baseline, primary_text
from gentrain.report.training import TrainingScores
from gentrain.scores.spread import Spread

RANKS = 10
FEWEST = 10
"""Smallest number of images for which a reliability bin is drawn."""
PAPER_SOURCES = ("cifar10", "cifar100")
"""Sources of the paper's figures."""
Curve = Callable[[Group, int], Spread | None]
Line = Literal["baseline", "zero"]
"""What is dashed across a panel."""


def build_plots(
    report: StudyReport, training: Sequence[TrainingScores], epochs: Mapping[str, Epochs] | None = None
) -> tuple[Plot, ...]:
    """Return all figures that have data, the paper's first; they are called so over the paper's data alone.

    Args:
        report: records of the study.
        training: the patriarchs' scores on the training set.
        epochs: of generations, by key, for the learning curves.
    """
    styles = build_styles(report)
    curves = partial(_curves, report, styles)
    references = _references(report)
    against = " or ".join(dict.fromkeys(group.short_name for group, _ in references.values()))
    paper = report.study.dataset.source in PAPER_SOURCES
    made = [
        _rank_plot(training, paper=paper),
        matrix_plot(training, report.manifest, paper=paper),
        curves(
            "figure2",
            f"{'Figure 2' if paper else 'Errors'}: top-1 error by generation",
            "top-1 error %",
            _spread_of("top1_error"),
            "Single networks on the test set, one panel for each network; dashed: the baseline.",
        ),
        curves(
            "figure2-ensembles",
            f"{'Figure 2, ensembles' if paper else 'Ensembles'}: top-1 error by generation",
            "ensemble's top-1 error %",
            _spread_of("ensemble_top1_error"),
            "The mean of the softmax outputs of generations 0 to g, patriarch included; dashed: the baseline.",
        ),
        curves(
            "figure2-differences",
            f"{'Figure 2, differences' if paper else 'Differences'}: top-1 error minus the reference's",
            "difference, percentage points",
            partial(_difference, references),
            f"Single networks, minus {against}, seed by seed over the seeds that both have; below 0 is better.",
            line="zero",
        )
        if _paired_seeds(report, references)
        else None,
        _energy(report, styles),
        curves(
            "ensemble-gain",
            "Ensemble gain: single network minus ensemble",
            "gain, percentage points",
            lambda group, generation: group.gain(generation),
            "Top-1 error of the generation's single network minus that of the running ensemble.",
            line=None,
        ),
        _reliability(report, styles),
        learning_plot(report, epochs or {}, styles),
        confusion_plot(report),
    ]
    return tuple(plot for plot in made if plot is not None and plot.panels)


def build_styles(report: StudyReport) -> dict[str, Style]:
    """Return the look of each process by series; the baseline is black, so that the others get the colours."""
    names = {group.series: group for group in report.groups}
    colored = [series for series, group in names.items() if not group.baseline]
    return {
        series: Style(
            series,
            group.name,
            INK if group.baseline else SERIES[colored.index(series) % len(SERIES)],
            list(MARKERS)[list(names).index(series) % len(MARKERS)],
        )
        for series, group in names.items()
    }


def _spread_of(measure: str) -> Curve:
    return lambda group, generation: group.spread(measure, generation)


References = Mapping[str, tuple[Group, Spread | None]]
"""By network: the process that others are compared with, and the baseline's errors."""


def _references(report: StudyReport) -> References:
    networks = report.networks.items()
    return {network: (reference_of(groups), baseline(groups, "top1_error")) for network, groups in networks}


def _difference(references: References, group: Group, generation: int) -> Spread | None:
    reference, strict = references[group.first.network]
    same = group is reference or group.baseline
    return None if same else error_difference((group, reference), strict, generation)


def _paired_seeds(report: StudyReport, references: References) -> bool:
    """Return whether a process and its reference have two seeds in common, so that differences have intervals."""
    spreads = (_difference(references, group, g) for group in report.groups for g in range(group.length))
    return any(spread.n > 1 for spread in spreads if spread is not None)


def _curves(
    report: StudyReport,
    styles: dict[str, Style],
    id: str,  # noqa: A002
    title: str,
    label: str,
    curve: Curve,
    caption: str,
    *,
    line: Line | None = "baseline",
) -> Plot:
    panels = []
    shown: dict[str, Style] = {}
    for network, groups in report.networks.items():
        known = [group for group in groups if any(curve(group, g) for g in range(group.length))]
        if known and any(group.length > 1 for group in groups):
            draw = partial(_draw_curves, groups=groups, styles=styles, label=label, curve=curve, line=line)
            panels.append(Panel(network, draw))
            shown |= {group.series: styles[group.series] for group in known}
    spreads = [curve(group, g) for group in report.groups for g in range(group.length)]
    counts = sorted({spread.n for spread in spreads if spread is not None and spread.n > 1})
    if counts:
        caption += f" Bars: 95 % interval of the mean by Student's t over n = {' or '.join(map(str, counts))} seeds."
    return Plot(id, title, caption, tuple(panels), tuple(shown.values()))


def _draw_curves(
    pen: Pen, *, groups: tuple[Group, ...], styles: dict[str, Style], label: str, curve: Curve, line: Line | None
) -> None:
    axes = pen.axes
    strict = baseline(groups, "top1_error") if line == "baseline" else None
    level = strict.mean if strict else 0.0 if line == "zero" else None
    if level is not None:
        axes.axhline(100 * level, color=INK, linestyle=(0, (5, 3)), linewidth=1.1, zorder=1)
    for index, group in enumerate(groups):
        points = [(g, spread) for g in range(group.length) if (spread := curve(group, g))]
        if not points:
            continue
        style = styles[group.series]
        places = np.array([g for g, _ in points]) + min(0.05, 0.5 / len(groups)) * (index - (len(groups) - 1) / 2)
        means = np.array([100 * spread.mean for _, spread in points])
        texts = [f"{group.name}, Gen #{g}: {_spread_text(spread)}" for g, spread in points]
        bars = [(place, *spread.interval) for place, (_, spread) in zip(places, points, strict=True) if spread.interval]
        if bars:
            at, low, high = np.array(bars).T
            pen.mark(axes.vlines(at, 100 * low, 100 * high, color=style.color, linewidth=1), style)
        (drawn,) = axes.plot(
            places, means, color=style.color, marker=style.marker, markersize=5, linewidth=1.6, clip_on=False
        )
        pen.mark(drawn, style, texts)
    _generations(pen, groups, label)


def _generations(pen: Pen, groups: Sequence[Group], label: str) -> None:
    pen.axes.set_xlim(-0.3, max(group.length for group in groups) - 0.7)
    pen.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    pen.axes.set_xlabel("generation")
    pen.axes.set_ylabel(label)


def _spread_text(spread: Spread) -> str:
    mean = f"{100 * spread.mean:.2f}"
    if spread.std is None or spread.interval is None:
        return mean
    low, high = (100 * end for end in spread.interval)
    return f"{mean} ± {100 * spread.std:.2f}, 95 % interval [{low:.2f}, {high:.2f}] (n = {spread.n})"


def _energy(report: StudyReport, styles: dict[str, Style]) -> Plot:
    panels: list[Panel] = []
    shown: dict[str, Style] = {}
    for network, groups in report.networks.items():
        known = tuple(group for group in groups if group.last is not None and group.length > 1)
        if known:
            panels.append(Panel(network, partial(_draw_energy, groups=known, styles=styles)))
            shown |= {group.series: styles[group.series] for group in known}
    return Plot(
        "energy",
        "Energy: measured and predicted by generation",
        "Mean largest score over the augmented training set in the last epoch (solid), and the closed form "
        "w_g = 1 - (1 - f_a1)·λ^g (dotted), which holds for student loss kl at temperature 1. "
        "Lower means more score on the other classes.",
        tuple(panels),
        tuple(shown.values()),
    )


def _draw_energy(pen: Pen, *, groups: tuple[Group, ...], styles: dict[str, Style]) -> None:
    for group in groups:
        style = styles[group.series]
        predicted = [group.predicted(g) for g in range(group.length)]
        (dotted,) = pen.axes.plot(
            [math.nan if w is None else w for w in predicted], color=style.color, linestyle=":", linewidth=1.4
        )
        pen.mark(dotted, style)
        points = [(g, spread) for g in range(group.length) if (spread := group.spread("primary_measured", g))]
        texts = [
            f"{group.name}, Gen #{g}: measured {spread.mean:.3f}, predicted {primary_text(predicted[g])}"
            for g, spread in points
        ]
        (line,) = pen.axes.plot(
            [g for g, _ in points],
            [spread.mean for _, spread in points],
            color=style.color, marker=style.marker, markersize=5, linewidth=1.6, clip_on=False,
        )  # fmt: skip
        pen.mark(line, style, texts)
    pen.axes.set_ylim(top=1.02)
    _generations(pen, groups, "mean largest score")


def _rank_plot(training: Sequence[TrainingScores], *, paper: bool) -> Plot:
    panels: list[Panel] = []
    shown: dict[str, Style] = {}
    origins = list(dict.fromkeys(scores.origin for scores in training))
    for network in dict.fromkeys(scores.network for scores in training):
        own = [scores for scores in training if scores.network == network]
        styles = [
            Style(f"aim{origins.index(s.origin)}", f"patriarch of {s.origin}",
                  SERIES[origins.index(s.origin) % len(SERIES)], list(MARKERS)[origins.index(s.origin) % len(MARKERS)])
            for s in own
        ]  # fmt: skip
        panels.append(Panel(network, partial(_draw_ranks, training=own, styles=styles)))
        shown |= {style.series: style for style in styles}
    return Plot(
        "figure1-left",
        f"{'Figure 1, left' if paper else 'Sorted scores'}: mean sorted scores by rank, training set",
        "Mean over the training images, without augmentation, of the largest, second largest … score; patriarchs of "
        "one seed. A tolerant patriarch puts more score on the classes after the first.",
        tuple(panels),
        tuple(shown.values()),
    )


def _draw_ranks(pen: Pen, *, training: Sequence[TrainingScores], styles: Sequence[Style]) -> None:
    for scores, style in zip(training, styles, strict=True):
        values = scores.by_rank[:RANKS]
        texts = [f"{style.name}, rank {rank}: {value:.4g}" for rank, value in enumerate(values, 1)]
        (line,) = pen.axes.plot(
            np.arange(1, len(values) + 1), values, color=style.color, marker=style.marker, markersize=5, linewidth=1.6
        )
        pen.mark(line, style, texts)
    pen.axes.set_yscale("log")
    low, high = pen.axes.get_ylim()
    pen.axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    pen.axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    pen.axes.yaxis.set_minor_formatter(NullFormatter())
    pen.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    pen.axes.set_xlabel("rank of the score")
    pen.axes.set_ylabel("mean score")


def _reliability(report: StudyReport, styles: dict[str, Style]) -> Plot:
    panels = []
    for network, groups in report.networks.items():
        for group in groups:
            if group.last is not None:
                title = f"{network}, {group.name}" if len(report.networks) > 1 else group.name
                panels.append(Panel(title, partial(_draw_reliability, group=group, style=styles[group.series])))
    return Plot(
        "reliability",
        "Reliability: patriarch, last generation, ensemble",
        "Accuracy against confidence on the test set in 15 bins of equal width, all seeds together; in brackets the "
        f"expected calibration error. Bins of fewer than {FEWEST} images are left out; dotted: perfect calibration.",
        tuple(panels),
        size=(3.4, 3.3),
    )


def _draw_reliability(pen: Pen, *, group: Group, style: Style) -> None:
    last = group.last or 0
    wanted = [(0, SINGLE, "M(0)", "-", "none", INK)]
    wanted += [(last, SINGLE, f"M({last})", "-", style.color, style.color)] if last else []
    wanted += [(last, ENSEMBLE, "ensemble", "--", "none", style.color)] if last else []
    pen.axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1)
    for generation, which, name, line, face, shade in wanted:
        bins = group.bins(which, generation)
        if bins is None:
            continue
        count, confidence, hits = bins[:, bins[0] >= FEWEST]
        error = np.abs(bins[2] - bins[1]).sum() / bins[0].sum()
        (drawn,) = pen.axes.plot(
            confidence / count, hits / count, color=shade, linestyle=line, marker=style.marker, markersize=4,
            markerfacecolor=face, linewidth=1.3, label=f"{name} ({100 * error:.1f} %)",
            alpha=1 if generation else 0.6, clip_on=False,
        )  # fmt: skip
        rows = zip(confidence / count, hits / count, count, strict=True)
        texts = [f"{name}: confidence {c:.2f}, accuracy {h:.2f}, {n:,.0f} images" for c, h, n in rows]
        pen.mark(drawn, style, texts)
    pen.axes.set_xlim(0, 1)
    pen.axes.set_ylim(0, 1)
    pen.axes.set_aspect("equal")
    pen.axes.set_xlabel("confidence")
    pen.axes.set_ylabel("accuracy")
    pen.axes.legend(loc="best", fontsize=8, handlelength=1.8)
