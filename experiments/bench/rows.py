"""What was measured: rows of ratios with where they were made, as JSON and as the table of docs/performance.md."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUTPUT = HERE / "results.json"
PAGE = HERE.parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- table: make bench -->", "<!-- end of table -->"


def ratio_row(
    name: str, above: Sequence[float], below: Sequence[float], *, unit: str, command: str = "make bench"
) -> dict[str, Any]:
    """Return the row of a ratio, round by round."""
    ratios = sorted(a / b for a, b in zip(above, below, strict=True))
    return {
        "name": name,
        "ratio": statistics.median(ratios),
        "low": ratios[0],
        "high": ratios[-1],
        "unit": unit,
        "command": command,
    }


def machine() -> dict[str, Any]:
    """Return where and with what the figures were made."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
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
    process = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False)
    return process.stdout.strip()


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
