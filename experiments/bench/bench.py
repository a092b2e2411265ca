"""Where a generation's time goes, against its own arithmetic and against what one would otherwise run.

    make bench DATA=DIR                                       # everything; DIR has CIFAR-100 as Parquet
    .venv/bin/python experiments/bench/bench.py --data DIR --only loader,prepare

Every comparison is made inside one run, the contenders taking turns. Rows go to results.json, and from there into
docs/performance.md's table. Stages that aren't asked for keep their rows.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
OUTPUT = HERE / "results.json"
PAGE = HERE.parents[1] / "docs" / "performance.md"
NETWORKS = ("resnet20", "densenet100")
STAGES = tuple(f"{network}-{task}" for network in NETWORKS for task in ("patriarch", "student"))
BEGIN, END = "<!-- table: make bench -->", "<!-- end of table -->"


def stage_names() -> tuple[str, ...]:
    """Return the stages in order."""
    from parts import PARTS

    return (*STAGES, *PARTS)


def measure(stage: str, *, data: str, runs: str, rounds: int) -> list[dict[str, Any]]:
    """Return a stage's rows."""
    from parts import PARTS, finished_teacher
    from race import race

    if stage in PARTS:
        return PARTS[stage](data=data, runs=runs, rounds=rounds)
    network, task = stage.rsplit("-", 1)
    teacher = finished_teacher(network, data=data, runs=runs) if task == "student" else ""
    return race(network, task, rounds=rounds, data=data, runs=runs, teacher=teacher)


def machine() -> dict[str, Any]:
    """Return where and with what the figures were made."""
    told = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in told if line.startswith("model name")), "")
    commit, changed = (
        _git("rev-parse", "--short", "HEAD"),
        _git("status", "--porcelain", "-uno", "--", "../../gentrain"),
    )
    return {
        "machine": f"{platform.machine()}, {cpu}, {len(os.sched_getaffinity(0))} CPUs",
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {name: version(name) for name in ("torch", "torchvision", "ray", "ffcv", "numpy")}
        | {"python": platform.python_version()},
        "commit": commit + (" and changes" if changed else ""),
        "date": date.today().isoformat(),
    }


def _git(*arguments: str) -> str:
    told = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False)
    return told.stdout.strip()


def table(content: dict[str, Any]) -> str:
    """Return the rows as Markdown, with where they come from."""
    lines = ["| | median | lowest – highest | |", "|---|---:|---:|---|"]
    for row in content["rows"]:
        low, high = (_figure(row[name]) for name in ("low", "high"))
        lines.append(f"| {row['name']} | **{_figure(row['ratio'])}** | {low} – {high} | {row['unit']} |")
    lines.append("")
    for stage in dict.fromkeys(row["stage"] for row in content["rows"]):
        made = content["made"][stage]
        where = f"{made['date']}, load before {made['load_before']}, {made['machine']}"
        took = f"{made['seconds']} s, " if "seconds" in made else ""
        lines.append(f"{stage}: {took}commit {made['commit']}, {where}.")
    versions = next(iter(content["made"].values()))["versions"]
    lines.append("Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".")
    return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write(content: dict[str, Any], output: Path) -> None:
    """Write results.json, and the page's table where it is the suite's own file."""
    output.write_text(json.dumps(content, indent=2) + "\n")
    if output == OUTPUT and PAGE.exists():
        before, _, rest = PAGE.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{table(content)}\n{END}{after}")


def main(
    data: Annotated[str, typer.Option(help="Folder of CIFAR-100's Parquet files.")] = os.environ.get(
        "GENTRAIN_CIFAR100", ""
    ),
    only: Annotated[str, typer.Option(help="Stages, by commas; default: all.")] = "",
    rounds: Annotated[int, typer.Option(help="Rounds that count.")] = 4,
    output: Annotated[Path, typer.Option(help="Where the rows go.")] = OUTPUT,
) -> None:
    """Measure, print, write."""
    if not Path(data).is_dir() or not data:
        raise typer.BadParameter(f"{data!r}: no such folder; give CIFAR-100's Parquet files", param_hint="--data")
    wanted = only.split(",") if only else stage_names()
    if unknown := set(wanted) - set(stage_names()):
        raise typer.BadParameter(
            f"{', '.join(unknown)}: the stages are {', '.join(stage_names())}", param_hint="--only"
        )
    content = json.loads(output.read_text()) if output.exists() else {"rows": [], "made": {}}
    with tempfile.TemporaryDirectory(prefix="gentrain-bench-runs-") as runs:
        for stage in wanted:
            content["made"][stage], started = machine(), time.perf_counter()
            rows = [{**row, "stage": stage} for row in measure(stage, data=data, runs=runs, rounds=rounds)]
            content["made"][stage]["seconds"] = round(time.perf_counter() - started)
            for row in rows:
                typer.echo(json.dumps(row))
            rows += [row for row in content["rows"] if row["stage"] != stage]
            content["rows"] = sorted(rows, key=lambda row: stage_names().index(row["stage"]))
            write(content, output)


if __name__ == "__main__":
    typer.run(main)
