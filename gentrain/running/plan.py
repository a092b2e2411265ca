"""What a study will cost before anything is started: trainings, device-hours, makespan and its lower bound.

Seconds are those that finished generations of the store took; what isn't known is None, never 0.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from gentrain.errors import ConfigError
from gentrain.results.html import html_facts
from gentrain.results.units import duration
from gentrain.running.estimate import Guess
from gentrain.running.footprint import Footprint
from gentrain.running.survey import Survey, like_works, survey_store
from gentrain.store.run import RunStore
from gentrain.study.lineage import Chain, Forest
from gentrain.study.schema import Study

Measured = Mapping[tuple[str, str], float]
"""Seconds an epoch of the whole training set, by network and kind of task."""
Bound = Literal["low", "seconds", "high"]
"""An estimate, or an end of its band."""
Estimator = Callable[[Forest, Survey, Sequence[str]], Mapping[str, Guess]]
"""Returns estimated seconds of generations that were never timed, by key."""

RAY_START = 12.0
"""Seconds for starting a private Ray and its dashboard, about: a machine of two cores."""
TRAINING_START = 6.0
"""Seconds for starting a training's workers on Ray, about, on top of its steps."""


@dataclass(frozen=True)
class Plan:
    """A forest, what of it is finished, and how long the rest will take on so many devices."""

    forest: Forest
    finished: frozenset[str]
    """Keys whose record is in the store (verified when they are used)."""
    seconds: Mapping[str, float | None]
    """Training seconds of every generation that is left, by key; None where no like generation was measured."""
    devices: float
    devices_per_training: float
    price: float | None
    """Of a device-hour."""
    workers: int = 1
    """Of a training; `--local` has one."""
    taken: Mapping[str, float] = field(default_factory=dict)
    """Seconds that finished generations took, by key."""
    measured_here: bool = False
    """Whether seconds of some came from `Measured` and not from the store."""
    footprint: Footprint | None = None
    """What it will take of disk and memory; None where that isn't known."""
    estimates: Mapping[str, Guess] = field(default_factory=dict)
    """Of those that `seconds` doesn't know, where they can be estimated: for people, never for an order of work."""
    seeds: tuple[int, ...] = ()
    """Seeds that are trained one after another, in order; none where the longest work goes first, whatever its seed."""

    @cached_property
    def to_train(self) -> dict[str, float | None]:
        """Those of `seconds` that are trained: given networks are only evaluated, which counts as nothing."""
        return {key: seconds for key, seconds in self.seconds.items() if key in self.forest.trainings}

    def filled(self, bound: Bound) -> Plan:
        """Return the plan with estimates, or an end of their bands, in place of what isn't known."""
        guessed = {key: getattr(guess, bound) for key, guess in self.estimates.items()}
        known = {key: guessed.get(key) if seconds is None else seconds for key, seconds in self.seconds.items()}
        return replace(self, seconds=known, estimates={})

    @property
    def at_once(self) -> int:
        """Trainings that the devices hold at once."""
        return int(self.devices / self.devices_per_training + 1e-9)

    @property
    def unknown(self) -> int:
        """Trainings of unknown length."""
        return sum(seconds is None for seconds in self.seconds.values())

    @cached_property
    def _known(self) -> dict[str, float] | None:
        return {k: s for k, s in self.seconds.items() if s is not None} if not self.unknown else None

    @property
    def device_seconds(self) -> float | None:
        """Work left, in device-seconds."""
        return None if self._known is None else sum(self._known.values()) * self.devices_per_training

    @property
    def makespan(self) -> float | None:
        """Seconds until the last generation is finished, by simulation."""
        return None if self._known is None else self._simulated(self._known)

    @property
    def local_seconds(self) -> float | None:
        """Seconds for all trainings one after the other in one process (`--local`), which starts nothing."""
        return None if self._known is None else sum(self._known.values())

    @property
    def ray_seconds(self) -> float | None:
        """Makespan with the time that Ray takes to start, and to start each training's workers."""
        if self._known is None or not self.to_train:
            return self.makespan
        starting = {key: seconds + TRAINING_START * (key in self.to_train) for key, seconds in self._known.items()}
        return RAY_START + self._simulated(starting)

    def _simulated(self, seconds: Mapping[str, float]) -> float:
        return simulate(self.forest, seconds, at_once=self.at_once, seeds=self.seeds)

    @property
    def better_local(self) -> bool:
        """Whether one process, without Ray, is through sooner."""
        local, ray = self.local_seconds, self.ray_seconds
        return bool(self.to_train) and local is not None and ray is not None and local < ray

    @property
    def lower_bound(self) -> float | None:
        """Seconds that no schedule can beat: the longest chain of trainings, or all work spread evenly."""
        if self._known is None:
            return None
        longest = max(_remaining(self.forest, self._known).values(), default=0.0)
        return max(longest, sum(self._known.values()) / self.at_once)

    @property
    def cost(self) -> float | None:
        """Device-hours times the price."""
        return None if self.device_seconds is None or self.price is None else self.device_seconds / 3600 * self.price

    def _repr_html_(self) -> str:
        """Show in a notebook what the plan command's table says."""
        hours = None if self.device_seconds is None else f"{self.device_seconds / 3600:,.2f} h"
        facts = {
            "chains": f"{len(self.forest.chains):,}",
            "distinct trainings": f"{len(self.forest.trainings):,}",
            "already finished": f"{len(self.finished):,}",
            "to train": f"{len(self.to_train):,}",
            "device-hours": hours or "unknown",
            f"makespan on {self.devices:g} devices": duration(self.makespan),
        }
        if self.price is not None:
            facts[f"cost at {self.price:g} per device-hour"] = "unknown" if self.cost is None else f"{self.cost:,.2f}"
        return html_facts(facts, title="plan")

    def summary(self) -> dict[str, float | None]:
        """Return the plan's figures, for machines; None is unknown."""
        return {
            "chains": len(self.forest.chains),
            "generations": self.forest.wanted,
            "trainings": len(self.forest.trainings),
            "saved": self.forest.wanted - len(self.forest.trainings),
            "finished": len(self.finished),
            "to_train": len(self.to_train),
            "unknown": self.unknown,
            "devices": self.devices,
            "trainings_at_once": self.at_once,
            "device_seconds": self.device_seconds,
            "makespan_seconds": self.makespan,
            "lower_bound_seconds": self.lower_bound,
            "ray_seconds": self.ray_seconds,
            "local_seconds": self.local_seconds,
            "price": self.price,
            "cost": self.cost,
            "disk_bytes": None if self.footprint is None else self.footprint.disk,
            "worker_memory_bytes": None if self.footprint is None else self.footprint.worker,
            "estimated": len(self.estimates),
            **self._estimated(),
        }

    def _estimated(self) -> dict[str, float | None]:
        """Return the totals with estimates and the ends of their bands; None where nothing was estimated."""
        figures: dict[str, float | None] = {}
        bounds: tuple[tuple[str, Bound], ...] = (("", "seconds"), ("_low", "low"), ("_high", "high"))
        for name, bound in bounds:
            plan = self.filled(bound)
            values = (plan.device_seconds, plan.makespan, plan.cost) if self.estimates else (None, None, None)
            for figure, value in zip(("device_seconds", "makespan_seconds", "cost"), values, strict=True):
                figures[f"estimated_{figure}{name}"] = value
        return figures


def make_plan(
    forest: Forest,
    study: Study,
    *,
    store: RunStore,
    devices: float,
    price: float | None = None,
    measured: Measured | None = None,
    estimator: Estimator | None = None,
) -> Plan:
    """Return the plan of a study's whole grid.

    Args:
        forest: of the study's chains.
        study: with or without a grid.
        store: where finished generations are looked for.
        devices: GPUs (or groups of CPU cores) that train at the same time.
        price: of a device-hour.
        measured: seconds an epoch, by network and kind of task, for those that the store knows nothing of.
        estimator: for those of which nothing was timed.

    Raises:
        ConfigError: when the devices can't hold one training.
    """
    each = study.workers * (1.0 if study.gpus_per_worker is None else study.gpus_per_worker or 1.0)
    if devices < each:
        raise ConfigError(f"--gpus {devices:g}: one training takes {each:g} (workers × gpus_per_worker); give more")
    survey = survey_store(store, forest)
    finished = survey.finished
    left = {key: spec for key, spec in forest.specs.items() if key not in finished}
    seconds: dict[str, float | None] = {}
    for key, spec in left.items():
        timed = [(measured or {}).get((spec.network.name, work)) for work in like_works(spec)]
        epoch = survey.epoch_seconds(spec, study) or next(filter(None, timed), None)
        seconds[key] = None if epoch is None else epoch * spec.recipe.epochs
        if spec.pretrained:
            seconds[key] = 0.0
    unknown = [key for key, known in seconds.items() if known is None]
    return Plan(
        forest=forest,
        finished=frozenset(finished.keys() & forest.trainings),
        taken=finished,
        seconds=seconds,
        devices=devices,
        devices_per_training=each,
        price=price,
        workers=study.workers,
        measured_here=bool(measured),
        estimates=estimator(forest, survey, unknown) if estimator and unknown else {},
        seeds=_seeds(study),
    )


def simulate(forest: Forest, seconds: Mapping[str, float], *, at_once: int, seeds: Sequence[int] = ()) -> float:
    """Return the makespan when whichever ready generation is the most urgent starts first.

    `seconds` names the generations that are left; their other teachers are finished.
    """
    urgent = _urgent(forest, seconds, seeds)
    students: dict[str | None, list[str]] = defaultdict(list)
    ready: list[tuple[float, str]] = []
    for key in seconds:
        teacher = forest.specs[key].teacher
        if teacher in seconds:
            students[teacher].append(key)
        else:
            heapq.heappush(ready, (-urgent[key], key))
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < at_once:
            _, key = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[key], key))
        now, ended = heapq.heappop(running)
        for key in students[ended]:
            heapq.heappush(ready, (-urgent[key], key))
    return now


def urgencies(plan: Plan) -> dict[str, float]:
    """Return the work that waits for each generation that is left, itself included: the longest line of students.

    In seconds where all are known, else in epochs. Where seeds come one after another, an earlier seed's generations
    have more than any of a later one's.
    """
    return _urgent(plan.forest, _work(plan), plan.seeds)


def starting_order(plan: Plan, missing: Mapping[str, tuple[str, ...]]) -> list[Chain]:
    """Return the chains that miss generations, the longest remaining first; seed by seed where the plan says so.

    Of those that begin with the same generation only one can work at once, so they come in rounds: first one for each
    generation, then the second ones, and so on.

    Args:
        plan: of the study.
        missing: by name, the keys that a chain still has to train; one that isn't there misses none.
    """
    work = _work(plan)
    chains = [chain for chain in plan.forest.chains if missing.get(chain.name)]
    chains.sort(key=lambda chain: (-sum(work.get(key, 0.0) for key in missing[chain.name]), chain.name))
    rounds: Counter[str] = Counter()
    placed = []
    for position, chain in enumerate(chains):
        first = missing[chain.name][0]
        turn = plan.seeds.index(chain.settings.seed) if plan.seeds else 0
        placed.append((turn, rounds[first], position, chain))
        rounds[first] += 1
    return [chain for *_, chain in sorted(placed, key=lambda item: item[:3])]


def _seeds(study: Study) -> tuple[int, ...]:
    """Return the grid's seeds in their order, where they are trained one after another."""
    in_turn = study.scheduler.order == "seeds"
    return tuple(dict.fromkeys(point.seed for point in study.points(importing=False))) if in_turn else ()


def _work(plan: Plan) -> dict[str, float]:
    """Return seconds, or epochs where seconds aren't known of all, by key."""
    specs = plan.forest.specs
    return {
        key: float(specs[key].recipe.epochs) if plan.unknown and not specs[key].pretrained else seconds or 0.0
        for key, seconds in plan.seconds.items()
    }


def _urgent(forest: Forest, seconds: Mapping[str, float], seeds: Sequence[int]) -> dict[str, float]:
    """Return `_remaining`, raised for each generation by all the work there is for every seed after its own."""
    remaining, all_work = _remaining(forest, seconds), sum(seconds.values())
    later = {seed: len(seeds) - place for place, seed in enumerate(seeds)}
    return {key: work + all_work * later.get(forest.specs[key].seed, 0) for key, work in remaining.items()}


def _remaining(forest: Forest, seconds: Mapping[str, float]) -> dict[str, float]:
    """Return each generation's own seconds and those of the longest line of students that waits for it."""
    remaining = dict(seconds)
    for key in reversed([key for key in forest.specs if key in seconds]):
        teacher = forest.specs[key].teacher
        if teacher is not None and teacher in seconds:
            remaining[teacher] = max(remaining[teacher], seconds[teacher] + remaining[key])
    return remaining
