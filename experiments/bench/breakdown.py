"""Measure where a training step's time goes: the engine's own loop with a clock around each part (on a CPU)."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
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


def timed_generation(base: Any, clock: Clock) -> Any:
    """Return the engine's generation with a clock around the parts of its step."""
    import torch

    from gentrain.train import generation

    engine: Any = generation  # its names are replaced

    def watch(module: Any, part: str) -> None:
        module.register_forward_pre_hook(lambda *_: clock.begin(part))
        module.register_forward_hook(lambda *_: clock.end(part))

    backward = torch.Tensor.backward

    def timed_backward(self: Any, *rest: Any, **named: Any) -> None:
        with clock("backward"):
            backward(self, *rest, **named)

    torch.Tensor.backward = timed_backward  # type: ignore[method-assign]

    class TimedMeter(engine.Meter):
        def add(self, *rest: Any) -> None:
            with clock("metrics"):
                super().add(*rest)

    engine.Meter = TimedMeter

    class Timed(base):
        def _build_task(self) -> Any:
            task = super()._build_task()
            watch(self.model, "student forward")
            if hasattr(task, "teacher"):
                watch(task.teacher, "teacher")

            def timed(*rest: Any) -> Any:
                with clock("loss"):
                    return task(*rest)

            return timed

        def _pixels(self, *rest: Any) -> Any:
            with clock("augmentation"):
                return super()._pixels(*rest)

        def _epoch(self, epoch: int, *, optimizer: Any, loader: Any, **rest: Any) -> dict[str, Any]:
            if not hasattr(self, "_watched"):
                self._watched = True
                optimizer.register_step_pre_hook(lambda *_: clock.begin("optimiser"))
                optimizer.register_step_post_hook(lambda *_: clock.end("optimiser"))
            clock.take()
            row: dict[str, Any] = super()._epoch(epoch, optimizer=optimizer, loader=TimedLoader(loader, clock), **rest)
            return row

    return Timed
