"""One epoch of training: the only loop over steps. State and batches in, a row of epochs.parquet out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gentrain.data.loading.loader import Batch, Loader
from gentrain.events import Event, Progress
from gentrain.study.lineage import GenerationSpec
from gentrain.train.device import autocast
from gentrain.train.divergence import diverged
from gentrain.train.meter import Meter, epoch_row
from gentrain.train.schedule import learning_rate
from gentrain.train.seeds import epoch_seed, seed_generators
from gentrain.train.tasks.task import Task
from gentrain.train.workers import Workers

CHECK_STEPS = 50
"""Steps between two checks of the losses: all workers check the same step, so all stop together."""
PROGRESS_SECONDS = 0.5


def train_epoch(
    epoch: int,
    *,
    spec: GenerationSpec,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    loader: Loader,
    pixels: Callable[[Batch, int], Tensor],
    workers: Workers,
    post: Callable[[Event], None],
    rate_factor: float = 1.0,
    compiled: bool = False,
    mixed: Callable[[Batch, Tensor, int], tuple[Batch, Tensor]] | None = None,
    after_step: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Train one epoch and return its row; its seconds exclude evaluation.

    Args:
        epoch: counted from 0.
        spec: recipe, precision and seed.
        network: what is trained, images (n, 3, H, W) to logits (n, C); changed in place, as the optimiser is.
        optimizer: over the network's parameters.
        task: the loss.
        loader: this worker's batches.
        pixels: the network's input from a batch and the epoch.
        workers: all of which train this epoch at the same time.
        post: receives `Progress` on rank 0.
        rate_factor: of the schedule's learning rate.
        compiled: whether the network and the task's teacher are.
        mixed: returns the batch, with other labels, and its images as network and teacher see them.
        after_step: called when the optimiser has changed the network.

    Raises:
        DivergedError: on a non-finite loss, on every worker, at the same step.
    """
    seed_generators(epoch_seed(spec.seed, spec.generation, epoch=epoch, rank=workers.rank))
    network.train()
    meter = Meter(workers)
    started = posted = time.perf_counter()
    rate = 0.0
    for index, batch in enumerate(loader.epoch(epoch)):
        rate = rate_factor * _learning_rate(spec, step=epoch * len(loader) + index, steps_per_epoch=len(loader))
        for group in optimizer.param_groups:
            group["lr"] = rate
        images = pixels(batch, epoch)
        if mixed is not None:
            batch, images = mixed(batch, images, epoch)  # noqa: PLW2901
        workers.clear_gradients(optimizer)
        if compiled:
            torch.compiler.cudagraph_mark_step_begin()  # the last step's logits and gradients are gone from here on
        if batch.filler:
            workers.zero_loss(network, images).backward()
        else:
            with autocast(workers.device, spec.precision):
                logits = network(images)
                terms = task(logits, images, batch.labels)
            workers.weigh(terms.loss, batch).backward()
            meter.add(index, batch, logits.detach(), terms)
        if spec.recipe.clip_gradients is not None:  # means over the global batch by now, the same on every worker
            nn.utils.clip_grad_norm_(network.parameters(), spec.recipe.clip_gradients)
        optimizer.step()
        if after_step is not None:
            after_step()
        if (index + 1) % CHECK_STEPS == 0:
            _check_finite(meter, spec, epoch)
        if workers.first and time.perf_counter() - posted > PROGRESS_SECONDS:
            posted = time.perf_counter()
            post(_progress(meter, spec, epoch, total=loader.num_samples, seconds=posted - started))
    meter.reduce()
    _check_finite(meter, spec, epoch)
    means = meter.means()
    seconds = time.perf_counter() - started
    return epoch_row(epoch + 1, means, images=loader.num_samples, seconds=seconds, learning_rate=rate)


def _learning_rate(spec: GenerationSpec, *, step: int, steps_per_epoch: int) -> float:
    recipe = spec.recipe
    return learning_rate(
        step=step,
        steps_per_epoch=steps_per_epoch,
        base=recipe.learning_rate,
        milestones=recipe.milestones,
        decay=recipe.decay,
        warmup_epochs=recipe.warmup_epochs,
        cosine_epochs=recipe.epochs if recipe.schedule == "cosine" else None,
        cycles=recipe.cycles,
    )


def _check_finite(meter: Meter, spec: GenerationSpec, epoch: int) -> None:
    """Raise DivergedError on every worker when the loss of a step was not finite on one of them."""
    step = meter.first_bad_step()
    if step is not None:
        raise diverged(spec, epoch, f"step {step + 1}: the loss is not finite")


def _progress(meter: Meter, spec: GenerationSpec, epoch: int, *, total: int, seconds: float) -> Progress:
    """Return how far the epoch is, by rank 0's sums: the others have trained as many images as it has."""
    means = meter.means()
    images = min(total, int(means.pop("count")) * meter.workers.world_size)
    return Progress(
        generation=spec.generation,
        epoch=epoch + 1,
        images=images,
        total_images=total,
        images_per_second=images / seconds,
        **means,
    )
