"""Write event files for TensorBoard into the study's folder: `tensorboard --logdir runs/studies/STUDY/tensorboard`."""

from __future__ import annotations

import time
from pathlib import Path

from tensorboardX import SummaryWriter

from gentrain.trackers.sink import Training, Values


class TensorBoardSink:
    """Writes a folder of event files for each generation; a resumed training adds a file.

    Args:
        folder: of the study, on this machine's disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self.destination = "tensorboard"
        self._writers: dict[str, SummaryWriter] = {}

    def epoch(self, training: Training, epoch: int, values: Values) -> None:
        """Write an epoch's values as scalars of their columns' names."""
        self._write(training, epoch, values)

    def done(self, training: Training, epoch: int, values: Values) -> None:
        """Write the scores as scalars `final/…`, who taught it as a text."""
        self._write(training, epoch, {f"final/{name}": value for name, value in values.items()})
        writer = self._writers.pop(training.name)
        writer.add_text("generation", f"key {training.key}, teacher {', '.join(training.teachers) or 'none'}")
        writer.close()

    def close(self) -> None:
        """Close the files of trainings that were interrupted."""
        for writer in self._writers.values():
            writer.close()

    def _write(self, training: Training, step: int, values: Values) -> None:
        writer = self._writers.get(training.name)
        if writer is None:
            path = self._folder / training.chain / f"g{training.generation}"
            suffix = f".{time.time_ns()}"  # files of one second would have one name
            writer = self._writers[training.name] = SummaryWriter(str(path), filename_suffix=suffix)
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()  # the ledger says that it is written
