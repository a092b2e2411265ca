"""Measure what grows with depth, batch, workers, samples, generations and chains: only the arithmetic should.

    make growth DATA=DIR        # DIR has CIFAR-100 as Parquet; figures to growth.json and docs/growth.png

Every point is a separate process that trains for real; a generation's seconds are those of its `epochs.parquet`. The
chains are those of scale.json (`scale.py`).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.bench.gate import peak_bytes
from experiments.bench.race import ROOT
from experiments.bench.rows import HERE, machine

OUTPUT, PICTURE = HERE / "growth.json", HERE.parents[1] / "docs" / "growth.png"
SCALE = HERE / "scale.json"
EPOCHS = 3
"""Of which the first, with what is made ready in it, doesn't count."""
DEPTHS, BATCHES, WORKERS, LIMITS = (8, 14, 20, 32, 44), (16, 32, 64, 128, 256), (1, 2), (10, 40, 160, 500)
GENERATIONS = 40


@dataclass(frozen=True)
class Point:
    """Describe a training to be measured."""

    network: str = "resnet20"
    batch: int = 128
    limit: int = 8
    """Images of each of the 100 classes."""
    workers: int = 1
    threads: int = 2
    ray: bool = False


def measure(point: Point, *, data: str) -> dict[str, float]:
    """Return the seconds an image of the epochs that count, and without Ray the peak memory, from a fresh process."""
    command = [sys.executable, "-m", "experiments.bench.growth", "--point", json.dumps(asdict(point)), "--data", data]
    process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if process.returncode:
        raise SystemExit(process.stderr[-2000:])
    costs: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return costs


def train(point: Point, *, data: str) -> dict[str, float]:
    """Train the point's patriarch in this process; return its seconds an image and peak memory."""
    import pyarrow.parquet as pq

    from gentrain import api
    from gentrain.study.loading import parse_study

    settings = {
        "name": "growth",
        "dataset": {"source": "cifar100", "path": data, "limit": point.limit},
        "network": {"name": point.network},
        "recipe": {"epochs": EPOCHS, "batch_size": point.batch, "milestones": [], "learning_rate": 0.01},
        "generations": 0,
        "device": "cpu",
        "workers": point.workers,
        "cpus_per_worker": point.threads,
        "evaluate_every": EPOCHS,
    }
    with tempfile.TemporaryDirectory(prefix="gentrain-growth-") as runs:
        study = parse_study(settings, where="growth.py")
        api.prepare(study, runs=runs)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak, so that preparing doesn't count
        (row,) = api.run(study, runs=runs, observe=lambda _: None, local=not point.ray)
        epochs = pq.read_table(f"{runs}/generations/{row['key']}/epochs.parquet").to_pylist()[1:]
    seconds = statistics.median(epoch["seconds"] / epoch["images"] for epoch in epochs)
    return {"seconds": seconds} if point.ray else {"seconds": seconds, "bytes": peak_bytes()}


def generations(count: int) -> list[dict[str, float]]:
    """Run a chain of so many tiny generations without Ray; return each one's seconds and the process's memory."""
    import psutil

    from gentrain import api
    from gentrain.events import GenerationDone
    from gentrain.study.loading import parse_study

    settings = {
        "name": "growth",
        "dataset": {"source": "digits", "limit": 20},
        "network": {"name": "resnet8"},
        "recipe": {"epochs": 1, "batch_size": 64, "milestones": []},
        "generations": count - 1,
        "device": "cpu",
        "cpus_per_worker": 2,
    }
    costs: list[dict[str, float]] = []
    last = time.perf_counter()

    def observe(event: Any) -> None:
        nonlocal last
        if isinstance(event, GenerationDone):
            now = time.perf_counter()
            costs.append({"seconds": now - last, "bytes": psutil.Process().memory_info().rss})
            last = now

    with tempfile.TemporaryDirectory(prefix="gentrain-growth-") as runs:
        api.run(parse_study(settings, where="growth.py"), runs=runs, observe=observe, local=True)
    return costs[1:]  # the first waits for the data and the compiler


def series(data: str, say: Callable[[str], None]) -> dict[str, list[dict[str, float]]]:
    """Return, by what grows, rows of x, seconds for what should cost the same, and bytes."""
    from gentrain.models.cost import multiply_adds

    def points(name: str, of: Mapping[int, Point], unit: Callable[[int], float]) -> list[dict[str, float]]:
        rows = []
        for x, point in of.items():
            costs = measure(point, data=data)
            rows.append({"x": x, **costs, "seconds": costs["seconds"] * unit(x)})
            say(f"{name} {json.dumps(rows[-1])}")
        return rows

    def arithmetic(depth: int) -> float:
        return 1e9 / multiply_adds(f"resnet{depth}", num_classes=100, height=32, width=32)

    depths = {depth: Point(f"resnet{depth}") for depth in DEPTHS}
    batches = {batch: Point("resnet8", batch=batch, limit=40) for batch in BATCHES}
    workers = {n: Point(workers=n, threads=1, ray=True) for n in WORKERS}
    samples = {100 * limit: Point("resnet8", limit=limit) for limit in LIMITS}
    chain = generations(GENERATIONS)
    return {
        "depth": points("depth", depths, arithmetic),
        "batch": points("batch", batches, lambda _: 1.0),
        "workers": points("workers", workers, float),
        "samples": points("samples", samples, lambda _: 1.0),
        "generations": [{"x": x, **row} for x, row in enumerate(chain, start=2)],
        "chains": [
            {"x": row["chains"], "seconds": row["seconds_a_generation"], "bytes": row["driver_megabytes"] * 1e6}
            for row in json.loads(SCALE.read_text())["sweeps"]
        ],
    }


PANELS = {
    "depth": "depth: seconds a multiply-add",
    "batch": "batch: seconds an image",
    "workers": "workers: worker-seconds an image",
    "samples": "samples: seconds an image",
    "generations": "generations: seconds a generation",
    "chains": "chains: seconds a generation",
}


def picture(by_series: Mapping[str, Sequence[Mapping[str, float]]]) -> bytes:
    """Return the plot: time and memory against what grows, relative to the least of it."""
    from gentrain.report.drawing import SERIES, Panel, Pen, Plot, Style, draw_file

    time_, memory = Style("time", "time", SERIES[0], "o"), Style("memory", "memory", SERIES[1], "s")

    def panel(name: str) -> Panel:
        rows = by_series[name]

        def draw(pen: Pen) -> None:
            xs = [row["x"] for row in rows]
            for style, field in ((time_, "seconds"), (memory, "bytes")):
                if field not in rows[0]:
                    continue
                heights = [row[field] / rows[0][field] for row in rows]
                pen.axes.plot(xs, heights, color=style.color, marker=style.marker, markersize=4)
            if name != "generations":
                pen.axes.set_xscale("log")
                pen.axes.set_xticks(xs, [f"{x:,}" for x in xs])
                pen.axes.minorticks_off()
            low, high = pen.axes.get_ylim()
            pen.axes.set_ylim(0, high + 0.1 * (high - low))

        return Panel(PANELS[name], draw)

    plot = Plot("growth", "", "", tuple(map(panel, PANELS)), (time_, memory), size=(3.4, 2.4), columns=3)
    return draw_file(plot, "png")


def main(
    data: Annotated[str, typer.Option(help="Folder of CIFAR-100's Parquet files.")] = os.environ.get(
        "GENTRAIN_CIFAR100", ""
    ),
    point: Annotated[str, typer.Option(hidden=True)] = "",
    draw: Annotated[bool, typer.Option(help="Draw what growth.json has, measure nothing.")] = False,
) -> None:
    """Measure, write, draw."""
    if point:
        print(json.dumps(train(Point(**json.loads(point)), data=data)))  # noqa: T201  (to the process that asked)
        return
    if not draw:
        if not data or not Path(data).is_dir():
            raise typer.BadParameter(f"{data!r}: no such folder; give CIFAR-100's Parquet files", param_hint="--data")
        if not SCALE.exists():
            raise typer.BadParameter(f"{SCALE}: missing; run scale.py first, which makes it", param_hint="chains")
        made = machine()
        OUTPUT.write_text(json.dumps({"made": made, "series": series(data, typer.echo)}, indent=1) + "\n")
    PICTURE.write_bytes(picture(json.loads(OUTPUT.read_text())["series"]))


if __name__ == "__main__":
    typer.run(main)
