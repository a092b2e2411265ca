"""Estimate the trainings of a plan that were never timed, by those in the run folder or by a card's figures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from gentrain.data.prepare.expected import Expected, expected_images, prepared_images
from gentrain.data.prepare.manifest import Manifest
from gentrain.data.prepare.share import find_shared
from gentrain.running.cards import Card, card_here, find_card
from gentrain.running.costs import cost_of
from gentrain.running.estimate import (
    CARD_BAND,
    CPU_BAND,
    FORWARD_AND_BACKWARD,
    Guess,
    Speed,
    Timing,
    Work,
    card_prices,
    cpu_prices,
)
from gentrain.running.survey import Example, Survey
from gentrain.store.run import RunStore
from gentrain.study.lineage import Forest, GenerationSpec
from gentrain.study.schema import Study
from gentrain.study.tasks import PatriarchSpec, StudentSpec

Measured = Mapping[tuple[str, str], float]
"""Seconds an epoch of the whole training set, by network and kind of task."""
CPU_BASIS = "a guess for an unknown CPU; --measure times it, --card names a GPU"


class Estimator:
    """Estimates the seconds of trainings.

    Args:
        study: whose plan it is, with one core each where its grid runs on Ray.
        store: the run folder.
        manifest: of the study's prepared dataset, None where it isn't prepared.
        card: name of the GPU that it will be trained on; default: this machine's where it is known, else CPUs.
        measured: what was timed here.

    Raises:
        ConfigError: when the card isn't known.
    """

    def __init__(
        self,
        study: Study,
        *,
        store: RunStore,
        manifest: Manifest | None,
        card: str | None = None,
        measured: Measured | None = None,
    ) -> None:
        self._study, self._store, self._measured = study, store, measured or {}
        self._own_data = manifest.fingerprint if manifest else None
        self._images = expected_images(study.dataset, manifest)
        self._card: Card | None
        if card is not None:
            self._card = find_card(card)
        else:
            self._card = None if study.device == "cpu" else card_here()
        self._seen: dict[str, Expected | None] = {}

    def __call__(self, forest: Forest, survey: Survey, keys: Sequence[str]) -> dict[str, Guess]:
        """Return the estimated seconds of generations, by key; those of which nothing is known are left out."""
        images, study = self._images, self._study
        if images is None or not keys or (study.device == "cuda" and self._card is None):
            return {}
        speed = self._speed(survey)
        guesses: dict[tuple[str, ...], Guess | None] = {}
        guessed: dict[str, Guess] = {}
        for key in keys:
            spec = forest.specs[key]
            networks = (spec.network.name, *self._teachers(spec, forest))
            if networks not in guesses:
                work = _work(networks, images, spec.recipe.batch_size // study.workers)
                guesses[networks] = speed.estimate(work) if work else None
            if (guess := guesses[networks]) is not None:
                devices = study.workers * (1 if self._card else self._threads)
                guessed[key] = guess.times(images.trained * spec.recipe.epochs / devices)
        return guessed

    def _speed(self, survey: Survey) -> Speed:
        precision, timings = self._study.precision, list(self._timings(survey))
        if self._card is not None:
            basis = f"published figures of {self._card.name}"
            return Speed(card_prices(self._card, precision), timings, basis=basis, band=CARD_BAND)
        return Speed(cpu_prices(precision), timings, basis=CPU_BASIS, band=CPU_BAND)

    def _timings(self, survey: Survey) -> Iterator[Timing]:
        """Yield what was timed in the study's precision, on the kind of device it will be trained on."""
        examples = [e for e in survey.examples.values() if self._alike(e)]
        ways = {example.compiled for example in examples}
        wanted = self._study.compile is True
        for example in examples:
            if example.compiled == (wanted if wanted in ways else not wanted) and (timing := self._timed(example)):
                yield timing
        for (network, kind), seconds in self._measured.items():
            images = self._images
            assert images is not None
            networks = (network, network) if kind == "student" else (network,)
            work = _work(networks, images, self._study.recipe.batch_size // self._study.workers)
            if work:
                yield _timing(network, work, seconds, images.trained, self._study.workers * self._threads)

    def _alike(self, example: Example) -> bool:
        spec, cpu = example.spec, example.done.device == "cpu"
        return not spec.pretrained and spec.precision == self._study.precision and cpu == (self._card is None)

    def _timed(self, example: Example) -> Timing | None:
        spec, done = example.spec, example.done
        images = self._images_of(spec.data)
        each = spec.recipe.batch_size // done.workers
        work = images and _work((spec.network.name, *self._teachers(spec)), images, each)
        if images is None or not work or not example.seconds:
            return None
        devices = done.workers * (1 if self._card else max(1, done.threads))
        return _timing(spec.network.name, work, example.seconds, images.trained, devices)

    def _teachers(self, spec: GenerationSpec, forest: Forest | None = None) -> tuple[str, ...]:
        """Return the networks that teach; one that isn't in the run folder is taken to be the student's."""
        if isinstance(spec.task, PatriarchSpec) and spec.task.teaches_itself:
            return (spec.network.name,)
        keys = spec.task.teachers if isinstance(spec.task, StudentSpec) else ()
        specs = [(forest.specs.get(key) if forest else None) or self._store.generation(key).spec() for key in keys]
        return tuple((teacher or spec).network.name for teacher in specs)

    def _images_of(self, data: str) -> Expected | None:
        if data == self._own_data:
            return self._images
        if data not in self._seen:
            shared = find_shared(data, self._store)
            self._seen[data] = shared and prepared_images(shared[1])
        return self._seen[data]

    @cached_property
    def _threads(self) -> int:
        study = self._study
        return study.cpus_per_worker or max(1, len(os.sched_getaffinity(0)) // study.workers)


def _work(networks: Sequence[str], images: Expected, step: int) -> Work | None:
    """Return what training on an image takes, in steps of so many, of the network that is trained and its teachers."""
    total = Work(0, 0, 0)
    for place, network in enumerate(networks):
        if (cost := cost_of(network, images)) is None:
            return None
        one = Work(cost.multiply_adds, cost.bytes, cost.operations / max(1, step))
        total += one * (1 if place else FORWARD_AND_BACKWARD)
    return total


def _timing(network: str, work: Work, epoch_seconds: float, images: int, devices: int) -> Timing:
    """Return a training as timed by one of the threads or GPUs that share it."""
    return Timing(network, work, epoch_seconds / images * devices, images / epoch_seconds)
