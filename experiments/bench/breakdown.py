"""Measure where a training step's time goes: the engine's own loop with a clock around each part (on a CPU)."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

PARTS = ("loading", "augmentation", "student forward", "teacher", "loss", "backward", "optimiser", "metrics")


class Clock:
    """Sum the seconds of each part of a step since the last `take`."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._began: dict[str, float] = {}

    def begin(self, part: str) -> None:
        """Start timing a part."""
        self._began[part] = time.perf_counter()

    def end(self, part: str) -> None:
        """Stop timing a part, and add its seconds."""
        self._seconds[part] += time.perf_counter() - self._began.pop(part)

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time the block as a part."""
        self.begin(part)
        yield
        self.end(part)

    def take(self) -> dict[str, float]:
        """Return the seconds of every part, and start again at zero; "loss" excludes the teacher's."""
        seconds, self._seconds = self._seconds, defaultdict(float)
        seconds["loss"] -= seconds["teacher"]
        return {part: seconds[part] for part in PARTS}


class TimedLoader:
    """Wrap a loader, and count the wait for each batch as "loading"."""

    def __init__(self, loader: Any, clock: Clock) -> None:
        self._loader, self._clock = loader, clock
        self.num_samples = loader.num_samples

    def __len__(self) -> int:
        return len(self._loader)

    def epoch(self, epoch: int) -> Iterator[Any]:
        """Yield the loader's batches."""
        batches = self._loader.epoch(epoch)
        while True:
            with self._clock("loading"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def timed_epoch(train_epoch: Callable[..., dict[str, Any]], clock: Clock) -> Callable[..., dict[str, Any]]:
    """Return the engine's `train_epoch` with a clock around the parts of its step; for one network a process."""
    import torch

    from gentrain.train import epoch as module

    engine: Any = module  # its names are replaced

    def watch(network: Any, part: str) -> None:
        network.register_forward_pre_hook(lambda *_: clock.begin(part))
        network.register_forward_hook(lambda *_: clock.end(part))

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*rest: Any, **named: Any) -> Any:
            with clock(part):
                return function(*rest, **named)

        return call

    torch.Tensor.backward = timed("backward", torch.Tensor.backward)  # type: ignore[method-assign]

    class TimedMeter(engine.Meter):
        def add(self, *rest: Any) -> None:
            with clock("metrics"):
                super().add(*rest)

    engine.Meter = TimedMeter
    watched: list[Any] = []

    def epoch_by_part(
        epoch: int, *, network: Any, optimizer: Any, task: Any, loader: Any, pixels: Any, **rest: Any
    ) -> dict[str, Any]:
        if network not in watched:
            watched.append(network)
            watch(network, "student forward")
            if hasattr(task, "teacher"):
                watch(task.teacher, "teacher")
            optimizer.register_step_pre_hook(lambda *_: clock.begin("optimiser"))
            optimizer.register_step_post_hook(lambda *_: clock.end("optimiser"))
        clock.take()
        return train_epoch(
            epoch,
            network=network,
            optimizer=optimizer,
            task=timed("loss", task),
            loader=TimedLoader(loader, clock),
            pixels=timed("augmentation", pixels),
            **rest,
        )

    return epoch_by_part
