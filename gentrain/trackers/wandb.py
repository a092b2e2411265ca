"""Write to Weights & Biases offline, into the study's folder: `wandb sync --append` uploads it, where you want that."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import wandb

from gentrain.trackers.sink import Training, Values

SILENT = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_disable_stats": True,
}
"""Nothing is printed or asked, and nothing taken from the process but what is given here."""


class WandbSink:
    """Writes a run for each generation, in the group of its chain; its id follows from the generation's key.

    Args:
        folder: of the study, on this machine's disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.destination = "wandb"
        self._runs: dict[str, Any] = {}

    def epoch(self, training: Training, epoch: int, values: Values) -> None:
        """Write an epoch's values over the axis `epoch`: W&B's own step must not go back, an epoch may."""
        self._run(training).log({"epoch": epoch, **values})

    def done(self, training: Training, epoch: int, values: Values) -> None:
        """Write the scores into the run's summary, and end it."""
        self._run(training).summary.update({f"final/{name}": value for name, value in values.items()})
        self._runs.pop(training.name).finish()

    def close(self) -> None:
        """End the runs of trainings that were interrupted."""
        for run in self._runs.values():
            run.finish()

    def _run(self, training: Training) -> Any:
        if training.name not in self._runs:
            run = wandb.init(
                project=training.study,
                group=training.chain,
                name=training.name,
                id=hashlib.sha256(f"{training.study}/{training.name}/{training.key}".encode()).hexdigest()[:16],
                config={**training.settings, "key": training.key, "teacher": ", ".join(training.teachers)},
                mode="offline",
                dir=str(self._folder),
                reinit="create_new",
                settings=wandb.Settings(**SILENT),
            )
            run.define_metric("epoch")
            run.define_metric("*", step_metric="epoch")
            self._runs[training.name] = run
        return self._runs[training.name]
