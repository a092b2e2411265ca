"""Make the same comparisons on a GPU, and run several chains on one card.

    .venv/bin/python -m experiments.bench.gpu --data DIR               # everything; DIR has CIFAR-100 as Parquet
    .venv/bin/python -m experiments.bench.gpu --data DIR --only chains # once more with NVIDIA's MPS: rows of their own

`pytest -m gpu` runs first: figures of a wrong computation mean nothing. Rows go to results-gpu.json, and as a table to
standard output. Ends with exit status 2 where there is no GPU. It was NEVER run on one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from experiments.bench.entry import Entry, prepared
from experiments.bench.parts import finished_teacher
from experiments.bench.race import NAMES, ROOT, STAGES, WARM_UP, run_field, start
from experiments.bench.rows import HERE, machine, ratio_row, read, record, table, write
from experiments.bench.stacked import stacked_rows

OUTPUT = HERE / "results-gpu.json"
COMMAND = "python -m experiments.bench.gpu"
BLOCKS = {"resnet20": (128, 50_000), "densenet100": (64, 10_000)}
"""Batch and images of a block by network: a block should take seconds."""
CHAINS, CHAINS_MPS, STACKED = "chains", "chains-mps", "stacked"
AT_ONCE = (1, 2, 4)
"""Chains on one card."""
TURNS = {"gpus_per_worker": 0.1}
"""Let Ray place all of gentrain's contenders on one card; they take turns, so each has all of it in its block."""

Blocks = list[dict[str, Any]]


def threads(workers: int = 1) -> int:
    """Return the threads of each of so many workers: as many as gentrain gives a GPU worker by default, at most."""
    return max(1, min(8, len(os.sched_getaffinity(0)) // workers))


def race(network: str, task: str, *, rounds: int, data: str, runs: str, teacher: str) -> list[dict[str, Any]]:
    """Let every contender train `network` on the card in turns, and return the rows."""
    batch, images = BLOCKS[network]
    ideal = Entry("ideal", network, task, batch, images, 1, threads(), data, runs, "", teacher, device="cuda")
    ours = replace(ideal, kind="gentrain", settings=TURNS)
    compiled = replace(ours, settings={**TURNS, "compile": True})
    field = {
        "ideal": ideal,
        "bf16": ours,
        "fp32": replace(ours, precision="fp32"),
        "tf32": replace(ours, precision="tf32"),
        "compiled": compiled,
        "plain script": replace(ideal, kind="plain"),
    }
    if task == "student":
        field["folded"] = replace(ours, settings={**TURNS, "fold_batchnorm": True})
        field["compiled, folded"] = replace(compiled, settings={**compiled.settings, "fold_batchnorm": True})
        field["torchdistill"] = replace(ideal, kind="torchdistill")
    prepared(ideal)  # before they all start
    return race_rows(run_field(field, rounds=rounds), name=f"{NAMES[network]} {task}", images=images)


def race_rows(races: Mapping[str, Blocks], *, name: str, images: int) -> list[dict[str, Any]]:
    """Return the speed of gentrain with each setting, and its ratios to the other contenders."""
    seconds = {who: [block["seconds"] for block in blocks] for who, blocks in races.items()}

    def times(who: str, other: str) -> dict[str, Any]:
        row = f"{name}: gentrain {who} / {other}"
        return ratio_row(row, seconds[other], seconds[who], unit="× speed", command=COMMAND)

    ways = [who for who in ("bf16", "fp32", "tf32", "compiled", "folded", "compiled, folded") if who in seconds]
    rows = [
        ratio_row(
            f"{name}: gentrain {who}", [images] * len(seconds[who]), seconds[who], unit="images/s", command=COMMAND
        )
        for who in ways
    ]
    rows += [times("bf16", "ideal"), times("compiled", "ideal"), times("bf16", "fp32"), times("tf32", "fp32")]
    rows += [times("compiled", "bf16"), times("bf16", "plain script"), times("compiled", "plain script")]
    if "torchdistill" in seconds:
        rows += [times("folded", "bf16"), times("compiled, folded", "compiled")]
        rows += [times("bf16", "torchdistill"), times("compiled", "torchdistill")]
    return rows


def chains(*, rounds: int, data: str, runs: str, mps: bool) -> list[dict[str, Any]]:
    """Let 1, 2 and 4 chains train on the card side by side and return what they do together."""
    network = "resnet20"
    batch, images = BLOCKS[network]
    speeds: dict[int, list[float]] = {}
    for count in AT_ONCE:
        entry = Entry("gentrain", network, "patriarch", batch, images, 1, threads(count), data, runs, "", "")
        entry = replace(entry, device="cuda", settings={"gpus_per_worker": 1 / count})
        prepared(entry)
        blocks_of_rounds = run_together({f"chain {number}": entry for number in range(count)}, rounds=rounds)
        speeds[count] = [count * images / max(block["seconds"] for block in blocks) for blocks in blocks_of_rounds]
    how = "with MPS" if mps else "without MPS"
    rows = [
        ratio_row(
            f"{NAMES[network]} patriarch, {count} on one card, {how}: all together",
            speed,
            [1.0] * len(speed),
            unit="images/s",
            command=COMMAND,
        )
        for count, speed in speeds.items()
    ]
    return rows + [
        ratio_row(
            f"{NAMES[network]} patriarch, {how}: {count} on one card / 1",
            speeds[count],
            speeds[1],
            unit="× speed",
            command=COMMAND,
        )
        for count in AT_ONCE[1:]
    ]


def run_together(field: Mapping[str, Entry], *, rounds: int) -> list[Blocks]:
    """Run every contender's block at the same time, round by round; return each round's blocks, without the warm-up."""
    with tempfile.TemporaryDirectory(prefix="gentrain-bench-") as folder, ThreadPoolExecutor(len(field)) as pool:
        started = [start(entry, Path(folder) / str(number)) for number, entry in enumerate(field.values())]
        try:
            together = [
                list(pool.map(lambda who, block=block: who[0].run(block, alive=lambda: who[1].poll() is None), started))
                for block in range(WARM_UP + rounds)
            ]
            return together[WARM_UP:]
        finally:
            for gate, _ in started:
                gate.stop()
            for _, process in started:
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()


def mps_answers() -> bool:
    """Return whether NVIDIA's MPS daemon runs here: what is started then shares the card through it."""
    try:
        answer = subprocess.run(
            ["nvidia-cuda-mps-control"], input=b"get_server_list\n", capture_output=True, timeout=30, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def card() -> str:
    """Return the GPU, its driver and the CUDA that torch was built for."""
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=True,
    )
    driver = answer.stdout.splitlines()[0].strip()
    return f"{torch.cuda.get_device_name(0)}, driver {driver}, CUDA {torch.version.cuda}"


def measure(stage: str, *, rounds: int, data: str, runs: str) -> list[dict[str, Any]]:
    """Return a stage's rows."""
    if stage == STACKED:
        return stacked_rows(torch.device("cuda"), rounds=rounds, command=COMMAND)
    if stage in (CHAINS, CHAINS_MPS):
        return chains(rounds=rounds, data=data, runs=runs, mps=stage == CHAINS_MPS)
    network, task = stage.rsplit("-", 1)
    teacher = finished_teacher(network, data=data, runs=runs) if task == "student" else ""
    return race(network, task, rounds=rounds, data=data, runs=runs, teacher=teacher)


def main(
    data: Annotated[str, typer.Option(help="Folder of CIFAR-100's Parquet files.")] = os.environ.get(
        "GENTRAIN_CIFAR100", ""
    ),
    only: Annotated[str, typer.Option(help="Stages, by commas; default: all.")] = "",
    rounds: Annotated[int, typer.Option(help="Rounds that count.")] = 7,
    output: Annotated[Path, typer.Option(help="Where the rows go.")] = OUTPUT,
) -> None:
    """Check, measure, print, write."""
    if not torch.cuda.is_available():
        typer.echo("no GPU: torch finds no CUDA device here; run this on a machine that has one", err=True)
        raise typer.Exit(2)
    if not data or not Path(data).is_dir():
        raise typer.BadParameter(f"{data!r}: no such folder; give CIFAR-100's Parquet files", param_hint="--data")
    names = (*STAGES, STACKED, CHAINS_MPS if mps_answers() else CHAINS)
    wanted = [names[-1] if stage == CHAINS else stage for stage in only.split(",")] if only else list(names)
    if unknown := set(wanted) - set(names):
        known = ", ".join((*STAGES, STACKED, CHAINS))
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: the stages are {known}", param_hint="--only")
    where = machine()
    where |= {"machine": f"{card()}; {where['machine']}"}
    typer.echo(json.dumps(where, indent=2))
    if subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "tests/train/test_gpu.py"], cwd=ROOT, check=False
    ).returncode:
        typer.echo("the tests of the GPU path failed, so nothing was measured", err=True)
        raise typer.Exit(1)
    order = (*STAGES, STACKED, CHAINS, CHAINS_MPS)
    content = read(output)
    with tempfile.TemporaryDirectory(prefix="gentrain-bench-runs-") as runs:
        for stage in wanted:
            started = time.perf_counter()
            rows = measure(stage, rounds=rounds, data=data, runs=runs)
            made = where | {"seconds": round(time.perf_counter() - started)}
            content = record(content, stage, rows, made, order=order)
            write(content, output)
    typer.echo(table(content))


if __name__ == "__main__":
    typer.run(main)
