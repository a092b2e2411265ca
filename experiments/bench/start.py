"""Measure how long a person waits for the command line: help, plan and status of 1,000 chains, a training's first step.

    .venv/bin/python -m experiments.bench.bench --only start

Each command is a process of its own; wall time is what a person waits, CPU time what a loaded machine doesn't change.
Python keeps its bytecode, as an installed package does, whatever the environment says.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.bench.rows import ratio_row

CHAINS = 1_000
STUDY = {
    "name": "thousand",
    "dataset": {"source": "digits"},
    "grid": {
        "network": ["resnet8", "resnet14", "resnet20", "resnet32", "resnet44"],
        "process": [{"f_a1": f, "lambda": lam} for f in (0.5, 0.6, 0.7, 0.8, 0.9) for lam in (0.2, 0.4, 0.6, 0.8)],
        "seed": list(range(10)),
    },
}
FIRST_STEP = """
import os, sys, time
import gentrain.train.workers as module
from gentrain import cli

begin, steps = module.Workers.clear_gradients, []

def clear_gradients(self, optimizer):
    steps.append(time.time())
    if len(steps) == 2:  # the first step is over
        print(steps[1])
        sys.stdout.flush()
        os._exit(0)
    begin(self, optimizer)

module.Workers.clear_gradients = clear_gradients
cli.main()
"""


def make_store(runs: Path, *, finished: bool) -> None:
    """Write a run folder in which the study was begun, and where `finished` all its generations are done."""
    from gentrain import api
    from gentrain.store import disk
    from gentrain.store.done import EPOCHS, MODEL, SPEC
    from gentrain.store.generation import encode_spec
    from gentrain.store.run import RunStore
    from gentrain.store.study_record import StudyRecord
    from gentrain.study.lineage import build_forest
    from gentrain.study.loading import parse_study

    engine: Any = disk  # 20,000 files need not survive a loss of power
    engine.write_whole = partial(engine.write_whole, durable=False)
    study, store = parse_study(STUDY, where="start.py"), RunStore(str(runs))
    data = api.prepare(study, runs=str(runs))
    forest = build_forest(study, data=data.manifest.fingerprint, num_classes=data.num_classes)
    assert len(forest.chains) == CHAINS
    StudyRecord(study, store=store).begin(forest.chains)
    scores = {"top1_error": 0.25, "top5_error": 0.1, "nll": 1.0, "ece": 0.1, "primary": 0.6}
    facts: dict[str, Any] = {"train_primary": 0.6, "workers": 1, "threads": 1, "device": "cpu", "versions": {}}
    for spec in forest.specs.values() if finished else ():
        files = {MODEL: b"", EPOCHS: b"", SPEC: encode_spec(spec)}
        store.generation(spec.key).finish(files, scores=scores, seconds=60.0, **facts)


def with_bytecode(folder: Path) -> dict[str, str]:
    """Return the environment of a process that keeps its bytecode in the folder."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder)}


def measured(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Return the wall seconds and the CPU seconds of a command."""
    started, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, used


def first_step(runs: Path, environment: Mapping[str, str]) -> tuple[float, float]:
    """Return the seconds from the start of `gentrain chain --local` on the digits to the end of its first step."""
    shutil.rmtree(runs / "generations", ignore_errors=True)
    shutil.rmtree(runs / "studies", ignore_errors=True)
    command = [sys.executable, "-c", FIRST_STEP, "chain", "--local", "--runs", str(runs)]
    started, before = time.time(), os.times()
    process = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return float(process.stdout.split()[-1]) - started, used


def start(*, data: str, runs: str, rounds: int) -> list[dict[str, Any]]:
    """Time each command; of the rounds, the median counts."""
    del data
    with tempfile.TemporaryDirectory(dir=runs) as name:
        folder = Path(name)
        (file := folder / "thousand.yaml").write_text(json.dumps(STUDY))
        for kind in ("begun", "finished"):
            make_store(folder / kind, finished=kind == "finished")
        gentrain = [sys.executable, "-m", "gentrain"]
        environment = with_bytecode(folder / "bytecode")
        commands: dict[str, Callable[[], tuple[float, float]]] = {
            "--help": lambda: measured([*gentrain, "--help"], environment)
        }
        for kind in ("begun", "finished"):
            where = ["--runs", str(folder / kind)]
            plan, status = [*gentrain, "plan", str(file), "--gpus", "8", *where], [*gentrain, "status", *where]
            commands[f"plan of 1,000 chains, {kind}"] = partial(measured, plan, environment)
            commands[f"status of 1,000 chains, {kind}"] = partial(measured, status, environment)
        commands["chain --local on digits, to the end of the first step"] = lambda: first_step(
            folder / "digits", environment
        )
        rows = []
        for what, command in commands.items():
            command()  # what is read once: Python's own files, the digits
            wall, used = zip(*(command() for _ in range(rounds)), strict=True)
            for values, kind in ((wall, ""), (used, ", CPU time")):
                rows.append(ratio_row(f"gentrain {what}{kind}", values, [1.0] * rounds, unit="s"))
        return rows
