"""The end of a generation: predict the held-out splits, write its files, DONE.json last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import torch

from gentrain.scores.metrics import score
from gentrain.store.done import AVERAGE, DATA, EPOCHS, MODEL, PREDICTIONS, SPEC, VALIDATION_PREDICTIONS
from gentrain.store.folder import encode_table
from gentrain.store.generation import encode_spec
from gentrain.store.predictions import encode_predictions
from gentrain.train.checkpoint import encode_weights
from gentrain.train.device import device_name
from gentrain.train.divergence import diverged
from gentrain.train.evaluation import Evaluator
from gentrain.train.job import Job
from gentrain.train.meter import EPOCHS_SCHEMA
from gentrain.train.state import TrainingState

FILES = {"test": PREDICTIONS, "validation": VALIDATION_PREDICTIONS}
"""Where the predictions of a split are stored."""


def finish(job: Job, *, state: TrainingState, evaluator: Evaluator) -> None:
    """Predict on all workers and write the finished generation on rank 0; what was there is replaced.

    Args:
        job: the generation.
        state: after the last epoch; without rows of a network that was trained elsewhere.
        evaluator: of the trained network.

    Raises:
        DivergedError: on every worker, when a prediction of a trained network is not finite.
        GentrainError: on every worker, when the store can't be written or another attempt has taken the folder over.
    """
    predictions = {split: evaluator.predictions(split) for split in evaluator.splits.held_out}
    bad = next((split for split, (scores, _) in predictions.items() if not np.isfinite(scores).all()), None)
    rows = state.rows
    if bad is not None and rows:  # gathered, so that every worker sees the same
        raise diverged(job.spec, len(rows) - 1, f"after its last step: predictions of the {bad} split are not finite")
    # of the last epoch, or, where it says nothing of the result, as the network is
    seen = rows and job.spec.recipe.result_as_trained
    primary = float(rows[-1]["primary_score"]) if seen else evaluator.train_primary()
    evaluator.workers.on_first(lambda: _write(job, state, evaluator, predictions, primary))


def _write(
    job: Job,
    state: TrainingState,
    evaluator: Evaluator,
    predictions: Mapping[str, tuple[np.ndarray, np.ndarray]],
    primary: float,
) -> None:
    workers, folder = evaluator.workers, job.store.generation(job.spec.key)
    scores = {split: asdict(score(*arrays)) for split, arrays in predictions.items()}
    files = {
        SPEC: encode_spec(job.spec),
        MODEL: encode_weights(evaluator.model),
        EPOCHS: encode_table(pa.Table.from_pylist(state.rows, EPOCHS_SCHEMA)),
    }
    folder.write(DATA, evaluator.splits.manifest.file_content())
    average, ema = state.companions.average, job.spec.recipe.ema
    if average is not None and ema is not None and ema.role == "teacher":
        files[AVERAGE] = encode_weights(average)
    files |= {FILES[split]: encode_predictions(*arrays) for split, arrays in predictions.items()}
    folder.finish(
        files,
        token=job.token,
        scores=scores["test"],
        validation_scores=scores.get("validation"),
        train_primary=primary,
        seconds=sum(row["seconds"] for row in state.rows),
        workers=workers.world_size,
        threads=workers.threads,
        device=device_name(workers.device),
        rollbacks=tuple(state.rollbacks),
        compiled_epochs=state.compiled_epochs,
        versions={"gentrain": version("gentrain"), "torch": torch.__version__, "ffcv": version("ffcv")},
    )
