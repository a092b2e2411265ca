"""Remember what a tracker has got, in a file that only grows, so that a resumed run adds to it and repeats nothing."""

from __future__ import annotations

import json
from pathlib import Path

from gentrain.store.folder import digest
from gentrain.trackers.sink import Training

DONE = 0
"""Stands for the end of a training, where an epoch, counted from 1, would stand."""


class Ledger:
    """The epochs of each training that one destination has got.

    Processes that run the same study on one disk share the file: each sees what the others add.

    Args:
        path: of the file, a line of JSON for each epoch and each end; a line that a kill cut off counts for nothing.
        destination: whose lines are read.
    """

    def __init__(self, path: Path, destination: str) -> None:
        self._path = path
        self._destination = digest(destination.encode())[:16]  # an address may hold a password
        self._read_bytes = 0
        self._cut_off = path.exists() and not path.read_bytes().endswith(b"\n")
        self._epochs: dict[tuple[str, str], set[int]] = {}

    def add(self, training: Training, epoch: int) -> None:
        """Note that the tracker has got an epoch, or the training's end (`DONE`)."""
        line = {"to": self._destination, "training": training.name, "key": training.key, "epoch": epoch}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(b"\n" * self._cut_off + json.dumps(line).encode() + b"\n")
        self._cut_off = False
        self._epochs.setdefault((training.name, training.key), set()).add(epoch)

    def has(self, training: Training) -> frozenset[int]:
        """Return the epochs that the tracker has got of a training, and `DONE`."""
        self._read_new()
        return frozenset(self._epochs.get((training.name, training.key), ()))

    def _read_new(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            *lines, _ = file.read().split(b"\n")
        for content in lines:
            self._read_bytes += len(content) + 1
            try:
                line = json.loads(content)
                if line["to"] == self._destination:
                    self._epochs.setdefault((line["training"], line["key"]), set()).add(line["epoch"])
            except (ValueError, KeyError, TypeError):
                continue
