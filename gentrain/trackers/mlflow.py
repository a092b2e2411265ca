"""Write to MLflow: a run for each chain, within it a child run for each generation, which names its teacher."""

from __future__ import annotations

import logging
import os
import time
from functools import cached_property
from pathlib import Path

from gentrain.trackers.sink import Training, Values

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves the machine but what goes to the server
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # for 120 s and 7 times, a run doesn't wait at its end
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param


class MlflowSink:
    """Writes to the server of MLFLOW_TRACKING_URI, by default to `mlflow/mlflow.db` in the study's folder.

    Args:
        folder: of the study, on this machine's disk.
    """

    def __init__(self, folder: Path) -> None:
        self.destination = os.environ.get("MLFLOW_TRACKING_URI", "")
        self._uri = self.destination or f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"
        if not self.destination:
            (folder / "mlflow").mkdir(parents=True, exist_ok=True)
        for library in ("mlflow", "alembic"):
            logging.getLogger(library).setLevel(logging.WARNING)
        self._runs: dict[str, str] = {}

    def epoch(self, training: Training, epoch: int, values: Values) -> None:
        """Write an epoch's values as metrics of the generation's run."""
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, epoch) for name, value in values.items()]
        self._client.log_batch(self._run(training), metrics=metrics)

    def done(self, training: Training, epoch: int, values: Values) -> None:
        """Write the scores as metrics `final/…`, and end the run."""
        self.epoch(training, epoch, {f"final/{name}": value for name, value in values.items()})
        self._client.set_terminated(self._runs.pop(training.name))

    def close(self) -> None:
        """End the runs of chains, and those of generations that were interrupted."""
        for run in self._runs.values():
            self._client.set_terminated(run)

    @cached_property
    def _client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self._uri)

    def _run(self, training: Training) -> str:
        """Return the id of a generation's run, which is begun where there is none; so is its chain's."""
        if training.name not in self._runs:
            chain = self._begun(training, training.chain, {"gentrain.chain": training.chain})
            teachers = ", ".join(training.teachers)
            tags = {"mlflow.parentRunId": chain, "gentrain.key": training.key, "gentrain.teacher": teachers}
            self._begun(training, training.name, tags)
        return self._runs[training.name]

    def _begun(self, training: Training, name: str, tags: dict[str, str]) -> str:
        client, identity = self._client, f"{training.study}/{name}"
        if name not in self._runs:
            experiment = client.get_experiment_by_name(training.study)
            number = experiment.experiment_id if experiment else client.create_experiment(training.study)
            before = client.search_runs([number], f"tags.`gentrain.run` = '{identity}'", max_results=1)
            if before:
                self._runs[name] = before[0].info.run_id
            else:
                run = client.create_run(number, run_name=name, tags={"gentrain.run": identity, **tags})
                self._runs[name] = run.info.run_id
                settings = [Param(key, str(value)[:500]) for key, value in training.settings.items()]
                client.log_batch(run.info.run_id, params=settings)
        return self._runs[name]
