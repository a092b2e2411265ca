"""Define the records that a report is made of: a study, its groups of chains over seeds, their generations."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from gentrain.data.prepare.manifest import Manifest
from gentrain.results.published import network_label
from gentrain.results.status import State
from gentrain.scores.spread import Spread, paired_difference
from gentrain.store.done import Done
from gentrain.study.lineage import GenerationSpec
from gentrain.study.process import Process
from gentrain.study.schema import Study

SINGLE, ENSEMBLE = "single", "ensemble"
MOST_CLASSES = 120
"""Most classes of a matrix that is drawn in full."""
BASELINE = "D(1.0,0.0)"
PAPER_NAMES = {BASELINE: "Baseline", "D(1.0,0.5)": "BornAgain"}
"""Names that figure 2 gives to two processes."""


@dataclass(frozen=True)
class GenerationRecord:
    """Hold one generation of one chain, finished or not."""

    generation: int
    key: str
    state: State
    epoch: int
    """Finished epochs, for a generation that isn't done."""
    predicted: float | None
    """Primary score w_g of the closed form; None where it depends on a measurement that is still missing, and for
    students at temperatures other than 1, for which there is none."""
    spec: GenerationSpec | None = None
    """None where the generation isn't done."""
    done: Done | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    """Known measures by the column names of results.parquet; errors are fractions."""
    bins: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Sums of `metrics.reliability` over the test set, for `SINGLE` and `ENSEMBLE`."""
    confusion: np.ndarray | None = None
    """(C, C): test images by true class and predicted class, of the ensemble where there is one, else of the network;
    None of more than `MOST_CLASSES`."""


@dataclass(frozen=True)
class ChainRecord:
    """Hold one chain D(f_a1, λ) of one network and one seed."""

    name: str
    study: Study
    """Settings of this chain alone, without a grid."""
    generations: tuple[GenerationRecord, ...]

    @property
    def process(self) -> Process:
        """Return D(f_a1, λ); f_a1 has no effect where the first generations are pretrained networks."""
        return self.study.process

    @property
    def label(self) -> str:
        """Return the process as written in the chain's name: D(0.6,0.6), or D(given-1a2b3c4d,0.6)."""
        return self.name[: self.name.rindex(")") + 1]

    @property
    def origin(self) -> str:
        """Return what decides the first generation, in the name's form: D(0.6,·), D(0.6,·,K4), D(given-1a2b3c4d,·)."""
        start, _, *others = self.label.removeprefix("D(").removesuffix(")").split(",")
        own = [part for part in others if part.startswith("K") or part == self.process.patriarch_label]
        return f"D({','.join([start, '·', *own])})"

    @property
    def strict(self) -> bool:
        """Return whether the patriarch is trained by plain cross-entropy."""
        return not self.study.pretrained and self.process.eta == 0.0

    @property
    def network(self) -> str:
        """Return the network's name; `patriarch → students → last` where students, or the last, use another network."""
        return network_label(self.study)


@dataclass(frozen=True)
class Group:
    """Hold the chains of one process on one network, which differ only in their seed."""

    series: str
    """Short identifier of the process, safe in HTML and the same for every network: `p0`, `p1`, …"""
    chains: tuple[ChainRecord, ...]

    @property
    def first(self) -> ChainRecord:
        """Return one chain, to read what all of them share."""
        return self.chains[0]

    @property
    def name(self) -> str:
        """Return the process's label, after the paper's name for it where there is one."""
        paper = PAPER_NAMES.get(self.first.label)
        return f"{paper} {self.first.label}" if paper else self.first.label

    @property
    def short_name(self) -> str:
        """Return the paper's name for the process where there is one, else its label."""
        return PAPER_NAMES.get(self.first.label, self.first.label)

    @property
    def baseline(self) -> bool:
        """Return whether this is the baseline: a patriarch trained by cross-entropy, without students."""
        return self.first.strict and self.length == 1

    @property
    def length(self) -> int:
        """Return the number of generations to train, patriarch included."""
        return max(len(chain.generations) for chain in self.chains)

    def spread(self, measure: str, generation: int) -> Spread | None:
        """Return one generation's measure over seeds; None where no seed has it."""
        values = {
            chain.study.seed: record.values[measure]
            for chain in self.chains
            for record in chain.generations[generation : generation + 1]
            if measure in record.values
        }
        return Spread(values) if values else None

    def gain(self, generation: int) -> Spread | None:
        """Return the single network's top-1 error minus the running ensemble's, seed by seed."""
        single, ensemble = (self.spread(name, generation) for name in ("top1_error", "ensemble_top1_error"))
        return paired_difference(single, ensemble)

    def predicted(self, generation: int) -> float | None:
        """Return the closed form's w_g, averaged over seeds (they differ where w_g starts from a measured score)."""
        records = [chain.generations[generation] for chain in self.chains if generation < len(chain.generations)]
        known = [record.predicted for record in records if record.predicted is not None]
        return statistics.fmean(known) if known else None

    def bins(self, which: str, generation: int) -> np.ndarray | None:
        """Return the sums of `metrics.reliability` over all seeds; None where no seed has them."""
        by_seed = [c.generations[generation].bins.get(which) for c in self.chains if generation < len(c.generations)]
        known = [bins for bins in by_seed if bins is not None]
        return np.sum(known, axis=0) if known else None

    @property
    def last(self) -> int | None:
        """Return the last generation that any seed has finished; None where none is finished."""
        done = [record.generation for chain in self.chains for record in chain.generations if record.values]
        return max(done, default=None)


@dataclass(frozen=True)
class StudyReport:
    """Hold everything that a report shows of a study."""

    study: Study
    uri: str
    """URI of the run folder."""
    groups: tuple[Group, ...]
    failures: Mapping[str, str]
    """Reasons why chains failed, by chain name."""
    notes: tuple[str, ...]
    """One line for each damaged file and each chain left out, with the remedy."""
    data: str | None
    """Folder name of the prepared dataset; None where it is missing."""
    manifest: Manifest | None

    @cached_property
    def chains(self) -> tuple[ChainRecord, ...]:
        """Return all chains, group by group."""
        return tuple(chain for group in self.groups for chain in group.chains)

    @cached_property
    def networks(self) -> dict[str, tuple[Group, ...]]:
        """Return the groups by network, in the study's order."""
        names = dict.fromkeys(group.first.network for group in self.groups)
        return {name: tuple(g for g in self.groups if g.first.network == name) for name in names}

    @cached_property
    def distinct(self) -> dict[str, GenerationRecord]:
        """Return all generations by key; one that several chains share appears once."""
        return {record.key: record for chain in self.chains for record in chain.generations}

    @property
    def finished(self) -> int:
        """Return the number of distinct generations that have a result."""
        return sum(bool(record.values) for record in self.distinct.values())

    @property
    def missing(self) -> tuple[str, ...]:
        """Return one line for each unfinished chain, naming its generations without a result."""
        lines = []
        for chain in self.chains:
            left = [record for record in chain.generations if not record.values]
            epochs = chain.study.epochs_of
            by_state = itertools.groupby(left, key=lambda record: _state_text(record, epochs(record.generation)))
            parts = [_numbers([record.generation for record in records], state) for state, records in by_state]
            if parts:
                lines.append(f"{chain.name}: {', '.join(parts)}")
        return tuple(lines)

    @property
    def num_classes(self) -> int | None:
        """Return C; None where it isn't known."""
        if self.manifest is not None:
            return len(self.manifest.classes)
        return next((r.spec.num_classes for r in self.distinct.values() if r.spec), None)

    @property
    def seeds(self) -> int:
        """Return the number of distinct seeds."""
        return len({chain.study.seed for chain in self.chains})


def baseline(groups: tuple[Group, ...], measure: str) -> Spread | None:
    """Return one network's baseline measure over seeds: that of the patriarchs of D(1.0, ·); None where none has it."""
    by_seed: dict[int, float] = {}
    for group in groups:
        known = group.spread(measure, 0) if group.first.strict else None
        by_seed = {**(known.values if known else {}), **by_seed}
    return Spread(by_seed) if by_seed else None


def with_baseline(groups: Sequence[Group]) -> list[Group]:
    """Return the groups, with the baseline added first where it is only the patriarch of a chain D(1.0, λ)."""
    strict = [group for group in groups if group.first.strict]
    if not strict or any(group.baseline for group in strict):
        return list(groups)
    alone = tuple(
        replace(
            chain,
            name=chain.name.replace(chain.label, BASELINE),
            study=chain.study.model_copy(
                update={"process": chain.study.process.model_copy(update={"lam": 0.0}), "generations": 0}
            ),
            generations=chain.generations[:1],
        )
        for chain in strict[0].chains
    )
    return [Group(strict[0].series, alone), *groups]


def primary_text(value: float | None) -> str:
    """Return a primary score with three decimals; a dash for None."""
    return "–" if value is None else f"{value:.3f}"


def _state_text(record: GenerationRecord, epochs: int) -> str:
    state = "not trained yet" if record.state == "waiting" else record.state
    return f"{state} ({record.epoch} of {epochs} epochs)" if record.state in ("running", "interrupted") else state


def _numbers(generations: list[int], state: str) -> str:
    first, last = generations[0], generations[-1]
    return f"Gen #{first} {state}" if first == last else f"Gen #{first} to #{last} {state}"
