"""Where torch.compile keeps what it has compiled: gentrain's cache folder, shared by all processes of a node.

Inductor writes each file under a temporary name and renames it, and locks what it builds, so two processes may fill the
folder at once. It may be deleted at any time; what it held is then compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gentrain.store.run import node_cache

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
"""Torch's environment variable for its cache; a user's own value wins."""
_CPUINFO = Path("/proc/cpuinfo")


def use_cache() -> Path | None:
    """Make this process keep what it compiles in the node's cache, and return its folder.

    Call it before anything is compiled. The folder is of this version of torch and this kind of processor: machines
    that share a home folder don't run each other's instructions. None where it can't be made: torch then takes its own.
    """
    if folder := os.environ.get(VARIABLE):
        return Path(folder)
    processor = hashlib.sha256(_instructions().encode()).hexdigest()[:8]
    try:
        path = node_cache() / "compiler" / f"torch-{torch.__version__}-{processor}"
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError):  # no home folder, or one that can't be written
        return None
    os.environ[VARIABLE] = str(path)
    return path


class Mark:
    """Notes something about a network in the cache folder: that it has been compiled, or what its step takes.

    Args:
        kind: of note.
        what: all that the note is of, as JSON types.
    """

    def __init__(self, kind: str, **what: Any) -> None:
        folder = use_cache()
        name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
        self._path = None if folder is None else folder / "gentrain" / f"{kind}-{name}.json"

    def read(self) -> dict[str, Any] | None:
        """Return what was noted; None where nothing is, or nothing that can be read."""
        if self._path is None:
            return None
        try:
            content = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def write(self, content: dict[str, Any]) -> None:
        """Note it; where that can't be written, nothing is noted."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(content))
            part.replace(self._path)


def step_mark(network: str, *, shape: Sequence[int], batch: int, precision: str, device: str) -> Mark:
    """Return the note of what a network's training step takes, eager and compiled (see `MeasuredStep`).

    Args:
        network: its name.
        shape: classes, height and width.
        batch: images of the step.
        precision: of the study.
        device: its type.
    """
    return Mark("step", network=network, shape=list(shape), batch=batch, precision=precision, device=device)


def amx() -> bool:
    """Return whether this machine's CPUs have AMX for bf16."""
    return "amx_bf16" in _instructions().split()


def _instructions() -> str:
    """Return the line of the processor's instructions, "" where the system doesn't tell them."""
    with contextlib.suppress(OSError):
        for line in _CPUINFO.read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return ""
