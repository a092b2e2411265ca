"""Compare a sweep, whose chains train side by side on Ray, to the same by hand: a process a core, without Ray."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.bench.rows import ratio_row
from gentrain.study.documents import write_yaml

EPOCHS = 5
"""The first of each generation warms up and doesn't count."""
STUDY = {
    "name": "side-by-side",
    "dataset": {"source": "cifar100", "limit": 30},
    "network": {"name": "resnet20"},
    "recipe": {"epochs": EPOCHS, "milestones": []},
    "process": {"f_a1": 0.6, "lambda": 0.6},
    "generations": 1,
    "evaluate_every": EPOCHS,
    "cpus_per_worker": 1,
    "device": "cpu",
    "compile": False,
}
GENTRAIN = (sys.executable, "-m", "gentrain")


def side_by_side(*, data: str, runs: str, rounds: int) -> list[dict[str, Any]]:
    """Return the row: images a second of all chains together, a patriarch and a student each."""
    cores = sorted(os.sched_getaffinity(0))
    together: list[float] = []
    by_hand: list[float] = []
    for _ in range(min(3, rounds)):
        with tempfile.TemporaryDirectory(dir=runs) as folder:
            by_hand.append(_by_hand(Path(folder) / "hand", cores, data=data))
            together.append(_sweep(Path(folder) / "sweep", cores, data=data))
    name = f"a sweep of {len(cores)} chains, a core each"
    return [
        ratio_row(f"{name}: on Ray / by hand", together, by_hand, unit="× speed"),
        ratio_row(f"{name}: on Ray", together, [1.0] * len(together), unit="images/s"),
    ]


def _sweep(folder: Path, cores: Sequence[int], *, data: str) -> float:
    study = _write(folder, grid={"seed": list(range(len(cores)))})
    _wait([_start("sweep", study, data=data, runs=folder / "runs")])
    return _speed(folder / "runs", trainings=2 * len(cores))


def _by_hand(folder: Path, cores: Sequence[int], *, data: str) -> float:
    studies = [_write(folder / str(core), seed=place) for place, core in enumerate(cores)]
    own = [folder / str(core) / "runs" for core in cores]
    for study, runs in zip(studies, own, strict=True):  # prepared before they all start
        _wait([_start("prepare", study, data=data, runs=runs)])
    _wait(
        [
            _start("chain", study, "--local", data=data, runs=runs, core=core)
            for study, runs, core in zip(studies, own, cores, strict=True)
        ]
    )
    return sum(_speed(runs, trainings=2) for runs in own)


def _write(folder: Path, **settings: Any) -> Path:
    folder.mkdir(parents=True)
    study = folder / "study.yaml"
    study.write_text(write_yaml(STUDY | settings))
    return study


def _start(
    command: str, study: Path, *options: str, data: str, runs: Path, core: int | None = None
) -> subprocess.Popen[bytes]:
    pin = ("taskset", "-c", str(core)) if core is not None else ()
    arguments = (*pin, *GENTRAIN, command, str(study), *options, "--data", data, "--runs", str(runs), "--quiet")
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        _, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(errors.decode())


def _speed(runs: Path, *, trainings: int) -> float:
    """Return images a second of all chains together: medians of epochs, a chain's generations averaged."""
    import pyarrow.parquet as pq

    speeds = []
    for file in runs.glob("generations/*/epochs.parquet"):
        rows = pq.read_table(file, columns=["images", "seconds"]).to_pylist()
        speeds.append(float(statistics.median(row["images"] / row["seconds"] for row in rows[1:])))
    if len(speeds) != trainings:
        raise RuntimeError(f"{runs}: {len(speeds)} finished trainings instead of {trainings}")
    return sum(speeds) / 2
