"""Measure how the cost of scheduling grows with the grid: sweeps whose generations train for no time at all.

    .venv/bin/python -m experiments.bench.scale [--chains 10,100,1000] [--output experiments/bench/scale.json]

Everything is real (Ray Tune's trials, leases, store, verification, results) but the training, which is a file that
is written. Then the schedule of 10,000 chains on 1,000 devices is simulated and held against its lower bound.
"""

from __future__ import annotations

import json
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer

GENERATIONS = 3
CLASSES = 10
OUTPUT = Path(__file__).with_name("scale.json")


def study(chains: int) -> Any:
    """Return a study of so many chains of three generations; of every ten, all share a patriarch."""
    from gentrain.study.loading import parse_study

    lams = [round(0.05 * (i + 1), 2) for i in range(10)]
    process = [{"f_a1": 0.6, "lambda": lam} for lam in lams]
    grid = {"process": process, "seed": list(range(chains // len(lams)))}
    settings = {"name": f"scale-{chains}", "generations": GENERATIONS - 1, "grid": grid, "cpus_per_worker": 1}
    return parse_study(settings | {"dataset": {"source": "digits"}}, where="scale.py")


def sweep(chains: int) -> dict[str, Any]:
    """Run a sweep whose generations train for no time; return what it cost."""
    from gentrain.cluster.session import ray_session
    from gentrain.events import GenerationDone, InChain
    from gentrain.running.plan import make_plan, starting_order, urgencies
    from gentrain.store.run import RunStore
    from gentrain.study.lineage import build_forest

    wanted = study(chains)
    forest = build_forest(wanted, data="none", num_classes=CLASSES)
    seen: list[float] = []
    first: list[float] = []

    def observe(event: Any) -> None:
        if isinstance(event, InChain) and isinstance(event.event, GenerationDone):
            seen.append(time.perf_counter())
            first.append(seen[0])

    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(folder)
        plan = make_plan(forest, wanted, store=store, devices=2)
        order = starting_order(plan, {chain.name: chain.keys for chain in forest.chains})
        with ray_session(address=None, log=Path(folder) / "ray.log"):
            from gentrain.cluster.sweep import run_trials
            from gentrain.cluster.trainer import RayRunner

            class Instant(RayRunner):
                def run_generation(self, spec: Any, *, claim: Any, weights_done: bool = False) -> None:
                    from gentrain.store.done import EPOCHS, MODEL, PREDICTIONS, SPEC
                    from gentrain.store.predictions import encode_predictions

                    target = self.store.generation(spec.key)
                    labels = np.arange(CLASSES)
                    content = encode_predictions(np.full((CLASSES, CLASSES), 0.1, np.float32), labels)
                    target.write(SPEC, json.dumps(spec.model_dump(mode="json")).encode())
                    scores = {"top1_error": 0.9, "top5_error": 0.5, "nll": 2.3, "ece": 0.0, "primary": 0.1}
                    target.finish(
                        {MODEL: b"", PREDICTIONS: content, EPOCHS: b""}, token=claim.token,
                        scores=scores, train_primary=0.1, seconds=0.0, workers=1, threads=1, device="none", versions={},
                    )  # fmt: skip

            before = time.perf_counter()
            outcome = run_trials(
                order, store=store, data="none", urgencies=urgencies(plan), observe=observe, runner=Instant
            )
            seconds = time.perf_counter() - before
            memory = psutil.Process().memory_info().rss
        assert not outcome.failed, outcome.failed
        assert len(store.root.filesystem.get_file_info(_selector(store))) == len(forest.specs)
    steady = (seen[-1] - seen[0]) / max(1, len(seen) - 1)
    return {
        "chains": chains,
        "generations": forest.wanted,
        "trainings": len(forest.specs),
        "seconds": seconds,
        "seconds_a_generation": seconds / forest.wanted,
        "steady_seconds_a_generation": steady,
        "driver_megabytes": memory / 1e6,
    }


def _selector(store: Any) -> Any:
    from pyarrow.fs import FileSelector

    return FileSelector(f"{store.root}/generations")


def schedule(chains: int, devices: int) -> dict[str, Any]:
    """Simulate the schedule of a large grid with lengths that vary tenfold; hold it against the lower bound."""
    from gentrain.running.plan import Plan
    from gentrain.study.lineage import build_forest

    forest = build_forest(study(chains), data="none", num_classes=CLASSES)
    draw = random.Random(0)
    by_seed = {seed: draw.uniform(1, 10) for seed in range(chains)}
    seconds = {key: 3600 * by_seed[spec.seed] for key, spec in forest.specs.items()}
    plan = Plan(forest, frozenset(), seconds, devices, 1.0, None)
    started = time.perf_counter()
    makespan, bound = plan.makespan, plan.lower_bound
    assert makespan is not None
    assert bound is not None
    return {
        "chains": chains,
        "devices": devices,
        "makespan_hours": makespan / 3600,
        "lower_bound_hours": bound / 3600,
        "ratio": makespan / bound,
        "seconds_to_compute": time.perf_counter() - started,
    }


def main(
    chains: Annotated[str, typer.Option(help="Sizes of the grids, by commas.")] = "10,30,100,300,1000",
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = OUTPUT,
) -> None:
    """Measure, print, write."""
    rows = []
    for count in map(int, chains.split(",")):
        rows.append(sweep(count))
        typer.echo(json.dumps(rows[-1]))
    plans = [schedule(1_000, 100), schedule(10_000, 1_000)]
    for row in plans:
        typer.echo(json.dumps(row))
    machine = f"{platform.machine()}, {psutil.cpu_count()} CPUs, Python {platform.python_version()}"
    growth = statistics.fmean(rows[-1][name] / rows[0][name] for name in ["steady_seconds_a_generation"])
    content = {"machine": machine, "sweeps": rows, "schedules": plans, "steady_growth": growth}
    output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
