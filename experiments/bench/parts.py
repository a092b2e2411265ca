"""Measure what the races don't: loading, preparing, the teacher's two passes, the time between two generations."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from experiments.bench.contenders import torchvision_loader
from experiments.bench.convolutions import convolutions
from experiments.bench.entry import MEAN, STD, Entry, prepared
from experiments.bench.handover import measure_handovers
from experiments.bench.kernels import kernels
from experiments.bench.race import NAMES, SHAPES, run_field
from experiments.bench.ray_contender import study
from experiments.bench.rows import HERE, ratio_row
from experiments.bench.side_by_side import side_by_side
from experiments.bench.stacked import stacked
from experiments.bench.start import start

SIBLINGS = 3
"""As many of figure 2's processes begin with the same patriarch."""


def _entry(network: str, *, data: str, runs: str, **rest: Any) -> Entry:
    batch, images = SHAPES.get(network, (128, 1600))
    fields: dict[str, Any] = {"workers": 1, "threads": 2, "gate": "", "teacher": ""} | rest
    return Entry("gentrain", network, "patriarch", batch, images, data=data, runs=runs, **fields)


def finished_teacher(network: str, *, data: str, runs: str) -> str:
    """Train a patriarch for one short epoch, so that students have a teacher; return its key."""
    from gentrain import api

    wanted = study(_entry(network, data=data, runs=runs), epochs=1).model_copy(update={"generations": 0})
    (row,) = api.run(wanted, runs=runs, observe=lambda _: None, local=True)
    key: str = row["key"]
    return key


def loader(*, data: str, runs: str, rounds: int) -> list[dict[str, Any]]:
    """Compare FFCV with augmentation of whole batches to DataLoader with torchvision's transforms."""
    import torch

    from gentrain.data.loading.augment import augment, normalise
    from gentrain.data.loading.loader import Loader

    torch.set_num_threads(2)
    entry = _entry("resnet20", data=data, runs=runs)
    ours = Loader(prepared(entry).split_path("train"), batch_size=128, shuffle=True, threads=2)
    theirs = torchvision_loader(entry)

    def own() -> float:
        started, images = time.perf_counter(), 0
        for epoch in range(rounds):
            for batch in ours.epoch(epoch):
                pixels = augment(batch.images, batch.indices, seed=0, epoch=epoch, padding=4, flip=True)
                images += len(normalise(pixels, mean=MEAN, std=STD))
        return images / (time.perf_counter() - started)

    def other() -> float:
        started, images = time.perf_counter(), 0
        for _ in range(rounds):
            images += sum(len(batch) for batch, _ in theirs)
        return images / (time.perf_counter() - started)

    own(), other()
    pairs = [(own(), other()) for _ in range(rounds)]
    fast, slow = zip(*pairs, strict=True)
    return [
        ratio_row("loader: FFCV and augmentation of batches / DataLoader and torchvision", fast, slow, unit="× speed"),
        ratio_row("loader: FFCV and augmentation of batches", fast, [1.0] * rounds, unit="images/s"),
    ]


_PREPARE = """
import json, sys, time
from pathlib import Path
from gentrain.study.sections import DatasetConfig
from gentrain.data.prepare.dataset import prepare
config = DatasetConfig(source="cifar100", path=sys.argv[1])
started = time.perf_counter()
data = prepare(config, Path(sys.argv[2]))
seconds = time.perf_counter() - started
peak = next(l for l in open("/proc/self/status") if l.startswith("VmHWM"))
count = sum(info.count for info in data.manifest.splits.values())
print(json.dumps({"speed": count / seconds, "bytes": int(peak.split()[1]) * 1024}))
"""


def preparation(*, data: str, runs: str, rounds: int) -> list[dict[str, Any]]:
    """Time the preparation of the whole of CIFAR-100, without imports."""
    costs = []
    for _ in range(min(3, rounds)):
        with tempfile.TemporaryDirectory(dir=runs) as folder:
            process = subprocess.run([sys.executable, "-c", _PREPARE, data, folder], capture_output=True, check=True)
        costs.append(json.loads(process.stdout.splitlines()[-1]))
    once = [1.0] * len(costs)
    return [
        ratio_row("preparation of CIFAR-100", [f["speed"] for f in costs], once, unit="images/s"),
        ratio_row("preparation of CIFAR-100: peak memory", [f["bytes"] / 1e9 for f in costs], once, unit="GB"),
    ]


def handover(*, data: str, runs: str, rounds: int) -> list[dict[str, Any]]:
    """Measure the seconds between a generation's last step and the next one's first, by what they are spent on."""
    entry = _entry("resnet20", data=data, runs=runs)
    seconds = [handover for _ in range(min(3, rounds)) for handover in measure_handovers(entry)]
    return [
        ratio_row(f"between generations: {name}", [f[name] for f in seconds], [1.0] * len(seconds), unit="s")
        for name in seconds[0]
    ]


def teacher(*, data: str, runs: str, rounds: int) -> list[dict[str, Any]]:
    """Compare a teacher's passes, eager and compiled, folded and not: their speed, and the distance of their logits."""
    import torch

    from gentrain.store.run import RunStore
    from gentrain.train.allocator import keep_freed_memory
    from gentrain.train.compiler_cache import use_cache
    from gentrain.train.compiling import ConstantNetwork, compile_network
    from gentrain.train.device import autocast, to_device
    from gentrain.train.inference import load_teacher

    keep_freed_memory()
    use_cache()
    torch.set_num_threads(2)
    cpu = torch.device("cpu")
    rows = []
    for network, (batch, _) in SHAPES.items():
        key = finished_teacher(network, data=data, runs=runs)
        shape = torch.zeros(1, 3, 32, 32), torch.bfloat16
        exact, folded, compiled, constant = (
            to_device(load_teacher([key], RunStore(runs), folded=folded, fuse_for=fuse_for), cpu).eval()
            for folded, fuse_for in ((False, None), (True, shape), (False, None), (True, None))
        )
        passes = {
            "exact": exact,
            "folded": folded,
            "compiled": compile_network(compiled, cpu, graphs=False),
            "folded, compiled": ConstantNetwork(constant, cpu, graphs=False),
        }
        images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        times: dict[str, list[float]] = {name: [] for name in passes}
        logits = {}
        for _ in range(1 + 3 * rounds):
            for name, model in passes.items():
                started = time.perf_counter()
                with torch.no_grad(), autocast(cpu, "bf16"):
                    logits[name] = model(images).float()
                times[name].append(time.perf_counter() - started)
        with torch.no_grad():
            true = exact(images)
        named = f"{NAMES[network]} teacher"
        rows += [
            ratio_row(f"{named}: {name} / exact", times["exact"][1:], times[name][1:], unit="× speed")
            for name in list(passes)[1:]
        ]
        for name, values in logits.items():
            away = float((values - true).abs().mean() / true.std())
            rows.append(
                ratio_row(
                    f"{named}: {name} in bf16, mean distance from fp32's logits", [away], [1.0], unit="of their std"
                )
            )
    return rows


def siblings(*, data: str, runs: str, rounds: int) -> list[dict[str, Any]]:
    """Compare three students that share a teacher's pass to three apart; count how often figure 2 could do so."""
    import torch
    import torch.nn.functional as F

    from gentrain.models.registry import build_model
    from gentrain.study.lineage import build_forest
    from gentrain.study.loading import load_study
    from gentrain.study.tasks import StudentSpec
    from gentrain.train.allocator import keep_freed_memory
    from gentrain.train.device import autocast, to_device

    del data, runs
    keep_freed_memory()
    torch.set_num_threads(2)
    cpu, batch = torch.device("cpu"), SHAPES["resnet20"][0]
    networks = [to_device(build_model("resnet20", num_classes=100), cpu).train() for _ in range(SIBLINGS)]
    teacher = to_device(build_model("resnet20", num_classes=100), cpu).eval()
    images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)

    def step(passes: int) -> float:
        started = time.perf_counter()
        with autocast(cpu, "bf16"):
            for _ in range(passes):
                with torch.no_grad():
                    soft = teacher(images).float().softmax(dim=1)
            losses = [F.cross_entropy(network(images).float(), soft) for network in networks]
        torch.stack(losses).sum().backward()
        return time.perf_counter() - started

    step(1)
    together, apart = zip(*((step(1), step(SIBLINGS)) for _ in range(3 * rounds)), strict=True)
    forest = build_forest(load_study(HERE.parent / "figure2.yaml"), data="any", num_classes=100)
    taught = [spec.task.teachers for spec in forest.specs.values() if isinstance(spec.task, StudentSpec)]
    return [
        ratio_row(f"{SIBLINGS} students of one teacher: together / apart", together, apart, unit="× time"),
        ratio_row(
            "figure 2's grid: teachers' passes that another student could share",
            [len(taught) - len(set(taught))],
            [len(taught)],
            unit="of all",
        ),
    ]


def allocator(*, data: str, runs: str, rounds: int) -> list[dict[str, Any]]:
    """Compare a student's step with freed memory kept and handed back, on one thread: wall time, CPU time, memory."""
    rows = []
    for network, name in NAMES.items():
        key = finished_teacher(network, data=data, runs=runs)
        entry = replace(_entry(network, data=data, runs=runs), kind="ideal", task="student", threads=1, teacher=key)
        blocks = run_field({"kept": entry, "handed back": replace(entry, keep=False)}, rounds=rounds)
        for what, suffix in (("seconds", ""), ("cpu_seconds", ", CPU time"), ("peak_bytes", ", peak memory")):
            back, kept = ([block[what] for block in blocks[who]] for who in ("handed back", "kept"))
            unit = "× memory" if what == "peak_bytes" else "× speed"
            rows.append(
                ratio_row(
                    f"{name} student, 1 thread: freed memory kept / handed back{suffix}",
                    *((kept, back) if what == "peak_bytes" else (back, kept)),
                    unit=unit,
                )
            )
    return rows


PARTS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "loader": loader,
    "prepare": preparation,
    "kernels": kernels,
    "convolutions": convolutions,
    "teacher": teacher,
    "siblings": siblings,
    "stacked": stacked,
    "allocator": allocator,
    "handover": handover,
    "side-by-side": side_by_side,
    "start": start,
}
WITHOUT_DATA = {"convolutions", "siblings", "stacked", "start"}
"""Those that need no images of CIFAR-100."""
