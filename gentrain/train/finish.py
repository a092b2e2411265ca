"""The end of a generation: predict the held-out splits, write its files, DONE.json last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from gentrain.scores.metrics import score
from gentrain.store.done import EPOCHS, MODEL, PREDICTIONS, SPEC, VALIDATION_PREDICTIONS
from gentrain.store.folder import encode_table
from gentrain.store.generation import encode_spec
from gentrain.store.predictions import encode_predictions
from gentrain.train.checkpoint import encode_weights
from gentrain.train.device import device_name
from gentrain.train.epoch import exploded
from gentrain.train.evaluation import Evaluator
from gentrain.train.job import Job
from gentrain.train.meter import EPOCHS_SCHEMA

FILES = {"test": PREDICTIONS, "validation": VALIDATION_PREDICTIONS}
"""Where the predictions of a split are stored."""


def finish(job: Job, *, rows: Sequence[Mapping[str, Any]], evaluator: Evaluator) -> None:
    """Predict on all workers and write the finished generation on rank 0; what was there is replaced.

    Args:
        job: the generation.
        rows: of epochs.parquet; none of a network that was trained elsewhere.
        evaluator: of the trained network.

    Raises:
        TrainingError: on every worker, when a prediction of a trained network is not finite.
        GentrainError: on every worker, when the store can't be written or another attempt has taken the folder over.
    """
    predictions = {split: evaluator.predictions(split) for split in evaluator.splits.held_out}
    bad = next((split for split, (scores, _) in predictions.items() if not np.isfinite(scores).all()), None)
    if bad is not None and rows:  # gathered, so that every worker sees the same
        raise exploded(job.spec, len(rows) - 1, f"after its last step: predictions of the {bad} split are not finite")
    # of the last epoch, or, where there was none, as the network is
    primary = float(rows[-1]["primary_score"]) if rows else evaluator.train_primary()
    evaluator.workers.on_first(lambda: _write(job, rows, evaluator, predictions, primary))


def _write(
    job: Job,
    rows: Sequence[Mapping[str, Any]],
    evaluator: Evaluator,
    predictions: Mapping[str, tuple[np.ndarray, np.ndarray]],
    primary: float,
) -> None:
    workers, folder = evaluator.workers, job.store.generation(job.spec.key)
    scores = {split: asdict(score(*arrays)) for split, arrays in predictions.items()}
    files = {
        SPEC: encode_spec(job.spec),
        MODEL: encode_weights(evaluator.model),
        EPOCHS: encode_table(pa.Table.from_pylist(list(rows), EPOCHS_SCHEMA)),
    }
    files |= {FILES[split]: encode_predictions(*arrays) for split, arrays in predictions.items()}
    folder.check_claim(job.token)
    folder.finish(
        files,
        scores=scores["test"],
        validation_scores=scores.get("validation"),
        train_primary=primary,
        seconds=sum(row["seconds"] for row in rows),
        workers=workers.world_size,
        threads=workers.threads,
        device=device_name(workers.device),
        versions={"gentrain": version("gentrain"), "torch": torch.__version__, "ffcv": version("ffcv")},
    )
