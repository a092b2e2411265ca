"""Race contenders against each other.

All are resident and take turns at short blocks, so that other load on the machine slows all of them alike. A ratio is
taken within each round; its median, lowest and highest are reported.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.bench.breakdown import PARTS
from experiments.bench.entry import Entry, prepared
from experiments.bench.gate import Gate
from experiments.bench.rows import OURS, OURS_COMPILED, ratio_row

ROOT = Path(__file__).parents[2]
WARM_UP = 1
"""Rounds that don't count."""
ONE, TWO = "gentrain, 1 worker × 2 threads", "gentrain, 2 workers × 1 thread"
LOOP = "gentrain's loop without Ray"
COMPILED, COMPILED_IDEAL = "gentrain, 1 worker × 2 threads, compiled", "compiled ideal"
BARE, FOLDED = "without teacher", "folded teacher"
COMPILED_BARE, COMPILED_FOLDED = "compiled, without teacher", "compiled, folded teacher"
SEEDS = itertools.count(1)
"""A new one for every contender that this process starts: with an old one, it would resume the old generation."""
SHAPES = {"resnet20": (128, 1600), "densenet100": (64, 200)}
"""Batch and images of a block by network: a block takes a second or a few on two cores."""
ROUNDS = {"densenet100": 3}
"""The most rounds of a large network."""
MOST_OF_LARGE = 6
"""Contenders with a large network, 2.5 GB each, that 24 GB hold beside their loaders."""
NAMES = {"resnet20": "ResNet-20", "densenet100": "DenseNet-100"}
STAGES = tuple(f"{network}-{task}" for network in NAMES for task in ("patriarch", "student"))


def race(network: str, task: str, *, rounds: int, data: str, runs: str, teacher: str) -> list[dict[str, Any]]:
    """Let every contender train `network` and return the rows; a large network races fewer rounds."""
    batch, images = SHAPES.get(network, (128, 1600))
    entry = Entry("ideal", network, task, batch, images, 1, 2, data, runs, "", teacher)
    field = {
        "ideal": entry,
        ONE: replace(entry, kind="gentrain"),
        LOOP: replace(entry, kind="loop"),
        TWO: replace(entry, kind="gentrain", workers=2, threads=1),
        "plain script": replace(entry, kind="plain"),
        COMPILED_IDEAL: replace(entry, settings={"compile": True}),
        COMPILED: replace(entry, kind="gentrain", settings={"compile": True}),
    }
    if task == "student":
        field["torchdistill"] = replace(entry, kind="torchdistill")
        field[BARE] = replace(entry, kind="gentrain", task="patriarch")
        field[FOLDED] = replace(entry, kind="gentrain", settings={"fold_batchnorm": True})
        field[COMPILED_BARE] = replace(field[BARE], settings={"compile": True})
        field[COMPILED_FOLDED] = replace(field[COMPILED], settings={"compile": True, "fold_batchnorm": True})
    prepared(entry)  # before they all start
    rounds = min(rounds, ROUNDS.get(network, rounds))
    rows: dict[str, dict[str, Any]] = {}
    for heat in _heats(field, network):
        blocks = run_field(heat, rounds=rounds)
        for row in _rows(blocks, name=f"{NAMES.get(network, network)} {task}", images=images):
            rows.setdefault(row["name"], row)
    return list(rows.values())


def _heats(field: dict[str, Entry], network: str) -> list[dict[str, Entry]]:
    """Return those who race together: all but compiled steps with other teachers, which race against each other.

    Where memory doesn't hold ten large ones, gentrain races against its rivals, then against its own variants.
    """
    variants = (COMPILED_BARE, COMPILED_FOLDED)
    compiled = [{who: field[who] for who in (ONE, COMPILED, *variants)}] if COMPILED_BARE in field else []
    field = {who: entry for who, entry in field.items() if who not in variants}
    if network not in ROUNDS or len(field) <= MOST_OF_LARGE:
        return [field, *compiled]
    own = (LOOP, TWO, BARE, FOLDED)
    rivals = {who: entry for who, entry in field.items() if who not in own}
    return [rivals, {who: entry for who, entry in field.items() if who in ("ideal", ONE, *own)}, *compiled]


def run_field(field: Mapping[str, Entry], *, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run every contender's blocks in turn; return what each block took, by contender, without the warm-up."""
    with tempfile.TemporaryDirectory(prefix="gentrain-bench-") as folder, _shared_ray(field, Path(folder)) as address:
        started: dict[str, tuple[Gate, subprocess.Popen[bytes]]] = {}
        try:
            for number, (name, entry) in enumerate(field.items()):
                started[name] = start(replace(entry, address=address), Path(folder) / str(number))
            taken: dict[str, list[dict[str, Any]]] = {name: [] for name in field}
            for block in range(WARM_UP + rounds):
                for name, (gate, process) in started.items():
                    taken[name].append(gate.run(block, alive=lambda process=process: process.poll() is None))
            return {name: blocks[WARM_UP:] for name, blocks in taken.items()}
        finally:
            for gate, _ in started.values():
                gate.stop()
            for _, process in started.values():
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()


@contextlib.contextmanager
def _shared_ray(field: Mapping[str, Entry], folder: Path) -> Iterator[str]:
    """Start one Ray instance for all of gentrain's contenders that want one, as a machine has; yield its address."""
    cpus = sum(entry.workers * entry.threads for entry in field.values() if entry.kind == "gentrain")
    if not cpus:
        yield ""
        return
    from gentrain.cluster.session import ray_session

    os.environ |= _with_own_modules()  # for the workers that it starts
    with ray_session(address=None, log=folder / "ray.log", cpus=cpus):
        import ray

        yield ray.get_runtime_context().gcs_address


def _with_own_modules() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}


def start(entry: Entry, folder: Path) -> tuple[Gate, subprocess.Popen[bytes]]:
    """Start a contender's process with its own gate below `folder` and another seed than all others have."""
    folder.mkdir()
    entry = replace(entry, gate=str(folder), seed=next(SEEDS))
    entry.write(folder / "entry.json")
    with (folder / "log.txt").open("wb") as log:
        command = [sys.executable, "-m", "experiments.bench.contenders", str(folder / "entry.json")]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | _with_own_modules())
    return Gate(folder), process


def _rows(taken: Mapping[str, list[dict[str, Any]]], *, name: str, images: int) -> list[dict[str, Any]]:
    def seconds(who: str, what: str = "seconds") -> list[float]:
        return [block[what] for block in taken[who]]

    def peak(who: str) -> list[float]:
        return [taken[who][-1]["peak_bytes"]]

    rows = []

    def speed(ratio: str, slow: str, fast: str) -> None:
        if slow in taken and fast in taken:
            rows.append(ratio_row(f"{name}: {ratio}", seconds(slow), seconds(fast), unit="× speed"))

    speed(f"{ONE} / ideal", "ideal", ONE)
    speed(f"{LOOP} / ideal", "ideal", LOOP)
    speed("2 workers × 1 thread / 1 × 2", ONE, TWO)
    for ours, who in ((OURS, ONE), (OURS_COMPILED, COMPILED)):
        speed(f"{ours} / plain script", "plain script", who)
        speed(f"{ours} / torchdistill", "torchdistill", who)
    speed(f"{OURS_COMPILED} / ideal", "ideal", COMPILED)
    speed(f"{OURS_COMPILED} / {COMPILED_IDEAL}", COMPILED_IDEAL, COMPILED)
    speed(f"{COMPILED_IDEAL} / ideal", "ideal", COMPILED_IDEAL)
    if BARE in taken:
        for variant, who in (("teacher", ONE), (FOLDED, FOLDED)):
            row = f"{name}: a step with {variant} / without"
            rows.append(ratio_row(row, seconds(who), seconds(BARE), unit="× time"))
    if COMPILED_BARE in taken:
        for variant, who in (("teacher", COMPILED), (FOLDED, COMPILED_FOLDED)):
            row = f"{name}: a compiled step with {variant} / without"
            rows.append(ratio_row(row, seconds(who), seconds(COMPILED_BARE), unit="× time"))
    if "ideal" in taken:
        rows.append(ratio_row(f"{name}: peak memory, gentrain / ideal", peak(ONE), peak("ideal"), unit="× memory"))
    rows += [
        ratio_row(
            f"{name}: evaluating an image / training on it",
            [block["evaluated"] / block["evaluated_images"] for block in taken[ONE]],
            [block["seconds"] / images for block in taken[ONE]],
            unit="× time",
        ),
        ratio_row(f"{name}: speed", [images] * len(taken[ONE]), seconds(ONE), unit="images/s"),
        ratio_row(f"{name}: saving a checkpoint", seconds(ONE, "saved"), [1.0] * len(taken[ONE]), unit="s an epoch"),
    ]
    for part in PARTS:
        times = [block["parts"][part] for block in taken.get(LOOP, [])]
        if any(times):
            rows.append(ratio_row(f"{name}: of a step, {part}", times, seconds(LOOP), unit="× time"))
    return rows
