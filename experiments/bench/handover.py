"""Measure what the seconds between two generations on Ray are spent on."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.bench.entry import Entry
from experiments.bench.ray_contender import study

MARKS = (
    ("evaluation", "trained", "evaluated"),
    ("last checkpoint", "evaluated", "saved"),
    ("predictions and DONE", "saved", "finished"),
    ("the chain hears of it", "finished", "over"),
    ("verification, results, lease", "over", "asked"),
    ("the workers get the next job", "asked", "entered"),
    ("data verified, network built", "entered", "built"),
    ("teacher and loaders", "built", "ready"),
)
GENERATIONS = 3
"""Students after the patriarch; each handover is measured."""


class Marks:
    """Collect times of events from several processes in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, name: str, generation: int) -> None:
        """Write the current time for an event of a generation."""
        with self._path.open("a") as file:
            file.write(json.dumps([name, generation, time.time()]) + "\n")

    def read(self) -> dict[tuple[str, int], float]:
        """Return the last time of every mark, by name and generation."""
        return {(name, g): t for name, g, t in map(json.loads, self._path.read_text().splitlines())}


def measure_handovers(entry: Entry) -> list[dict[str, float]]:
    """Train a patriarch and students of one epoch each on Ray; return the seconds between each two of them by part."""
    from gentrain.cluster.session import ray_session
    from gentrain.data.prepare.dataset import prepare
    from gentrain.store.run import RunStore
    from gentrain.study.lineage import build_chain

    wanted = study(entry, epochs=1).model_copy(update={"generations": GENERATIONS})
    with tempfile.TemporaryDirectory(prefix="gentrain-handover-") as folder:
        store, path = RunStore(folder), Path(folder) / "marks"
        mark = Marks(path)
        data = prepare(wanted.dataset, store.data)
        chain = build_chain(wanted, data=data.manifest.fingerprint, num_classes=100)
        cpus = entry.workers * entry.threads
        with ray_session(address=None, log=Path(folder) / "ray.log", cpus=cpus):
            from gentrain.cluster import trainer
            from gentrain.running.chain import run_chain

            class Runner(trainer.RayRunner):
                def run_generation(self, spec: Any, *, claim: Any, weights_done: bool = False) -> None:
                    mark("asked", spec.generation)
                    super().run_generation(spec, claim=claim, weights_done=weights_done)
                    mark("over", spec.generation)

            def worker(config: dict[str, Any]) -> None:
                marked_worker(config, str(path))

            engine: Any = trainer  # its worker is replaced
            engine.train_worker = worker
            options: dict[str, Any] = {"store": store, "data": data.folder.name, "observe": lambda _: None}
            with Runner(wanted, chain="handover", **options) as runner:
                run_chain(chain, store=store, runner=runner, observe=lambda _: None)
        times = mark.read()
    return [_parts(times, generation) for generation in range(GENERATIONS)]


def _parts(times: Mapping[tuple[str, int], float], generation: int) -> dict[str, float]:
    """Return the seconds from a generation's last step to the next one's first, in all and by part."""
    before = {"trained", "evaluated", "saved", "finished", "over"}
    at = {name: times[name, generation + (name not in before)] for _, *pair in MARKS for name in pair}
    seconds = {what: at[end] - at[begin] for what, begin, end in MARKS}
    return {"all of it": at["ready"] - at["trained"], **seconds}


def marked_worker(config: dict[str, Any], path: str) -> None:
    """Run gentrain's worker, and write the time of each of its steps."""
    from gentrain.cluster.worker import train_worker
    from gentrain.train import generation as module

    mark, now = Marks(Path(path)), [0]
    engine: Any = module  # its names are replaced
    train_generation = engine.train_generation

    def entered(job: Any, *rest: Any) -> None:
        now[0] = job.spec.generation
        mark("entered", now[0])
        train_generation(job, *rest)

    def marked(function: Callable[..., Any], *, before: str | None = None, after: str | None = None) -> Any:
        def call(*rest: Any, **named: Any) -> Any:
            if before:
                mark(before, now[0])
            result = function(*rest, **named)
            if after:
                mark(after, now[0])
            return result

        return call

    engine.train_generation = entered
    engine.Evaluator = marked(engine.Evaluator, after="built")
    engine.train_epoch = marked(engine.train_epoch, before="ready", after="trained")
    engine.save_checkpoint = marked(engine.save_checkpoint, before="evaluated", after="saved")
    engine.finish = marked(engine.finish, after="finished")
    train_worker(config)
