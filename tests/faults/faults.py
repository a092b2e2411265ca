"""The faults, by name: each does it to a scene, and returns False where there is nothing to do it to."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable

import psutil

from gentrain.store.done import DONE, MODEL, PREDICTIONS, SPEC
from tests.faults.scene import Scene

Fault = Callable[[Scene, random.Random], bool]

PROCESSES = {
    "driver": "driver",
    "trial": "ChainTrial",
    "controller": "TrainController",
    "worker": "RayTrainWorker",
    "lease actor": "LeaseActor",
    "event queue": "EventQueue",
    "agent": "DashboardAgent",
    "raylet": "raylet/raylet",
    "GCS": "gcs/gcs_server",
}
"""Kinds of processes by what their commands contain."""
STUDY_FILES = ("results.parquet", "chains")


def _kill(kind: str) -> Fault:
    def fault(scene: Scene, rng: random.Random) -> bool:
        if not (victims := scene.processes(PROCESSES[kind])):
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            rng.choice(victims).kill()
        return True

    return fault


def _stop(kind: str) -> Fault:
    def fault(scene: Scene, rng: random.Random) -> bool:
        if not (victims := scene.processes(PROCESSES[kind])):
            return False
        victim = rng.choice(victims)
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGSTOP)
            time.sleep(rng.uniform(1, 5))
            victim.send_signal(signal.SIGCONT)
        return True

    return fault


def _damage(name: str) -> Fault:
    """Flip a bit of a file of a generation, or of the study; or cut, empty or delete it."""

    def fault(scene: Scene, rng: random.Random) -> bool:
        root = scene.store.root
        folders = {
            "checkpoint": [root / "generations" / key / "train" for key in (root / "generations").names()],
            "results.parquet": [root / "studies" / "faults"],
            "chains": [root / "studies" / "faults" / "chains"],
        }.get(name, [root / "generations" / key for key in (root / "generations").names()])
        suffix = {"checkpoint": "epoch-", "chains": "D("}.get(
            name, name.partition(".")[0]
        )  # on S3 names hold checksums
        files = [(folder, file) for folder in folders for file in folder.names() if file.startswith(suffix)]
        if not files:
            return False
        folder, file = rng.choice(sorted(files, key=str))
        content = folder.read(file)
        if not content:
            return False
        damage = rng.choice(("flip", "cut", "empty", "delete"))
        if damage == "delete":
            folder.delete(file)
        elif damage == "flip":
            place, changed = rng.randrange(len(content)), bytearray(content)
            changed[place] ^= 1 << rng.randrange(8)
            folder.write(file, bytes(changed))
        else:
            folder.write(file, content[: len(content) // 2] if damage == "cut" else b"")
        return True

    return fault


def _fill_disk(scene: Scene, rng: random.Random) -> bool:
    if scene.disk is None:
        return False
    filler = scene.disk / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    time.sleep(rng.uniform(1, 4))
    filler.unlink()
    return True


def _object_store(scene: Scene, rng: random.Random) -> bool:
    if scene.proxy is None:
        return False
    scene.proxy.fail_for(rng.uniform(1, 6))
    return True


FAULTS: dict[str, Fault] = (
    {f"SIGKILL {kind}": _kill(kind) for kind in PROCESSES}
    | {f"SIGSTOP {kind}": _stop(kind) for kind in PROCESSES}
    | {f"damage {name}": _damage(name) for name in ("checkpoint", MODEL, PREDICTIONS, DONE, SPEC, *STUDY_FILES)}
    | {"disk full": _fill_disk, "S3 errors": _object_store}
)
