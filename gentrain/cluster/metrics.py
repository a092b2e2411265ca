"""Publish errors, scores and speed as Ray metrics: on the dashboard and at every node's Prometheus port."""

from __future__ import annotations

from ray.util.metrics import Gauge

from gentrain.events import EpochDone, Event, GenerationDone

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


class Gauges:
    """Sets one chain's gauges, `ray_gentrain_*`, tagged with chain and generation, from its events."""

    def __init__(self, chain: str) -> None:
        tags = ("chain", "generation")
        self._gauges = {
            name: Gauge(f"gentrain_{name}", description=description, tag_keys=tags)
            for name, description in (_EPOCH | _DONE).items()
        }
        self._chain = chain

    def __call__(self, event: Event) -> None:
        """Set the gauges that the event has values for."""
        if not isinstance(event, EpochDone | GenerationDone):
            return
        tags = {"chain": self._chain, "generation": str(event.generation)}
        for name in _EPOCH if isinstance(event, EpochDone) else _DONE:
            if (value := event.row.get(name)) is not None:
                self._gauges[name].set(value, tags=tags)
