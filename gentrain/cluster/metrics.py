"""Publish errors, scores and speed as Ray metrics: on the dashboard and at every node's Prometheus port."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable

from ray.util.metrics import Gauge

from gentrain.events import EpochDone, Event, FinishedBefore, GenerationDone, InChain, SweepStarted
from gentrain.running.progress import AT_WORK, SweepState
from gentrain.study.lineage import Chain

_EPOCH = {
    "images_per_second": "Training images a second, all workers",
    "loss": "Training loss, mean of the epoch",
    "primary_score": "Mean largest score on the training set (the paper's primary energy)",
    "train_error": "Training error, a fraction",
    "test_error": "Test error of the generation so far, a fraction",
}
_DONE = {
    "top1_error": "Test error of the finished generation, a fraction",
    "ensemble_top1_error": "Test error of the running ensemble, a fraction",
    "primary_predicted": "Primary score that the theory predicts, at temperature 1",
}


_RUN = {
    "trainings": "Distinct generations of the chains that this run trains, by state: done, running, waiting",
    "slots": "Trainings that the cluster's devices can run at once",
    "seconds_left": "Seconds left, estimated from the generations trained in this run",
}


class Gauges:
    """Sets one chain's gauges, `ray_gentrain_*`, tagged with study, chain and generation, from its events."""

    def __init__(self, chain: str, *, study: str) -> None:
        tags = ("study", "chain", "generation")
        self._gauges = {
            name: Gauge(f"gentrain_{name}", description=description, tag_keys=tags)
            for name, description in (_EPOCH | _DONE).items()
        }
        self._tags = {"study": study, "chain": chain}

    def __call__(self, event: Event) -> None:
        """Set the gauges that the event has values for."""
        if not isinstance(event, EpochDone | GenerationDone):
            return
        tags = self._tags | {"generation": str(event.generation)}
        for name in _EPOCH if isinstance(event, EpochDone) else _DONE:
            if (value := event.row.get(name)) is not None:
                self._gauges[name].set(value, tags=tags)


class RunGauges:
    """Sets a run's gauges, tagged with the study: trainings by state, how many fit at once, the time left.

    Args:
        chains: that are run.
        left: keys of the generations that aren't finished.
        slots: trainings that fit at once, where no event says it.
    """

    def __init__(self, chains: Iterable[Chain], *, left: Container[str], slots: int | None = None) -> None:
        chains = list(chains)
        keys, settings = {chain.name: chain.keys for chain in chains}, chains[0].settings
        epochs = {spec.key: spec.recipe.epochs for chain in chains for spec in chain.specs}
        self._state = SweepState(slots=slots)
        self._state.update(SweepStarted(settings.name, settings.recipe.epochs, keys, "", epochs))
        done = {key: 0.0 for own in keys.values() for key in own if key not in left}
        self._state.update(FinishedBefore(done))
        self._study = settings.name
        self._lock = threading.Lock()
        tags = {"trainings": ("study", "state")}
        self._gauges = {
            name: Gauge(f"gentrain_{name}", description=text, tag_keys=tags.get(name, ("study",)))
            for name, text in _RUN.items()
        }
        self._set()

    def __call__(self, event: Event) -> None:
        """Follow an event; called from any thread."""
        if isinstance(event, InChain) and event.chain not in self._state.chains:
            return
        with self._lock:
            self._state.update(event)
            self._set()

    def _set(self) -> None:
        state, tags = self._state, {"study": self._study}
        for name, states in {"done": ("done",), "running": AT_WORK, "waiting": ("waiting",)}.items():
            self._gauges["trainings"].set(state.count(*states), tags=tags | {"state": name})
        if state.slots is not None:
            self._gauges["slots"].set(state.slots, tags=tags)
        if (seconds := state.seconds_left()) is not None:
            self._gauges["seconds_left"].set(seconds, tags=tags)
