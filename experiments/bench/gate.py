"""Let contenders take turns: each is a process that works one block when its gate opens, and waits otherwise.

A gate is a folder. `go-3` in it lets block 3 begin, `done-3` holds what it took; `stop` ends the contender. Files work
whoever starts the processes, Ray's workers included.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.005
LONGEST_SECONDS = 900.0


class Stopped(Exception):  # noqa: N818  (a signal, not an error)
    """No more blocks will come."""


class Gate:
    """Pass orders and measurements between a race and one contender, through a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._began = _used()

    # The contender's side

    def wait(self, block: int) -> None:
        """Return once block `block` may begin.

        Raises:
            Stopped: when no more blocks will come.
        """
        while not (self.folder / f"go-{block}").exists():
            if (self.folder / "stop").exists():
                raise Stopped
            time.sleep(POLL_SECONDS)
        self._began = _used()

    def done(self, block: int, **facts: Any) -> None:
        """Report that a block is over, and what it took."""
        facts |= {name: now - before for (name, now), before in zip(_used().items(), self._began.values(), strict=True)}
        facts["peak_bytes"] = peak_bytes()
        part = self.folder / f"part-{block}"
        part.write_text(json.dumps(facts))
        part.rename(self.folder / f"done-{block}")

    # The other side

    def run(self, block: int, *, alive: Any) -> dict[str, Any]:
        """Let the contender do a block and return what it took; `alive()` returns whether its process still runs."""
        (self.folder / f"go-{block}").touch()
        answer, started = self.folder / f"done-{block}", time.monotonic()
        while not answer.exists():
            if not alive():
                tail = (self.folder / "log.txt").read_text().splitlines()[-5:]
                raise SystemExit(f"{self.folder}: the contender has ended: {' | '.join(tail)}")
            if time.monotonic() - started > LONGEST_SECONDS:
                raise SystemExit(f"{self.folder}: no answer to block {block} in {LONGEST_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        facts: dict[str, Any] = json.loads(answer.read_text())
        return facts

    def stop(self) -> None:
        """Let the contender end."""
        (self.folder / "stop").touch()


def _used() -> dict[str, float]:
    """Return the CPU seconds, page faults and kernel seconds of this process so far."""
    return {
        "cpu_seconds": time.process_time(),
        "faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt,
        "kernel_seconds": resource.getrusage(resource.RUSAGE_SELF).ru_stime,
    }


def peak_bytes() -> int:
    """Return the peak memory of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
