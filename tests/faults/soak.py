"""Train hundreds of tiny generations in one process and watch what it holds: `make soak`.

python -m tests.faults.soak --generations 500              in this process
python -m tests.faults.soak --generations 60 --ray         with Ray Train's workers
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from statistics import median

import psutil

from gentrain import api
from gentrain.events import GenerationDone
from gentrain.study.loading import load_study
from tests.conftest import SMALL

TINY = (*SMALL, "name=soak", "dataset.limit=4", "recipe.epochs=1", "recipe.milestones=[]", "recipe.batch_size=40")
MEASURES = ("megabytes", "descriptors", "threads", "processes", "actors")


def measure() -> dict[str, float]:
    """Return what this process and its children hold."""
    me = psutil.Process()
    children = me.children(recursive=True)
    return {
        "megabytes": me.memory_info().rss / 1e6,
        "descriptors": me.num_fds(),
        "threads": me.num_threads(),
        "processes": len(children),
        "actors": sum("ray::" in " ".join(cmdline(child)) for child in children),
    }


def cmdline(process: psutil.Process) -> list[str]:
    """Return a process's command; [] where it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def main() -> int:
    """Run the soak; print a line for every tenth of it, and how much each measure grew over its second half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=500)
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    study = load_study(overrides=[*TINY, f"generations={options.generations - 1}"])
    points: list[dict[str, float]] = []
    began = time.monotonic()

    def observe(event: object) -> None:
        if isinstance(event, GenerationDone):
            points.append(measure())
            if len(points) % max(1, options.generations // 10) == 0:
                rounded = {name: round(value) for name, value in points[-1].items()}
                line = {"generations": len(points), "seconds": round(time.monotonic() - began), **rounded}
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()

    with tempfile.TemporaryDirectory() as runs:
        rows = api.run(study, runs=runs, observe=observe, local=not options.ray)
    half, quarter = len(points) // 2, max(1, len(points) // 4)
    growth = {
        name: median(p[name] for p in points[-quarter:]) - median(p[name] for p in points[half : half + quarter])
        for name in MEASURES
    }
    sys.stdout.write(f"{len(rows)} generations; growth from the third quarter to the last: {growth}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
