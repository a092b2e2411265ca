"""What a report is made of: plain frozen records of a study, its chains over seeds, and their generations."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gentrain.data.prepare.manifest import Manifest
from gentrain.results.status import State
from gentrain.store.generation import Done
from gentrain.study.lineage import GenerationSpec
from gentrain.study.process import Process
from gentrain.study.schema import Study

SINGLE, ENSEMBLE = "single", "ensemble"
PAPER_NAMES = {"D(1.0,0.0)": "Baseline", "D(1.0,0.5)": "BornAgain"}
"""What figure 2 calls two processes."""


@dataclass(frozen=True)
class Spread:
    """One measure over seeds."""

    values: Mapping[int, float]
    """By seed; at least one."""

    @property
    def n(self) -> int:
        """Seeds that have it."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values.values())

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None for one seed, which has no spread."""
        return statistics.stdev(self.values.values()) if self.n > 1 else None


@dataclass(frozen=True)
class GenerationRecord:
    """One generation of one chain, as far as it is."""

    generation: int
    key: str
    state: State
    epoch: int
    """Finished epochs of one that isn't done."""
    predicted: float | None
    """Primary score w_g of the closed form; None where it begins from a measurement that isn't there yet."""
    spec: GenerationSpec | None = None
    """None where it isn't done."""
    done: Done | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    """Measures by the names of results.parquet's columns; errors are fractions. What isn't known isn't in it."""
    bins: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Sums of `metrics.reliability` over the test set, of `SINGLE` and `ENSEMBLE`."""


@dataclass(frozen=True)
class ChainRecord:
    """One chain D(f_a1, λ) of one network and seed."""

    name: str
    study: Study
    """Of this chain alone, without a grid."""
    generations: tuple[GenerationRecord, ...]

    @property
    def process(self) -> Process:
        """D(f_a1, λ); f_a1 plays no part where the first generations are given."""
        return self.study.process.process

    @property
    def label(self) -> str:
        """Its process as its name tells it: D(0.6,0.6), or D(given-1a2b3c4d,0.6)."""
        return self.name[: self.name.rindex(")") + 1]

    @property
    def origin(self) -> str:
        """What its first generation is, whatever becomes of it: D(0.6,·), D(0.6,·,K4), D(given-1a2b3c4d,·)."""
        start, _, *others = self.label.removeprefix("D(").removesuffix(")").split(",")
        return f"D({','.join([start, '·', *(part for part in others if part.startswith('K'))])})"

    @property
    def strict(self) -> bool:
        """Whether its patriarch is ordinary training."""
        return not self.study.given and self.process.f_a1 == 1.0

    @property
    def network(self) -> str:
        """Name of its network; of both where the students have one of their own."""
        network = self.study.network
        return f"{network.name} → {network.students}" if network.students else network.name


@dataclass(frozen=True)
class Group:
    """One process on one network: chains that differ in nothing but the seed."""

    series: str
    """Short and safe name of its process, the same on every network: `p0`, `p1`, …"""
    chains: tuple[ChainRecord, ...]

    @property
    def first(self) -> ChainRecord:
        """Any of its chains, for what they share."""
        return self.chains[0]

    @property
    def name(self) -> str:
        """The process's label, with the paper's name where it has one."""
        paper = PAPER_NAMES.get(self.first.label)
        return f"{paper} {self.first.label}" if paper else self.first.label

    @property
    def baseline(self) -> bool:
        """Whether it is ordinary training alone, without students."""
        return self.first.strict and self.length == 1

    @property
    def length(self) -> int:
        """Generations that are wanted, the patriarch included."""
        return max(len(chain.generations) for chain in self.chains)

    def spread(self, measure: str, generation: int) -> Spread | None:
        """Return a measure of a generation over seeds; None where no seed has it."""
        found = {
            chain.study.seed: record.values[measure]
            for chain in self.chains
            for record in chain.generations[generation : generation + 1]
            if measure in record.values
        }
        return Spread(found) if found else None

    def gain(self, generation: int) -> Spread | None:
        """Return by how much the running ensemble's top-1 error is lower than the single network's, seed by seed."""
        single, ensemble = (self.spread(name, generation) for name in ("top1_error", "ensemble_top1_error"))
        if single is None or ensemble is None:
            return None
        return Spread({seed: single.values[seed] - error for seed, error in ensemble.values.items()})

    def predicted(self, generation: int) -> float | None:
        """Return the closed form's w_g; the mean over seeds where they begin from measurements."""
        records = [chain.generations[generation] for chain in self.chains if generation < len(chain.generations)]
        known = [record.predicted for record in records if record.predicted is not None]
        return statistics.fmean(known) if known else None

    def bins(self, which: str, generation: int) -> np.ndarray | None:
        """Return `metrics.reliability`'s sums over all seeds; None where no seed has them."""
        found = [c.generations[generation].bins.get(which) for c in self.chains if generation < len(c.generations)]
        known = [bins for bins in found if bins is not None]
        return np.sum(known, axis=0) if known else None

    @property
    def last(self) -> int | None:
        """Return the last generation that any seed has finished; None where there is none."""
        done = [record.generation for chain in self.chains for record in chain.generations if record.values]
        return max(done, default=None)


@dataclass(frozen=True)
class StudyReport:
    """A study as the run folder tells it."""

    study: Study
    uri: str
    """Of the run folder."""
    groups: tuple[Group, ...]
    failures: Mapping[str, str]
    """Why chains could not be finished, by their names."""
    notes: tuple[str, ...]
    """What was damaged or left out, and what to do about it."""
    data: str | None
    """Name of the prepared dataset's folder; None where it isn't there."""
    manifest: Manifest | None

    @cached_property
    def chains(self) -> tuple[ChainRecord, ...]:
        """Every chain, by group."""
        return tuple(chain for group in self.groups for chain in group.chains)

    @cached_property
    def networks(self) -> dict[str, tuple[Group, ...]]:
        """Groups by network, in the study's order."""
        names = dict.fromkeys(group.first.network for group in self.groups)
        return {name: tuple(g for g in self.groups if g.first.network == name) for name in names}

    @cached_property
    def distinct(self) -> dict[str, GenerationRecord]:
        """Every generation once, whoever shares it, by key."""
        return {record.key: record for chain in self.chains for record in chain.generations}

    @property
    def finished(self) -> int:
        """Distinct generations with a result."""
        return sum(bool(record.values) for record in self.distinct.values())

    @property
    def missing(self) -> tuple[str, ...]:
        """What isn't there yet, a line a chain."""
        found = []
        for chain in self.chains:
            left = [record for record in chain.generations if not record.values]
            by_state = itertools.groupby(left, key=lambda record: _told(record, self.study.recipe.epochs))
            told = [_numbers([record.generation for record in records], state) for state, records in by_state]
            if told:
                found.append(f"{chain.name}: {', '.join(told)}")
        return tuple(found)

    @property
    def num_classes(self) -> int | None:
        """C, where it is known."""
        if self.manifest is not None:
            return len(self.manifest.classes)
        return next((r.spec.num_classes for r in self.distinct.values() if r.spec), None)

    @property
    def seeds(self) -> int:
        """Distinct seeds."""
        return len({chain.study.seed for chain in self.chains})


def baseline(groups: tuple[Group, ...], measure: str) -> Spread | None:
    """Return the baseline's measure among one network's groups: that of D(1.0, ·)'s patriarch, over all its seeds."""
    found: dict[int, float] = {}
    for group in groups:
        known = group.spread(measure, 0) if group.first.strict else None
        found = {**(known.values if known else {}), **found}
    return Spread(found) if found else None


def told_primary(value: float | None) -> str:
    """Return a primary score to three decimals; None isn't known."""
    return "unknown" if value is None else f"{value:.3f}"


def _told(record: GenerationRecord, epochs: int) -> str:
    state = "not trained yet" if record.state == "waiting" else record.state
    return f"{state} ({record.epoch} of {epochs} epochs)" if record.state in ("running", "interrupted") else state


def _numbers(generations: list[int], state: str) -> str:
    first, last = generations[0], generations[-1]
    return f"Gen #{first} {state}" if first == last else f"Gen #{first} to #{last} {state}"
