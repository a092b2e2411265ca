"""A sweep under faults: a command, where its store lies, its processes, and what it leaves, to be compared in bits."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from gentrain.store.done import MODEL, PREDICTIONS
from gentrain.store.run import RunStore
from tests.conftest import SMALL
from tests.faults.proxy import FaultyProxy

GENTRAIN = str(Path(sys.executable).with_name("gentrain"))
GRID = "grid.process=[{f_a1: 1.0, lambda: 0.5}, {lambda: 0.5}, {lambda: 0.7}]"
"""Three chains of two generations, five trainings."""
DEADLINE = 300
"""Seconds after which a driver that hasn't ended hangs."""


@dataclass
class Scene:
    """One sweep under faults.

    Attributes:
        folder: for the study file, logs and caches.
        settings: of the study.
        url: of the run folder as the driver sees it, through `proxy` where there is one.
        store: the same, seen directly.
        disk: a small file system that holds the store, to be filled.
        cluster: two nodes in this process's care (`tests.faults.campaign`); None: everything in the driver's process.
    """

    folder: Path
    settings: tuple[str, ...]
    url: str
    store: RunStore
    proxy: FaultyProxy | None = None
    disk: Path | None = None
    cluster: Any = None
    driver: Any = None
    ends: list[int] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """Everything that the drivers print."""
        return self.folder / "log.txt"

    def start(self) -> None:
        """Start the command, which is the same every time."""
        study = self.folder / "study.yaml"
        study.write_text("{}")
        where = ["--address", self.cluster.address] if self.cluster else ["--local"]
        changes = [part for setting in self.settings for part in ("--set", setting)]
        with self.log.open("a") as log:
            self.driver = psutil.Popen(
                [GENTRAIN, "sweep", str(study), *changes, "--runs", self.url, "--force", *where],
                stdout=log,
                stderr=log,
                env=os.environ | {"GENTRAIN_CACHE": str(self.folder / "head"), "AWS_MAX_ATTEMPTS": "4"},
            )

    def wait(self, seconds: float) -> int | None:
        """Return the driver's exit status if it ends in this time."""
        try:
            status = self.driver.wait(timeout=seconds)
        except psutil.TimeoutExpired:
            return None
        self.ends.append(status)
        return int(status)

    def kill(self) -> None:
        """End the driver and all that it started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [self.driver, *self.driver.children(recursive=True)]
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
                    process.kill()
            psutil.wait_procs(family, timeout=30)

    def processes(self, kind: str) -> list[psutil.Process]:
        """Return the scene's living processes whose command contains `kind`; "driver": the driver."""
        if kind == "driver":
            return [self.driver] if self.driver.poll() is None else []
        matching = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if kind in " ".join(process.cmdline()):
                    matching.append(process)
        return matching

    def files(self) -> dict[str, bytes]:
        """Return weights and predictions of all finished generations, verified."""
        folders = (self.store.root / "generations").names()
        return {
            f"{key}/{name}": self.store.generation(key).read_verified(name)
            for key in sorted(folders)
            for name in (MODEL, PREDICTIONS)
        }


def settings(*changes: str) -> tuple[str, ...]:
    """Return the campaign's study: three chains of two generations that share a patriarch."""
    return (*SMALL, "name=faults", GRID, *changes)


def reference(folder: Path, study: tuple[str, ...]) -> dict[str, bytes]:
    """Return the files of a run that nothing disturbs."""
    scene = Scene(folder, study, str(folder / "runs"), RunStore(str(folder / "runs")))
    scene.start()
    assert scene.wait(DEADLINE) == 0, scene.log.read_text()
    return scene.files()


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path | None]:
    """Mount a file system of that size at `folder`; yield None where we may not."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def wait_for_checkpoint(scene: Scene, seconds: float) -> bool:
    """Return whether the driver writes a checkpoint of an unfinished generation in this time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and scene.driver.poll() is None:
        for key in (scene.store.root / "generations").names():
            folder = scene.store.generation(key)
            if not folder.done() and folder.newest_epoch() > 0:
                return True
        time.sleep(0.1)
    return False


def as_line(record: dict[str, Any]) -> str:
    """Return a record as a line of JSON."""
    return json.dumps(record, sort_keys=True)
