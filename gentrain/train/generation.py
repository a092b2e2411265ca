"""Train one generation: resume, train its epochs, save each, finish. No Ray in here.

The same code runs in a Ray Train worker and in the debug runner. Everything random is a function of (seed, generation,
epoch, sample), so a run that was killed and resumed from its last checkpoint ends in the same bits.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from gentrain.data.prepare.share import obtain
from gentrain.errors import DivergedError
from gentrain.events import EpochDone, Event, GenerationStarted, Observer
from gentrain.train.companions import Companions
from gentrain.train.compiling import compile_errors_named
from gentrain.train.device import configure, to_device
from gentrain.train.divergence import MAX_ROLLBACKS, check_predictions, check_weights
from gentrain.train.epoch import train_epoch
from gentrain.train.evaluation import Evaluator
from gentrain.train.finish import finish
from gentrain.train.job import Job
from gentrain.train.optimizer import build_optimizer
from gentrain.train.setup import Trained, set_up
from gentrain.train.splits import Splits
from gentrain.train.state import (
    TrainingState,
    build_network,
    load_finished,
    load_newest,
    roll_back,
    save_checkpoint,
)
from gentrain.train.tasks.own_teacher import OwnTeacherTask
from gentrain.train.workers import Workers


def train_generation(job: Job, workers: Workers, post: Observer) -> None:
    """Train `job.spec` to the end and write it to the store; resume from the newest valid checkpoint.

    Every worker of the group calls it, after the process group is set up; rank 0 alone writes and posts.

    Raises:
        DivergedError: on a non-finite loss, weight or prediction, on every worker, at the same step.
        GentrainError: when the store can't be written or was taken over.
    """
    spec = job.spec
    configure(workers.device, threads=workers.threads, precision=spec.precision)
    data = workers.everywhere(lambda: obtain(job.data, job.store))
    splits = Splits(data, spec=spec, workers=workers)
    model = to_device(build_network(job), workers.device)
    companions = Companions(model, spec)
    evaluator = Evaluator(model, splits=splits, workers=workers, precision=spec.precision)
    if job.weights_done:
        state = workers.everywhere(lambda: load_finished(job, companions))
    else:
        with compile_errors_named(spec.network.name) if spec.compile else contextlib.nullcontext():
            state = _train(job, evaluator, companions, post if workers.first else _to_nobody)
    finish(job, state=state, evaluator=replace(evaluator, model=companions.result))


def _train(job: Job, evaluator: Evaluator, companions: Companions, post: Observer) -> TrainingState:
    """Train the evaluator's model from its newest checkpoint to its last epoch; return the state after it."""
    spec, model, splits, workers = job.spec, evaluator.model, evaluator.splits, evaluator.workers
    if spec.sync_batchnorm:
        workers.sync_batchnorm(model)
    optimizer = build_optimizer(spec.recipe, model.parameters())
    state = load_newest(job, model, optimizer, workers, post, companions=companions)
    if len(state.rows) == spec.recipe.epochs:
        return state
    splits.open_loaders()
    trained = set_up(job, evaluator, state, post)
    post(GenerationStarted(spec.generation, spec.key, len(state.rows)))
    while len(state.rows) < spec.recipe.epochs:
        try:
            row = _train_next_epoch(job, evaluator, trained, optimizer, state, post)
        except DivergedError as error:  # on every worker
            if spec.recipe.on_divergence == "stop" or len(state.rollbacks) == MAX_ROLLBACKS:
                raise
            state = roll_back(job, model, optimizer, workers, post, state=state, error=error)
            continue
        state.rows.append(row)
        companions.after_epoch(len(state.rows), workers)
        state.compiled_epochs += state.compiled
        workers.on_first(partial(save_checkpoint, job, model, optimizer, state, workers))
        post(EpochDone(spec.generation, row))
    return state


def _train_next_epoch(
    job: Job,
    evaluator: Evaluator,
    trained: Trained,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    post: Observer,
) -> dict[str, Any]:
    """Train the first epoch that is not finished; return its row, evaluated where the study says so.

    Raises:
        DivergedError: on a non-finite loss or weight, or prediction of the last epoch, on every worker.
    """
    spec, splits, workers, epoch = job.spec, evaluator.splits, evaluator.workers, len(state.rows)
    if isinstance(trained.task, OwnTeacherTask):
        trained.task.begin_epoch(epoch)
    row = train_epoch(
        epoch,
        spec=spec,
        network=trained.network,
        optimizer=optimizer,
        task=trained.task,
        loader=splits.loader("train"),
        pixels=splits.augmented,
        workers=workers,
        post=post,
        rate_factor=state.rate_factor,
        compiled=state.compiled,
        mixed=splits.mixed,
        after_step=state.companions.after_step,
    )
    check_weights(evaluator.model, spec, epoch, workers=workers)
    last = epoch + 1 == spec.recipe.epochs
    if last or (epoch + 1) % job.evaluate_every == 0:
        row |= (errors := replace(evaluator, model=state.companions.result).errors())
        if last:
            check_predictions(errors, spec, epoch)
    return row


def _to_nobody(event: Event) -> None:
    """Drop an event of a worker that isn't the first."""
