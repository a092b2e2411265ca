"""Show results, prepared data, networks, plans, states and evaluations as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from gentrain.errors import printable
from gentrain.results.units import duration, size
from gentrain.scores.metrics import TOP5_CLASSES
from gentrain.view.tall import TallTable

if TYPE_CHECKING:
    from gentrain.data.prepare.manifest import Manifest
    from gentrain.results.status import GenerationStatus, StudyStatus
    from gentrain.running.plan import Plan
    from gentrain.study.lineage import GenerationSpec

MOST_BRANCHES = 40
MANY_ROWS = 100


def results_table(rows: Sequence[Mapping[str, Any]], *, classes: int | None = None) -> Table:
    """Return a chain's results as in the paper's tables: a column for each generation, single network and ensemble.

    Args:
        rows: of results.parquet.
        classes: of the data; of few, top-5 errors are left out.
    """
    table = Table(title=rows[0]["chain"], title_justify="left", title_style="bold")
    table.add_column("")
    for row in rows:
        table.add_column(f"Gen #{row['generation']}", justify="right")
    for name, column, show in (
        ("top-1 error %", "top1_error", bare_percent),
        ("top-5 error %", "top5_error", bare_percent),
        ("NLL", "nll", three),
        ("calibration error %", "ece", bare_percent),
    ):
        if column == "top5_error" and classes is not None and classes < TOP5_CLASSES:
            continue
        table.add_row(name, *(show(row[column]) for row in rows))
        table.add_row("  + ensemble", *(_beside(row, column, show) for row in rows))
        for kind in ("weighted", "selected"):  # on the held-out split, where there is one
            values = [row.get(f"{kind}_{column}") for row in rows]
            if any(value is not None for value in values):
                table.add_row(f"  + {kind}", *map(show, values))
    table.add_section()
    if any(row.get("ensemble_weights") for row in rows):
        table.add_row("weights of the ensemble", *(_weights(row["ensemble_weights"]) for row in rows))
        table.add_row("generations selected", *(_generations(row["selected_generations"]) for row in rows))
        table.add_section()
    table.add_row("primary score, training", *(three(row["primary_measured"]) for row in rows))
    table.add_row("  predicted", *(three(row["primary_predicted"]) for row in rows))
    table.add_row("training time", *(duration(row["train_seconds"]) for row in rows))
    return table


def _beside(row: Mapping[str, Any], column: str, show: Callable[[float | None], str]) -> Text:
    """Return an ensemble's value, in bold where it is better than the single network's."""
    value = row[f"ensemble_{column}"]
    return Text(show(value), style="bold" if value is not None and value < row[column] else "")


def manifest_table(manifest: Manifest, *, folder: str) -> Table:
    """Return the contents of a prepared dataset."""
    table = Table(title=f"{manifest.source}: {folder}", title_justify="left", title_style="bold", show_header=False)
    table.add_column("")
    table.add_column("", overflow="fold")
    shown = printable(", ".join(manifest.classes[:8])) + (" …" if len(manifest.classes) > 8 else "")
    table.add_row("classes", f"{len(manifest.classes)} ({shown})")
    if manifest.groups:
        shown = printable(", ".join(manifest.groups[:5])) + (" …" if len(manifest.groups) > 5 else "")
        table.add_row("groups", f"{len(manifest.groups)} ({shown})")
    for name, info in manifest.splits.items():
        table.add_row(name, f"{info.count:,} images, {info.bytes / 1e6:,.1f} MB, sha256 {info.sha256[:16]}…")
    table.add_row("pixels", f"{manifest.height} × {manifest.width}")
    table.add_row(
        "mean, std", "  ".join(f"{m:.4f} ± {s:.4f}" for m, s in zip(manifest.mean, manifest.std, strict=True))
    )
    duplicates = [f"{n} within {name}" for name, n in manifest.duplicates.within.items()]
    duplicates += [f"{n} across {name}" for name, n in manifest.duplicates.across.items()]
    table.add_row("exact duplicates", ", ".join(duplicates))
    table.add_row("skipped", f"{len(manifest.skipped)} broken images")
    table.add_row("fingerprint", f"{manifest.fingerprint[:16]}…")
    return table


def networks_table(rows: Sequence[Mapping[str, Any]], *, classes: int) -> Table:
    """Return networks with their parameters and multiply-adds."""
    table = Table(title=f"for {classes:,} classes", title_justify="left", title_style="bold")
    table.add_column("network", no_wrap=True)
    for name in ("parameters", "multiply-adds per image, millions", "pixels"):
        table.add_column(name, justify="right")
    for row in rows:
        adds, side = row["multiply_adds"] / 1e6, row["size"]
        table.add_row(Text(row["network"]), f"{row['parameters']:,}", f"{adds:,.1f}", f"{side} × {side}")
    return table


def plan_table(plan: Plan, *, name: str) -> Table:
    """Return a study's cost with units; `unknown` where seconds are missing."""
    forest = plan.forest
    table = Table(title=f"{name}: cost", title_justify="left", title_style="bold", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("chains", f"{len(forest.chains):,}")
    table.add_row("generations of all chains", f"{forest.wanted:,}")
    table.add_row("distinct trainings", f"{len(forest.trainings):,}")
    table.add_row("  saved by sharing", f"{forest.wanted - len(forest.trainings):,}")
    table.add_row("  already finished", f"{len(plan.finished):,}")
    table.add_row("  to train", f"{len(plan.to_train):,}", style="bold")
    table.add_section()
    for (network, kind), seconds in _by_network(plan).items():
        table.add_row(f"one {kind}, {network}", duration(seconds))
    table.add_section()
    hours = None if plan.device_seconds is None else plan.device_seconds / 3600
    table.add_row("device-hours", _unknown(hours, "{:,.2f} h"))
    table.add_row(
        f"makespan on {_count(plan.devices, 'device')}, {_count(plan.at_once, 'training')} at once",
        duration(plan.makespan),
    )
    table.add_row("  lower bound of any schedule", duration(plan.lower_bound))
    table.add_row("  with Ray's start, about", duration(plan.ray_seconds))
    if plan.footprint is not None:
        table.add_section()
        for label, count in (
            ("disk", plan.footprint.disk),
            ("  weights and predictions", plan.footprint.generations),
            ("  checkpoints while training", plan.footprint.checkpoints),
            ("  prepared images", plan.footprint.prepared),
            ("memory of a worker on CPUs, about", plan.footprint.worker),
        ):
            table.add_row(label, size(count))
        table.add_section()
    if plan.price is not None:
        table.add_row(f"cost at {plan.price:g} per device-hour", _unknown(plan.cost, "{:,.2f}"), style="bold")
    return table


def chains_table(plan: Plan) -> Table:
    """Return what each chain takes by itself: trainings, epochs, device-hours and cost; `unknown` where it isn't."""
    from gentrain.running.cost import chain_costs

    table = Table(title="each chain by itself", title_justify="left", title_style="bold")
    table.add_column("chain", overflow="fold")
    for column in ("trainings", "epochs", "device-hours", *(["cost"] if plan.price is not None else [])):
        table.add_column(column, justify="right")
    chains = chain_costs(plan)
    for chain in chains[:MOST_BRANCHES]:
        hours = None if chain.device_seconds is None else chain.device_seconds / 3600
        cost = [_unknown(chain.cost, "{:,.2f}")] if plan.price is not None else []
        table.add_row(
            printable(chain.name), f"{chain.trainings:,}", f"{chain.epochs:,}", _unknown(hours, "{:,.2f}"), *cost
        )
    if len(chains) > MOST_BRANCHES:
        table.caption = f"and {len(chains) - MOST_BRANCHES:,} more chains"
    return table


def plan_assumptions(plan: Plan) -> str:
    """Return what the plan's seconds are based on, and how to fill in unknown ones."""
    text = "Seconds: medians of similar generations in the run folder (same data, network, batch, precision, workers)"
    if plan.measured_here:
        text += "; for other networks a few steps timed on this machine (--measure)"
    text += ". Training steps only, without evaluating."
    if plan.unknown and plan.measured_here:
        text += f" Unknown for {plan.unknown:,} trainings: students with several teachers are not timed."
    elif plan.unknown:
        text += f" Unknown for {plan.unknown:,} trainings: --measure times a few steps of each network here."
    if plan.better_local and plan.workers == 1:
        text += (
            f"\nSo small a study is through sooner with --local, without Ray: in about {duration(plan.local_seconds)}."
        )
    return text


def _by_network(plan: Plan) -> dict[tuple[str, str], float | None]:
    return {
        (plan.forest.specs[key].network.name, plan.forest.specs[key].work): seconds
        for key, seconds in plan.to_train.items()
    }


def forest_tree(plan: Plan, *, name: str) -> Tree:
    """Return the lineage as a tree of patriarchs and students; an unbranched line is one entry, M(1)..M(5)."""
    forest = plan.forest
    students: dict[str | None, list[GenerationSpec]] = {}
    for spec in forest.specs.values():  # a pretrained generation's own teacher is not part of this study
        students.setdefault(spec.teacher if spec.teacher in forest.specs else None, []).append(spec)
    tree = Tree(Text(name, style="bold"))

    def grow(branch: Tree, first: GenerationSpec) -> None:
        line = [first]
        while len(following := students.get(line[-1].key, [])) == 1:
            if forest.wanted_by[following[0].key] != forest.wanted_by[first.key]:
                break
            line.append(following[0])
        grown = branch.add(_branch(plan, line))
        for student in students.get(line[-1].key, []):
            grow(grown, student)

    patriarchs = students.get(None, [])
    for patriarch in patriarchs[:MOST_BRANCHES]:
        grow(tree, patriarch)
    if len(patriarchs) > MOST_BRANCHES:
        tree.add(f"… and {len(patriarchs) - MOST_BRANCHES:,} more patriarchs")
    return tree


def _branch(plan: Plan, line: Sequence[GenerationSpec]) -> Text:
    first, last = line[0], line[-1]
    generations = f"M({first.generation})" + (f"..M({last.generation})" if last is not first else "")
    chains = plan.forest.wanted_by[first.key]
    text = Text(generations)
    if len(chains) > 1:
        settings = next(chain.settings for chain in plan.forest.chains if chain.name == chains[0])
        process = settings.process
        start = "given" if settings.pretrained else process.start
        own = f",{process.patriarch_label}" if process.patriarch_label and not settings.pretrained else ""
        text.append(f"  D({start},·{own})-{first.network.name}-s{first.seed}", style="cyan")
        text.append(f"  shared by {len(chains)} chains")
    else:
        text.append(f"  {chains[0]}", style="cyan")
    if finished := sum(spec.key in plan.finished for spec in line):
        text.append(
            f"  {'finished' if finished == len(line) else f'{finished} of {len(line)} finished'}", style="green"
        )
    return text


def status_table(status: StudyStatus) -> Table | TallTable:
    """Return a study's state: a row for each chain, a column for each generation."""
    cells = [cell for chain in status.chains.values() for cell in chain]
    counts = {state: sum(cell.state == state for cell in cells) for state in STATES}
    summary = ", ".join([_count(len(cells), "generation"), *(f"{n} {state}" for state, n in counts.items() if n)])
    failures = "".join(f"\n{name}: {reason}" for name, reason in status.failures.items())

    def make(rows: Sequence[Sequence[Text]]) -> Table:
        table = Table(
            title=f"{status.name}: {summary}", title_justify="left", title_style="bold", caption_justify="left"
        )
        table.add_column("chain", overflow="fold")
        for generation in range(max((len(chain) for chain in status.chains.values()), default=0)):
            table.add_column(f"Gen #{generation}", justify="right")
        for row in rows:
            table.add_row(*row)
        table.caption = Text(f"numbers: top-1 error of finished generations{failures}")
        return table

    rows = [
        [Text(name), *(_cell(cell, epochs=status.epochs) for cell in chain)] for name, chain in status.chains.items()
    ]
    return make(rows) if len(rows) < MANY_ROWS else TallTable(make, rows)


STATES = {
    "failed": "red",
    "stopped": "dim",
    "saturated": "dim",
    "starting": "yellow",
    "compiling": "yellow",
    "done": "green",
    "running": "cyan",
    "interrupted": "yellow",
    "waiting": "dim",
    "damaged": "red",
}


def _cell(cell: GenerationStatus, *, epochs: int) -> Text:
    shown = percent(cell.top1_error) if cell.state == "done" else cell.state
    if cell.state in ("running", "interrupted"):
        shown += f" {cell.epoch}/{cell.epochs or epochs}"
    return Text(shown, style=STATES[cell.state])


def percent(value: float | None) -> str:
    """Return a fraction as a percentage; a dash for None."""
    return "–" if value is None else f"{100 * value:.2f}%"


def bare_percent(value: float | None) -> str:
    """Return a fraction as a percentage without the sign; a dash for None."""
    return "–" if value is None else f"{100 * value:.2f}"


def three(value: float | None) -> str:
    """Return a score with three decimals; a dash for None."""
    return "–" if value is None else f"{value:.3f}"


def _weights(values: Sequence[float] | None) -> str:
    return "\n".join(f"{value:.2f}" for value in values) if values else "–"


def _generations(values: Sequence[int] | None) -> str:
    return ", ".join(map(str, values)) if values else "–"


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}" if number == 1 else f"{number:,g} {noun}s"


def _unknown(value: float | None, text: str) -> str:
    return "unknown" if value is None else text.format(value)
