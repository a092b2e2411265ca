"""What the run folder's finished generations tell a plan: which there are, and how long an epoch of the like took."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gentrain.store.done import SPEC, Done
from gentrain.store.run import RunStore
from gentrain.study.lineage import Forest, GenerationSpec
from gentrain.study.schema import Study
from gentrain.study.tasks import PatriarchSpec

Rate = tuple[str, str, int, str, bool, str, int]
"""What decides how long an epoch takes: data, network, batch, precision, compiled or not, kind of task, workers."""


@dataclass(frozen=True)
class Example:
    """Finished generations of one rate: how long an epoch took, and the first of them."""

    epoch_seconds: Sequence[float]
    spec: GenerationSpec
    done: Done

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(self.epoch_seconds)

    @property
    def compiled(self) -> bool:
        """Whether its epochs went through torch.compile."""
        return self.spec.compile or bool(self.done.compiled_epochs)


@dataclass(frozen=True)
class Survey:
    """What is finished in a run folder."""

    finished: Mapping[str, float]
    """Seconds that finished generations took, by key."""
    examples: Mapping[Rate, Example]

    def epoch_seconds(self, spec: GenerationSpec, study: Study) -> float | None:
        """Return the seconds of an epoch of a generation, as of its like; None where there is none.

        Whether `compile: auto` compiles is known only where it is trained; where the like was compiled, this is taken
        for compiled too.
        """
        ways = (True, False) if study.compile == "auto" else (spec.compile,)
        rates = (_rate(spec, w, compiled=c, workers=study.workers) for w in like_works(spec) for c in ways)
        known = next(filter(None, map(self.examples.get, rates)), None)
        return None if known is None else known.seconds


def survey_store(store: RunStore, forest: Forest) -> Survey:
    """Return what is finished in a run folder.

    The spec of a generation of the forest is known: its file is only held against its record, not read.
    """
    finished: dict[str, float] = {}
    seconds: dict[Rate, list[float]] = defaultdict(list)
    first: dict[Rate, tuple[GenerationSpec, Done]] = {}
    for key in (store.root / "generations").names():
        folder = store.generation(key)
        done = folder.done()
        known = forest.specs.get(key)
        vouched = known is not None and done is not None and folder.read_intact(SPEC, done=done) is not None
        spec = known if vouched else folder.spec(done=done)
        if done is None or spec is None:
            continue  # unfinished, damaged, or of another version of the method: neither finished nor a measure
        finished[key] = done.seconds
        if done.compiled_epochs in (0, spec.recipe.epochs):  # else its epochs are of both kinds
            compiled = spec.compile or bool(done.compiled_epochs)
            rate = _rate(spec, spec.work, compiled=compiled, workers=done.workers)
            first.setdefault(rate, (spec, done))
            seconds[rate].append(done.seconds / spec.recipe.epochs)
    return Survey(finished, {rate: Example(seconds[rate], *first[rate]) for rate in first})


def like_works(spec: GenerationSpec) -> tuple[str, ...]:
    """Return the kinds of task whose steps take as long as this one's: who teaches itself computes as students do."""
    itself = isinstance(spec.task, PatriarchSpec) and spec.task.teaches_itself
    return (spec.work, "student") if itself else (spec.work,)


def _rate(spec: GenerationSpec, work: str, *, compiled: bool, workers: int) -> Rate:
    return (spec.data, spec.network.name, spec.recipe.batch_size, spec.precision, compiled, work, workers)
