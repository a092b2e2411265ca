"""Train one generation: resume, train its epochs, save each, finish. No Ray in here.

The same code runs in a Ray Train worker and in the debug runner. Everything random is a function of (seed, generation,
epoch, sample), so a run that was killed and resumed from its last checkpoint ends in the same bits.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import nn

from gentrain.data.prepare.share import obtain
from gentrain.errors import GentrainError
from gentrain.events import EpochDone, Event, GenerationStarted, Note
from gentrain.models.registry import build_model
from gentrain.store.done import EPOCHS, MODEL
from gentrain.store.folder import digest
from gentrain.study.lineage import PretrainedSpec
from gentrain.train.checkpoint import (
    checkpoint_problem,
    encode_training_state,
    load_training_state,
    load_weights,
)
from gentrain.train.compiling import compile_errors_named, compile_network, prepare_compiler
from gentrain.train.device import configure, to_device
from gentrain.train.epoch import check_weights, train_epoch
from gentrain.train.evaluation import Evaluator
from gentrain.train.finish import finish
from gentrain.train.job import Job
from gentrain.train.optimizer import SGD
from gentrain.train.seeds import generation_seed, seed_generators
from gentrain.train.splits import Splits
from gentrain.train.tasks import build_task
from gentrain.train.workers import Workers

Post = Callable[[Event], None]
Rows = list[dict[str, Any]]
"""Of epochs.parquet."""


def train_generation(job: Job, workers: Workers, post: Post) -> None:
    """Train `job.spec` to the end and write it to the store; resume from the newest valid checkpoint.

    Every worker of the group calls it, after the process group is set up; rank 0 alone writes and posts.

    Raises:
        TrainingError: on a non-finite loss, weight or prediction, on every worker, at the same step.
        GentrainError: when the store can't be written or was taken over.
    """
    spec = job.spec
    configure(workers.device, threads=workers.threads, precision=spec.precision)
    data = workers.everywhere(lambda: obtain(job.data, job.store))
    splits = Splits(data, spec=spec, workers=workers)
    seed_generators(generation_seed(spec.seed, spec.generation))
    network = build_model(spec.network.name, num_classes=spec.num_classes, memory_efficient=job.memory_efficient)
    model = to_device(network, workers.device)
    evaluator = Evaluator(model, splits=splits, workers=workers, precision=spec.precision)
    if job.weights_done:
        rows = workers.everywhere(lambda: _load_finished(job, model))
    else:
        with compile_errors_named(spec.network.name) if spec.compile else contextlib.nullcontext():
            rows = _train(job, evaluator, post if workers.first else _to_nobody)
    finish(job, rows=rows, evaluator=evaluator)


def _train(job: Job, evaluator: Evaluator, post: Post) -> Rows:
    """Train the evaluator's model from its newest checkpoint to its last epoch; return the rows of all epochs."""
    spec, model, splits, workers = job.spec, evaluator.model, evaluator.splits, evaluator.workers
    if spec.compile:
        workers.everywhere(partial(prepare_compiler, workers.device))
    network = _trained_network(job, evaluator)
    optimizer = _build_optimizer(job, model)
    rows = _resume(job, model, optimizer, workers, post)
    epochs = range(len(rows), spec.recipe.epochs)
    if not epochs:
        return rows
    task = workers.everywhere(lambda: build_task(spec, store=job.store, image=splits.image, workers=workers))
    splits.open_loaders()
    post(GenerationStarted(spec.generation, spec.key, len(rows)))
    for epoch in epochs:
        row = train_epoch(
            epoch,
            spec=spec,
            network=network,
            optimizer=optimizer,
            task=task,
            loader=splits.loader("train"),
            pixels=splits.augmented,
            workers=workers,
            post=post,
        )
        check_weights(model, spec, epoch, workers=workers)
        if (epoch + 1) % job.evaluate_every == 0 or epoch + 1 == spec.recipe.epochs:
            row |= evaluator.errors()
        rows.append(row)
        workers.on_first(partial(save_checkpoint, job, model, optimizer, rows, workers))
        post(EpochDone(spec.generation, row))
    return rows


def _trained_network(job: Job, evaluator: Evaluator) -> nn.Module:
    """Return what is trained in the model's place, compiled and data-parallel where it should be."""
    spec, workers, network = job.spec, evaluator.workers, evaluator.model
    if spec.sync_batchnorm:
        workers.sync_batchnorm(network)
    if spec.compile:
        network = compile_network(network, workers.device, graphs=workers.alone)
    # every shape is compiled by itself, so blank images come in the number of a batch's
    count = spec.recipe.batch_size // workers.world_size if spec.compile else 2
    return workers.parallel(network, image=evaluator.splits.image, count=count, precision=spec.precision)


def _build_optimizer(job: Job, model: nn.Module) -> torch.optim.Optimizer:
    recipe = job.spec.recipe
    return SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _resume(job: Job, model: nn.Module, optimizer: torch.optim.Optimizer, workers: Workers, post: Post) -> Rows:
    """Load the newest valid checkpoint that rank 0 sees on every worker; return the rows of its finished epochs."""
    folder = job.store.generation(job.spec.key)
    newest = workers.from_first(
        lambda: folder.newest_checkpoint(
            warn=lambda text: post(Note(text, "warning")),
            problem=lambda epoch, content: checkpoint_problem(content, key=job.spec.key, epoch=epoch, model=model),
        )
    )
    if newest is None:
        return []
    _, content = newest
    rows: Rows = load_training_state(model, optimizer, content)["rows"]
    return rows


def save_checkpoint(job: Job, model: nn.Module, optimizer: torch.optim.Optimizer, rows: Rows, workers: Workers) -> None:
    """Write the state after the last of the rows' epochs, with what it is of and how it was computed; for rank 0.

    Raises:
        TakenOverError: when another attempt has taken the folder over.
    """
    spec, folder = job.spec, job.store.generation(job.spec.key)
    folder.check_claim(job.token)
    metadata = {
        "rows": rows,
        "key": spec.key,
        "epoch": len(rows),
        "world_size": workers.world_size,
        "precision": spec.precision,
        "compile": spec.compile,
        "device": workers.device.type,
    }
    folder.save_checkpoint(len(rows), encode_training_state(model, optimizer, metadata))


def _load_finished(job: Job, model: nn.Module) -> Rows:
    """Load weights that are finished, or that were trained elsewhere; return the rows of their epochs.

    Raises:
        GentrainError: when weights from elsewhere aren't those that the generation is named by.
    """
    folder = job.store.generation(job.spec.key)
    content = folder.read(MODEL) or b""
    task = job.spec.task
    if isinstance(task, PretrainedSpec) and digest(content) != task.sha256:
        raise GentrainError(f"{folder}/{MODEL}: missing or damaged; run the study again with its checkpoint")
    load_weights(model, content)
    if isinstance(task, PretrainedSpec):
        return []
    rows: Rows = pq.read_table(io.BytesIO(folder.read(EPOCHS) or b"")).to_pylist()
    return rows


def _to_nobody(event: Event) -> None:
    """Drop an event of a worker that isn't the first."""
