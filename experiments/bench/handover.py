"""Measure what the seconds between two generations on Ray are spent on."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.bench.entry import Entry
from experiments.bench.ray_contender import study

MARKS = (
    ("evaluation", "trained", "evaluated"),
    ("last checkpoint", "evaluated", "saved"),
    ("predictions and DONE", "saved", "finished"),
    ("Ray ends the group", "finished", "over"),
    ("verification and results", "over", "asked"),
    ("Ray starts the group", "asked", "entered"),
    ("imports", "entered", "imported"),
    ("data verified, network built", "imported", "built"),
    ("teacher and loaders", "built", "ready"),
)


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


def measure_handover(entry: Entry) -> dict[str, float]:
    """Train a patriarch and a student of one epoch each on Ray; return the seconds between them by part."""
    from gentrain.cluster.session import ray_session
    from gentrain.data.prepare.dataset import prepare
    from gentrain.store.run import RunStore
    from gentrain.study.lineage import build_chain

    wanted = study(entry, epochs=1)
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
            runner = Runner(wanted, store=store, data=data.folder.name, chain="handover", observe=lambda _: None)
            run_chain(chain, store=store, runner=runner, observe=lambda _: None)
        times = mark.read()
    before = {"trained", "evaluated", "saved", "finished", "over"}
    at = {name: times[name, 0 if name in before else 1] for _, *pair in MARKS for name in pair}
    seconds = {what: at[end] - at[begin] for what, begin, end in MARKS}
    return {"all of it": at["ready"] - at["trained"], **seconds}


def marked_worker(config: dict[str, Any], path: str) -> None:
    """Run gentrain's worker, and write the time of each of its steps."""
    mark, generation = Marks(Path(path)), config["job"].spec.generation
    mark("entered", generation)
    from gentrain.cluster.worker import train_worker
    from gentrain.train import generation as module

    mark("imported", generation)
    engine: Any = module  # its names are replaced

    def marked(function: Callable[..., Any], *, before: str | None = None, after: str | None = None) -> Any:
        def call(*rest: Any, **named: Any) -> Any:
            if before:
                mark(before, generation)
            result = function(*rest, **named)
            if after:
                mark(after, generation)
            return result

        return call

    engine.Evaluator = marked(engine.Evaluator, after="built")
    engine.train_epoch = marked(engine.train_epoch, before="ready", after="trained")
    engine.save_checkpoint = marked(engine.save_checkpoint, before="evaluated", after="saved")
    engine.finish = marked(engine.finish, after="finished")
    train_worker(config)
