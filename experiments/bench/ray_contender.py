"""gentrain as a contender: the real engine, on Ray Train's workers or without Ray, an epoch a block."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.bench.breakdown import Clock, timed_epoch
from experiments.bench.entry import ETA, LAM, Entry, K, prepared
from experiments.bench.gate import Gate, Stopped

ENDLESS = 100_000


def study(entry: Entry, *, epochs: int = ENDLESS) -> Any:
    """Return the study of which an entry is a generation: CIFAR-100, as many images as a block has."""
    from gentrain.study.loading import parse_study

    settings = {
        "name": f"bench-{entry.network}",  # one run folder may have several
        "dataset": {"source": "cifar100", "path": entry.data, "limit": entry.images // 100},
        "network": {"name": entry.network},
        "recipe": {"epochs": epochs, "batch_size": entry.batch, "milestones": [], "learning_rate": 0.01},
        "generations": 1,
        "seed": entry.seed,
        "precision": entry.precision,
        "compile": False,
        "device": entry.device,
        "workers": entry.workers,
        "cpus_per_worker": entry.threads,
        "pin_workers": False,  # contenders take turns on the same cores
        **entry.settings,
    }
    return parse_study(settings, where="bench")


def spec(entry: Entry, wanted: Any, fingerprint: str) -> Any:
    """Return the generation that an entry trains; its teacher is a finished one."""
    from gentrain.study.lineage import build_chain
    from gentrain.study.tasks import PatriarchSpec, StudentSpec

    patriarch, student = build_chain(wanted, data=fingerprint, num_classes=100).specs
    assert isinstance(patriarch.task, PatriarchSpec)
    assert patriarch.task.eta == ETA
    assert patriarch.task.k == K
    if entry.task == "patriarch":
        return patriarch
    task = StudentSpec(lam=LAM, temperature=1.0, teacher=entry.teacher, fold_batchnorm=wanted.fold_batchnorm)
    return student.model_copy(update={"task": task})


def run_generation(entry: Entry) -> None:
    """Train the entry's generation, on Ray or with the debug runner, epoch by epoch through the gate."""
    from gentrain.errors import TrainingError
    from gentrain.store.run import RunStore

    wanted, store, data = study(entry), RunStore(entry.runs), prepared(entry)
    common: dict[str, Any] = {"store": store, "data": data.folder.name, "observe": lambda _: None}
    generation = spec(entry, wanted, data.manifest.fingerprint)
    try:
        if entry.kind == "loop":
            from gentrain.running.local import LocalRunner

            patch_engine(Gate(Path(entry.gate)), by_part=True)
            _alone(LocalRunner(wanted, **common), generation)
        else:
            _on_ray(entry, lambda runner: runner(wanted, chain=f"bench-{entry.seed}", **common), generation)
    except TrainingError:
        if not (Path(entry.gate) / "stop").exists():
            raise


def _on_ray(entry: Entry, make: Callable[[Any], Any], generation: Any) -> None:
    from gentrain.cluster.session import ray_session

    with ray_session(address=entry.address, log=Path(entry.gate) / "ray.log"):
        from gentrain.cluster import trainer

        def worker(config: dict[str, Any]) -> None:
            gated_worker(config, entry.gate)

        engine: Any = trainer  # its worker is replaced
        engine.train_worker = worker
        _alone(make(trainer.RayRunner), generation)


def _alone(runner: Any, generation: Any) -> None:
    """Train the generation under its claim."""
    with runner.lease(generation, waiting=print) as claim:
        runner.run_generation(generation, claim=claim)


def gated_worker(config: dict[str, Any], folder: str) -> None:
    """Do what gentrain's worker does, but begin an epoch only when it's allowed."""
    from gentrain.cluster.worker import train_worker

    patch_engine(Gate(Path(folder)))
    train_worker(config)


def patch_engine(gate: Gate, *, by_part: bool = False) -> None:
    """Let the engine pass the gate before every epoch, on every rank, and time what it does."""
    from gentrain.errors import TrainingError
    from gentrain.train import generation

    engine: Any = generation  # its names are replaced
    clock = Clock()
    train_epoch = timed_epoch(engine.train_epoch, clock) if by_part else engine.train_epoch
    evaluator, save_checkpoint = engine.Evaluator, engine.save_checkpoint
    facts: dict[str, Any] = {}

    def gated_epoch(epoch: int, **rest: Any) -> dict[str, Any]:
        try:
            gate.wait(epoch)
        except Stopped:
            raise TrainingError("the race is over") from None
        row: dict[str, Any] = train_epoch(epoch, **rest)
        facts.update(seconds=row["seconds"], evaluated=0.0, parts=clock.take())
        return row

    class TimedEvaluator(evaluator):  # type: ignore[misc, valid-type]
        def error(self, split: str) -> float:
            started = time.perf_counter()
            error: float = super().error(split)
            facts["evaluated"] += time.perf_counter() - started
            facts["evaluated_images"] = self.splits.manifest.splits[split].count
            return error

    def timed_save(job: Any, model: Any, optimizer: Any, state: Any, workers: Any) -> None:
        started = time.perf_counter()
        save_checkpoint(job, model, optimizer, state, workers)
        gate.done(len(state.rows) - 1, **facts, saved=time.perf_counter() - started)

    engine.train_epoch, engine.Evaluator, engine.save_checkpoint = gated_epoch, TimedEvaluator, timed_save
