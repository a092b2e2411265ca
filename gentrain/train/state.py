"""The state of a training between two epochs: loaded from the newest checkpoint, saved, rolled back to."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import nn

from gentrain.errors import DivergedError, GentrainError
from gentrain.events import Note, Observer
from gentrain.models.registry import build_model
from gentrain.store.done import AVERAGE, EPOCHS, MODEL
from gentrain.store.folder import digest
from gentrain.study.tasks import PretrainedSpec
from gentrain.train.checkpoint import checkpoint_problem, encode_training_state, load_training_state, load_weights
from gentrain.train.companions import Companions
from gentrain.train.divergence import MAX_ROLLBACKS, ROLLBACK_FACTOR
from gentrain.train.job import Job
from gentrain.train.seeds import generation_seed, seed_generators
from gentrain.train.workers import Workers


@dataclass
class TrainingState:
    """What of a training is neither its model nor momentum: everything else follows from the spec."""

    companions: Companions
    """Networks beside the model."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of epochs.parquet, one for each finished epoch."""
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    """Each with the `epoch` that diverged, counted from 1, and the `reason`."""
    compiled: bool = False
    """Whether epochs are trained through torch.compile; of a checkpoint, whether its last one was."""
    compiled_epochs: int = 0
    """How many of the finished epochs were."""

    @property
    def rate_factor(self) -> float:
        """Factor of the schedule's learning rate."""
        return float(ROLLBACK_FACTOR ** len(self.rollbacks))


def build_network(job: Job) -> nn.Module:
    """Return the generation's network with its initial weights, on the CPU; torch's generators are seeded for it."""
    spec = job.spec
    seed_generators(generation_seed(spec.seed, spec.generation))
    return build_model(spec.network.name, num_classes=spec.num_classes, memory_efficient=job.memory_efficient)


def load_newest(
    job: Job,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    workers: Workers,
    post: Observer,
    *,
    companions: Companions,
) -> TrainingState:
    """Load the newest valid checkpoint that rank 0 sees on every worker; return its state, an empty one without any."""
    networks, folder = companions.networks, job.store.generation(job.spec.key)
    newest = workers.from_first(
        lambda: folder.newest_checkpoint(
            warn=lambda text: post(Note(text, "warning")),
            problem=lambda epoch, content: checkpoint_problem(
                content, key=job.spec.key, epoch=epoch, model=model, companions=networks
            ),
        )
    )
    if newest is None:
        return TrainingState(companions)
    _, content = newest
    metadata = load_training_state(model, optimizer, content, companions=networks)
    rows, compiled = metadata["rows"], bool(metadata.get("compile"))
    compiled_epochs = metadata.get("compiled_epochs", len(rows) if compiled else 0)
    return TrainingState(companions, rows, metadata.get("rollbacks", []), compiled, compiled_epochs)


def roll_back(
    job: Job,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    workers: Workers,
    post: Observer,
    *,
    state: TrainingState,
    error: DivergedError,
) -> TrainingState:
    """Return the state before the epoch that diverged, with half the learning rate; weights and momentum are loaded.

    Where that epoch's checkpoint is damaged, the state is that of an older one, as it was then: the training comes to
    the same divergence again, so that the bits are those of a training whose checkpoints were all valid.
    """
    optimizer.state.clear()
    reached = load_newest(job, model, optimizer, workers, post, companions=state.companions)
    reached.compiled = state.compiled
    if not reached.rows:
        model.load_state_dict(build_network(job).state_dict())
        state.companions.reset()
    if len(reached.rows) == len(state.rows):
        rollbacks = [*state.rollbacks, {"epoch": len(state.rows) + 1, "reason": error.reason}]
        reached.rollbacks = rollbacks
    begin = f"the checkpoint after epoch {len(reached.rows)}" if reached.rows else "the initial weights"
    post(
        Note(
            f"generation {job.spec.generation} ({job.spec.key}), epoch {len(state.rows) + 1}, {error.reason}; going "
            f"back to {begin}, learning rate × {reached.rate_factor:g} (rollback {len(reached.rollbacks)} of "
            f"{MAX_ROLLBACKS})",
            "warning",
        )
    )
    return reached


def save_checkpoint(
    job: Job, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState, workers: Workers
) -> None:
    """Write the state after the last of its epochs, with what it is of and how it was computed; for rank 0.

    Raises:
        TakenOverError: when another attempt has taken the folder over.
    """
    spec, folder = job.spec, job.store.generation(job.spec.key)
    folder.check_claim(job.token)
    metadata = {
        "rows": state.rows,
        "key": spec.key,
        "epoch": len(state.rows),
        "world_size": workers.world_size,
        "precision": spec.precision,
        "compile": state.compiled,
        "device": workers.device.type,
    }
    if state.rollbacks:
        metadata["rollbacks"] = state.rollbacks
    if state.compiled_epochs not in (0, len(state.rows)):
        metadata["compiled_epochs"] = state.compiled_epochs
    content = encode_training_state(model, optimizer, metadata, companions=state.companions.networks)
    folder.save_checkpoint(len(state.rows), content)


def load_finished(job: Job, companions: Companions) -> TrainingState:
    """Load weights that are finished, or that were trained elsewhere, which have no epochs; return their state.

    They are those of `companions.result`.

    Raises:
        GentrainError: when weights from elsewhere aren't those that the generation is named by.
    """
    folder = job.store.generation(job.spec.key)
    content = folder.file(MODEL) or b""
    task = job.spec.task
    if isinstance(task, PretrainedSpec) and digest(content) != task.sha256:
        raise GentrainError(f"{folder}/{MODEL}: missing or damaged; run the study again with its checkpoint")
    load_weights(companions.result, content)
    if isinstance(task, PretrainedSpec):
        return TrainingState(companions)
    done = folder.done()
    if done is not None and AVERAGE in done.files and companions.average is not None:
        load_weights(companions.average, folder.read_verified(AVERAGE, done=done))
    rows = pq.read_table(io.BytesIO(folder.file(EPOCHS) or b"")).to_pylist()
    if done is None:
        return TrainingState(companions, rows)
    rollbacks = [rollback.model_dump() for rollback in done.rollbacks]
    return TrainingState(companions, rows, rollbacks, compiled_epochs=done.compiled_epochs)
