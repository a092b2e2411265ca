"""Show a study's plan: its lineage as a tree, its time and cost, and what they are based on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from gentrain.errors import printable
from gentrain.results.units import duration, size
from gentrain.view.tables import count

if TYPE_CHECKING:
    from gentrain.running.plan import Plan
    from gentrain.study.lineage import GenerationSpec

MOST_BRANCHES = 40
Figure = Callable[["Plan"], float | None]


def plan_table(plan: Plan, *, name: str) -> Table:
    """Return a study's cost with units; where seconds are missing, with ≈ and a band if estimated, else `unknown`."""
    forest = plan.forest
    filled = [plan.filled(bound) for bound in ("seconds", "low", "high")] if plan.estimates else []

    def shown(figure: Figure, show: Callable[[float | None], str] = duration, *, band: bool = True) -> str:
        if (known := figure(plan)) is not None or not filled:
            return show(known)
        return _estimated([figure(each) for each in (filled if band else filled[:1])], show)

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
    for (network, kind), key in _by_network(plan).items():
        table.add_row(f"one {kind}, {network}", shown(lambda each, key=key: each.to_train[key]))  # type: ignore[misc]
    table.add_section()
    table.add_row("device-hours", shown(lambda each: each.device_seconds, _hours))
    table.add_row(
        f"makespan on {count(plan.devices, 'device')}, {count(plan.at_once, 'training')} at once",
        shown(lambda each: each.makespan),
    )
    table.add_row("  lower bound of any schedule", shown(lambda each: each.lower_bound, band=False))
    table.add_row("  with Ray's start, about", shown(lambda each: each.ray_seconds, band=False))
    if plan.footprint is not None:
        table.add_section()
        for label, taken in (
            ("disk", plan.footprint.disk),
            ("  weights and predictions", plan.footprint.generations),
            ("  checkpoints while training", plan.footprint.checkpoints),
            ("  prepared images", plan.footprint.prepared),
            ("memory of a worker on CPUs, about", plan.footprint.worker),
        ):
            table.add_row(label, size(taken))
        table.add_section()
    if plan.price is not None:
        table.add_row(f"cost at {plan.price:g} per device-hour", shown(lambda each: each.cost, _money), style="bold")
    return table


def _estimated(figures: Sequence[float | None], show: Callable[[float | None], str]) -> str:
    """Return a figure, with its band where that is given."""
    point, *band = figures
    return "unknown" if point is None else f"≈ {show(point)}" + (f" ({' – '.join(map(show, band))})" if band else "")


def _hours(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds / 3600:,.2f} h"


def _money(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.2f}"


def chains_table(plan: Plan) -> Table:
    """Return what each chain takes by itself: trainings, epochs, device-hours and cost; `unknown` where it isn't."""
    from gentrain.running.cost import chain_costs

    table = Table(title="each chain by itself", title_justify="left", title_style="bold")
    table.add_column("chain", overflow="fold")
    for column in ("trainings", "epochs", "device-hours", *(["cost"] if plan.price is not None else [])):
        table.add_column(column, justify="right")
    chains, filled = chain_costs(plan), chain_costs(plan.filled("seconds"))
    for known, chain in list(zip(chains, filled, strict=True))[:MOST_BRANCHES]:
        sign = "≈ " if known.device_seconds is None and chain.device_seconds is not None else ""
        hours = "unknown" if chain.device_seconds is None else f"{sign}{chain.device_seconds / 3600:,.2f}"
        cost = [f"{sign}{_money(chain.cost)}"] if plan.price is not None else []
        table.add_row(printable(chain.name), f"{chain.trainings:,}", f"{chain.epochs:,}", hours, *cost)
    if len(chains) > MOST_BRANCHES:
        table.caption = f"and {len(chains) - MOST_BRANCHES:,} more chains"
    return table


def plan_assumptions(plan: Plan) -> str:
    """Return what the plan's seconds are based on, and how to fill in unknown ones."""
    text = "Seconds: medians of similar generations in the run folder (same data, network, batch, precision, workers)"
    if plan.measured_here:
        text += "; for other networks a few steps timed on this machine (--measure)"
    text += ". Training steps only, without evaluating."
    left = plan.unknown - len(plan.estimates)
    if left and plan.measured_here:
        text += f" Unknown for {left:,} trainings: students with several teachers are not timed."
    elif left:
        text += f" Unknown for {left:,} trainings: --measure times a few steps of each network here."
    for basis, networks in _bases(plan).items():
        text += f"\n≈ {', '.join(networks)}: from {basis}"
    if plan.estimates:
        text += "\nIn brackets: where nine of ten should lie."
    if plan.better_local and plan.workers == 1:
        text += (
            f"\nSo small a study is through sooner with --local, without Ray: in about {duration(plan.local_seconds)}."
        )
    return text


def _bases(plan: Plan) -> dict[str, list[str]]:
    """Return the networks that were estimated by what they are estimated from."""
    bases: dict[str, dict[str, None]] = {}
    for key, guess in plan.estimates.items():
        bases.setdefault(guess.basis, {})[plan.forest.specs[key].network.name] = None
    return {basis: list(networks) for basis, networks in bases.items()}


def _by_network(plan: Plan) -> dict[tuple[str, str], str]:
    """Return the key of a training of each network and kind."""
    return {(plan.forest.specs[key].network.name, plan.forest.specs[key].work): key for key in plan.to_train}


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
