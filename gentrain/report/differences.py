"""Build the table of differences between the processes of one network, paired over seeds, with 95 % intervals."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from gentrain.report.records import Group, baseline, with_baseline
from gentrain.report.rows import Cell, ReportTable, Row
from gentrain.scores.spread import Spread, paired_difference, unpaired_seeds

MOST_PAIRS = 10
"""Most pairs that are compared each with each; of more processes, each is compared with the reference alone."""
Pair = tuple[Group, Group]


def reference_of(groups: Sequence[Group]) -> Group:
    """Return the process that others are compared with: the baseline, or the study's first where there is none."""
    groups = with_baseline(groups)
    return next((group for group in groups if group.baseline), groups[0])


def error_difference(pair: Pair, strict: Spread | None, generation: int) -> Spread | None:
    """Return the first's top-1 error minus the second's, seed by seed over the seeds that both have.

    A baseline has one generation, which every generation of the other is compared with.

    Args:
        pair: of processes on one network.
        strict: the baseline's errors on that network (see `baseline`).
        generation: to compare.
    """
    return paired_difference(*_sides(pair, strict, generation, "top1_error"))


def difference_table(network: str, groups: Sequence[Group], *, id: str) -> ReportTable | None:  # noqa: A002
    """Return one network's differences of top-1 errors; None where no two processes have two seeds in common."""
    groups = with_baseline(groups)
    reference = reference_of(groups)
    pairs = [(later, earlier) for earlier, later in itertools.combinations(groups, 2)]
    alone = len(pairs) > MOST_PAIRS
    pairs = [(group, reference) for group in groups if group is not reference] if alone else pairs
    length, strict = max(group.length for group in groups), baseline(tuple(groups), "top1_error")
    rows: list[Row] = []
    left_out = []
    for pair in pairs:
        name = pair[0].short_name if alone else f"{pair[0].short_name} − {pair[1].short_name}"
        measures = {name: "top1_error", "  + ensemble": "ensemble_top1_error"}
        sides = {
            label: [_sides(pair, strict, g, measure) for g in range(length)] for label, measure in measures.items()
        }
        rows += _rows(pair[0], {label: [paired_difference(*each) for each in own] for label, own in sides.items()})
        unpaired = {seed for first, other in sides[name] if first and other for seed in unpaired_seeds(first, other)}
        left_out += [f"{name} without {', '.join(map(str, sorted(unpaired)))}"] if unpaired else []
    if not any(cell.n > 1 for row in rows for cell in row.cells):
        return None
    notes = (
        "Over the seeds that both have, generation by generation (a baseline's one against each), in percentage "
        "points: mean ± sample standard deviation, and the 95 % interval of the paired t-test; negative: the first "
        "errs less. Each interval stands for itself: of 20 pairs that don't differ, about one excludes 0.",
        *([f"Seeds that only one of the two has are left out: {'; '.join(left_out)}."] if left_out else []),
    )
    return ReportTable(
        id=id,
        title=f"{network}: difference of top-1 errors, {f'minus {reference.short_name}' if alone else 'each pair'}",
        network=network,
        columns=tuple(f"Gen #{g}" for g in range(length)),
        rows=tuple(rows),
        notes=notes,
    )


def _sides(pair: Pair, strict: Spread | None, generation: int, measure: str) -> tuple[Spread | None, Spread | None]:
    first, other = (strict if group.baseline else group.spread(measure, generation) for group in pair)
    return first, other


def _rows(group: Group, differences: dict[str, list[Spread | None]]) -> Iterable[Row]:
    for label, spreads in differences.items():
        if any(spreads):
            cells = tuple(Cell.of(spread, partial=True) for spread in spreads)  # partial: so that n is shown
            kind = "other" if label.startswith(" ") else "single"
            yield Row(label, cells, kind, group.first.label, group.series, signed=True)  # type: ignore[arg-type]
