"""What was measured: rows of ratios with where they were made, as JSON and as the tables of docs/performance.md.

Every machine has its own: figures of two machines aren't compared. Rows that have a target say whether it is met.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUTPUT = HERE / "results.json"
PAGE = HERE.parents[1] / "docs" / "performance.md"
OURS, OURS_COMPILED = "gentrain", "gentrain, compiled"
"""Names in rows of its student's or patriarch's step on Ray, eager and through torch.compile."""
Content = list[dict[str, Any]]
"""For each machine its `machine`, `rows`, and by stage where and with what they were `made`."""
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
    from gentrain.doctor import processor  # it imports torch

    cpu = processor()
    commit, changed = (
        _git("rev-parse", "--short", "HEAD"),
        _git("status", "--porcelain", "-uno", "--", "../../gentrain"),
    )
    return {
        "machine": f"{platform.machine()}, {cpu.model}, {cpu.count} CPUs",
        "cpu": cpu.model,
        "cpus": cpu.count,
        "flags": list(cpu.features),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {name: version(name) for name in ("torch", "torchvision", "ray", "ffcv", "numpy")}
        | {"python": platform.python_version()},
        "commit": commit + (" and changes" if changed else ""),
        "date": date.today().isoformat(),
    }


def heading(made: Mapping[str, Any]) -> str:
    """Return the machine on which a stage was measured, with the CPU's flags: stages of one heading share a table."""
    if "flags" not in made:
        return f"{made['machine']}; flags not recorded"
    return f"{made['machine']}; {', '.join(made['flags']) or 'no AVX2'}"


def _git(*arguments: str) -> str:
    process = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False)
    return process.stdout.strip()


def read(output: Path) -> Content:
    """Return what was measured so far: a part for each machine, the one that measured last first."""
    content: Content = json.loads(output.read_text())["machines"] if output.exists() else []
    return content


def record(
    content: Content, stage: str, rows: Iterable[Mapping[str, Any]], made: Mapping[str, Any], *, order: Sequence[str]
) -> Content:
    """Return the content with a stage's rows in place of those that it had on the same machine.

    Args:
        content: what was measured so far.
        stage: that was measured.
        rows: of the stage.
        made: where and with what, as `machine` returns it.
        order: of the stages in a table.
    """
    same = [part for part in content if part["machine"] == heading(made)]
    others = [part for part in content if part["machine"] != heading(made)]
    before = same[0] if same else {"rows": [], "made": {}}
    kept = [row for row in before["rows"] if row["stage"] != stage]
    mine = [{**row, "stage": stage} for row in rows]
    part = {
        "machine": heading(made),
        "rows": sorted([*mine, *kept], key=lambda row: order.index(row["stage"])),
        "made": {**before["made"], stage: dict(made)},
    }
    return [part, *others]


def table(content: Content) -> str:
    """Return a table for each machine as Markdown, with its targets and where its rows come from."""
    return "\n\n".join(_machine_table(part) for part in content)


def _machine_table(part: Mapping[str, Any]) -> str:
    lines = [f"### {part['machine']}", "", "| | median | lowest – highest | | target |", "|---|---:|---:|---|---|"]
    verdicts = []
    for row in part["rows"]:
        low, high = (_figure(row[name]) for name in ("low", "high"))
        aim = target(row["name"])
        if aim is not None:
            verdicts.append(aim.met(row["ratio"]))
        shown = "" if aim is None else f"{aim.shown}: {'met' if verdicts[-1] else '**missed**'}"
        lines.append(f"| {row['name']} | **{_figure(row['ratio'])}** | {low} – {high} | {row['unit']} | {shown} |")
    if verdicts:
        lines += ["", f"Targets met by the median: {sum(verdicts)} of {len(verdicts)}."]
    lines.append("")
    stages = list(dict.fromkeys(row["stage"] for row in part["rows"]))
    for stage in stages:
        made = part["made"][stage]
        took = f"{made['seconds']} s, " if "seconds" in made else ""
        lines.append(f"{stage}: {took}commit {made['commit']}, {made['date']}, load before {made['load_before']}.")
    versions = part["made"][stages[0]]["versions"]
    lines.append("Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".")
    return "\n".join(lines)


@dataclass(frozen=True)
class Target:
    """A limit that a row's median should keep."""

    limit: float
    least: bool = True
    """Whether it is the least; else the most."""

    @property
    def shown(self) -> str:
        """As in a table."""
        return f"{'≥' if self.least else '≤'} {self.limit:.3g}"

    def met(self, median: float) -> bool:
        """Return whether the median of a row keeps the limit."""
        return median >= self.limit if self.least else median <= self.limit


TARGETS = {
    f"* student: {OURS} / plain script": Target(3.3),
    f"* student: {OURS_COMPILED} / plain script": Target(3.3),
    f"* patriarch: {OURS} / plain script": Target(3.0),
    f"* patriarch: {OURS_COMPILED} / plain script": Target(3.0),
    f"* student: {OURS} / torchdistill": Target(2.5),
    f"* student: {OURS_COMPILED} / torchdistill": Target(2.5),
    f"*: {OURS_COMPILED} / ideal": Target(1.2),
    f"*: {OURS_COMPILED} / compiled ideal": Target(0.97),
    f"*: {OURS}, 1 worker × 2 threads / ideal": Target(0.97),
    "*: 2 workers × 1 thread / 1 × 2": Target(0.95),
    "*: a step with teacher / without": Target(1.2, least=False),
    "*: a step with folded teacher / without": Target(1.2, least=False),
    "*: a compiled step with teacher / without": Target(1.2, least=False),
    "*: a compiled step with folded teacher / without": Target(1.2, least=False),
    "*: peak memory, gentrain / ideal": Target(1.2, least=False),
    "*: evaluating an image / training on it": Target(1 / 3, least=False),
    "a sweep of * chains, a core each: on Ray / by hand": Target(0.95),
    "between generations: all of it": Target(1.5, least=False),
    "gentrain --help": Target(0.3, least=False),
    "gentrain plan of 1,000 chains, begun": Target(1, least=False),
    "gentrain status of 1,000 chains, begun": Target(1, least=False),
    "gentrain plan of 1,000 chains, finished": Target(1, least=False),
    "gentrain status of 1,000 chains, finished": Target(1, least=False),
    "gentrain chain --local on digits, to the end of the first step": Target(5, least=False),
}
"""By the rows' names; an asterisk stands for any text."""


def target(row: str) -> Target | None:
    """Return the target of a row of this name; None where it has none."""
    return next((aim for pattern, aim in TARGETS.items() if fnmatchcase(row, pattern)), None)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write(content: Content, output: Path) -> None:
    """Write results.json, and the page's tables where it is the suite's own file."""
    output.write_text(json.dumps({"machines": content}, indent=2) + "\n")
    if output == OUTPUT and PAGE.exists():
        before, _, rest = PAGE.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{table(content)}\n{END}{after}")
