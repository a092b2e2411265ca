"""Measure where a generation's time goes, against its own arithmetic and against other ways to run it.

    make bench DATA=DIR                                       # everything; DIR has CIFAR-100 as Parquet
    .venv/bin/python -m experiments.bench.bench --data DIR --only loader,prepare

Every comparison is made inside one run, the contenders taking turns. Rows go to results.json, and from there into
docs/performance.md's tables, one for each machine. Stages that aren't asked for keep their rows; other machines, too.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.bench.parts import PARTS, WITHOUT_DATA, finished_teacher
from experiments.bench.race import STAGES, race
from experiments.bench.rows import OUTPUT, machine, read, record, write

NAMES = (*STAGES, *PARTS)


def measure(stage: str, *, data: str, runs: str, rounds: int) -> list[dict[str, Any]]:
    """Return a stage's rows."""
    if stage in PARTS:
        return PARTS[stage](data=data, runs=runs, rounds=rounds)
    network, task = stage.rsplit("-", 1)
    teacher = finished_teacher(network, data=data, runs=runs) if task == "student" else ""
    return race(network, task, rounds=rounds, data=data, runs=runs, teacher=teacher)


def main(
    data: Annotated[str, typer.Option(help="Folder of CIFAR-100's Parquet files.")] = os.environ.get(
        "GENTRAIN_CIFAR100", ""
    ),
    only: Annotated[str, typer.Option(help="Stages, by commas; default: all.")] = "",
    rounds: Annotated[int, typer.Option(help="Rounds that count.")] = 4,
    output: Annotated[Path, typer.Option(help="Where the rows go.")] = OUTPUT,
) -> None:
    """Measure, print, write."""
    wanted = only.split(",") if only else NAMES
    if unknown := set(wanted) - set(NAMES):
        raise typer.BadParameter(f"{', '.join(unknown)}: the stages are {', '.join(NAMES)}", param_hint="--only")
    if not set(wanted) <= WITHOUT_DATA and (not data or not Path(data).is_dir()):
        raise typer.BadParameter(f"{data!r}: no such folder; give CIFAR-100's Parquet files", param_hint="--data")
    content = read(output)
    with tempfile.TemporaryDirectory(prefix="gentrain-bench-runs-") as runs:
        for stage in wanted:
            made, started = machine(), time.perf_counter()
            rows = measure(stage, data=data, runs=runs, rounds=rounds)
            for row in rows:
                typer.echo(json.dumps({**row, "stage": stage}))
            made["seconds"] = round(time.perf_counter() - started)
            content = record(content, stage, rows, made, order=NAMES)
            write(content, output)


if __name__ == "__main__":
    typer.run(main)
