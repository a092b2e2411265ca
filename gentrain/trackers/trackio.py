"""Write to Trackio on this machine: `trackio show --project STUDY` shows it."""

from __future__ import annotations

import contextvars
from pathlib import Path
from typing import Any

import trackio
import trackio.run
import trackio.utils

from gentrain.trackers.sink import Training, Values


def _nothing(*_: object, **__: object) -> None:
    pass


for module in (trackio, trackio.run, trackio.utils):
    vars(module)["print"] = _nothing  # it has no quiet mode, and standard output is for results
vars(trackio.run)["_get_default_namespace"] = _nothing  # asks Hugging Face for the user's name


class TrackioSink:
    """Writes a run for each generation, in the group of its chain; a resumed training goes on in its run.

    Args:
        _: the study's folder; Trackio has one for all projects, TRACKIO_DIR.
    """

    def __init__(self, _: Path) -> None:
        self.destination = f"trackio {trackio.utils.TRACKIO_DIR}"
        self._runs: dict[str, Any] = {}

    def epoch(self, training: Training, epoch: int, values: Values) -> None:
        """Write an epoch's values."""
        self._run(training).log(dict(values), step=epoch)

    def done(self, training: Training, epoch: int, values: Values) -> None:
        """Write the scores as metrics `final/…`, and end the run."""
        self._run(training).log({f"final/{name}": value for name, value in values.items()}, step=epoch)
        self._runs.pop(training.name).finish()

    def close(self) -> None:
        """End the runs of trainings that were interrupted."""
        for run in self._runs.values():
            run.finish()

    def _run(self, training: Training) -> Any:
        if training.name not in self._runs:
            self._runs[training.name] = contextvars.Context().run(  # in one context it ends the run before
                trackio.init,
                project=training.study,
                name=training.name,
                group=training.chain,
                config={**training.settings, "key": training.key, "teacher": ", ".join(training.teachers)},
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return self._runs[training.name]
