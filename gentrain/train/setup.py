"""What a generation trains with: its network and task, compiled where the study says so or where it pays.

How a generation is computed is not who it is: under `compile: auto` it is decided when the training begins, from what
compiling costs and saves (`gentrain.train.compile_gain`); the checkpoints say how, and a resumed training goes on so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from gentrain.errors import GentrainError, first_line
from gentrain.events import Compiling, Note, Observer
from gentrain.models.cost import multiply_adds
from gentrain.models.registry import family
from gentrain.train.compile_gain import MeasuredStep, Training
from gentrain.train.compiler_cache import Mark, amx, step_mark
from gentrain.train.compiling import compile_network, compiler_problem, prepare_compiler
from gentrain.train.device import autocast
from gentrain.train.evaluation import Evaluator
from gentrain.train.job import Job
from gentrain.train.state import TrainingState
from gentrain.train.tasks.build import build_task
from gentrain.train.tasks.task import Task


class Trained(NamedTuple):
    """What the epochs of a generation train."""

    network: nn.Module
    """Shares its weights with the model; compiled and data-parallel where it should be."""
    task: Task


def set_up(job: Job, evaluator: Evaluator, state: TrainingState, post: Observer) -> Trained:
    """Return the network and the task of a generation; `state` then says whether they are compiled.

    What is compiled is run once on blank images, so that no epoch's seconds are the compiler's. Where that fails under
    `compile: auto`, on whatever worker, all train eagerly, and a note says why.

    Args:
        job: the generation.
        evaluator: of the model in training, whose weights stay as they are.
        state: of the newest checkpoint.
        post: receives notes, and `Compiling` where this machine hasn't compiled the like before.

    Raises:
        GentrainError: when a teacher is missing or damaged; with `compile: true`, when there is no compiler.
    """
    workers = evaluator.workers
    state.compiled = workers.from_first(lambda: _wanted(job, evaluator, state, post))
    if not state.compiled:
        return _build(job, evaluator, state, compiled=False)
    mark = _compiled_mark(job, evaluator)
    if workers.first and mark.read() is None:
        post(Compiling(job.spec.generation, job.spec.key))
    if job.spec.compile:
        workers.everywhere(lambda: prepare_compiler(workers.device))
        trained: Trained | None = _build_compiled(job, evaluator, state)
    else:
        trained = _try_compiled(job, evaluator, state, post=post)
    if trained is None:
        state.compiled = False
        return _build(job, evaluator, state, compiled=False)
    if workers.first:
        mark.write({})
    return trained


def _wanted(job: Job, evaluator: Evaluator, state: TrainingState, post: Observer) -> bool:
    """Return whether to compile: as the study says, as the training was begun, or where it pays."""
    spec = job.spec
    if spec.compile or not job.auto_compile:
        if state.compiled and not spec.compile:
            post(_mixed(job, "compile: false"))
        return spec.compile
    if state.rows:
        return state.compiled
    return not job.memory_efficient and _pays(job, evaluator)


def _pays(job: Job, evaluator: Evaluator) -> bool:
    spec, splits, workers = job.spec, evaluator.splits, evaluator.workers
    name, device, (_, height, width) = spec.network.name, workers.device.type, splits.image
    shape = (spec.num_classes, height, width)
    batch = spec.recipe.batch_size // workers.world_size
    step = step_mark(name, shape=shape, batch=batch, precision=spec.precision, device=device)
    measured = MeasuredStep.parse(step.read())
    fast = device == "cpu" and family(name) is not None and amx()
    if measured is None and not fast:
        return False  # nothing is known of its gain
    training = Training(
        network=name,
        multiply_adds=multiply_adds(name, num_classes=spec.num_classes, height=height, width=width) if fast else 0,
        images=splits.loader("train").num_samples,
        epochs=spec.recipe.epochs,
        precision=spec.precision,
        threads=workers.threads * workers.world_size,
        amx=fast,
        measured=measured,
    )
    return training.pays(cold=_compiled_mark(job, evaluator).read() is None)


def _compiled_mark(job: Job, evaluator: Evaluator) -> Mark:
    """Return the note that this machine has compiled what this generation trains."""
    spec, splits, workers = job.spec, evaluator.splits, evaluator.workers
    return Mark(
        "compiled",
        network=spec.network.name,
        shape=[spec.num_classes, *splits.image],
        sizes=splits.loader("train").sizes,
        precision=spec.precision,
        work=spec.work,
        workers=workers.world_size,
        device=workers.device.type,
    )


def _try_compiled(job: Job, evaluator: Evaluator, state: TrainingState, *, post: Observer) -> Trained | None:
    """Return the compiled network and task; None, with a note, where compiling fails on some worker."""
    workers, trained = evaluator.workers, None
    problem = _first(workers.gather(compiler_problem(workers.device)))
    if problem is None:
        failure = None
        try:
            trained = _build_compiled(job, evaluator, state)
        except GentrainError:  # of the teacher, on every worker
            raise
        except Exception as error:  # whatever the compiler raises of a network
            failure = f"{job.spec.network.name}: {first_line(error)}"
        problem = _first(workers.gather(failure))
    if problem is None:
        return trained
    if state.rows:
        post(_mixed(job, f"torch.compile doesn't work here: {problem}"))
    else:
        remedy = "apt-get install g++ python3-dev where a compiler is missing, or set compile: false"
        post(
            Note(f"training without torch.compile, which doesn't work here: {problem}; {remedy}", "warning", once=True)
        )
    return None


def _build_compiled(job: Job, evaluator: Evaluator, state: TrainingState) -> Trained:
    """Return the compiled network and task after a step on blank images of each size that a batch has.

    It is the step of `train_epoch`, so that the epochs find everything compiled.
    """
    spec, splits, workers = job.spec, evaluator.splits, evaluator.workers
    with _weights_kept(evaluator.model):
        trained = _build(job, evaluator, state, compiled=True)
        trained.network.train()
        for count in splits.loader("train").sizes:
            images = torch.zeros((count, *splits.image), device=workers.device)
            images = images.contiguous(memory_format=torch.channels_last)
            labels = torch.zeros(count, dtype=torch.int64, device=workers.device)
            torch.compiler.cudagraph_mark_step_begin()
            if count:
                with autocast(workers.device, spec.precision):
                    loss = trained.task(trained.network(images), images, labels).loss
            else:
                loss = workers.zero_loss(trained.network, images)
            loss.backward()
            trained.network.zero_grad(set_to_none=workers.alone)
    return trained


def _build(job: Job, evaluator: Evaluator, state: TrainingState, *, compiled: bool) -> Trained:
    spec, workers, model, image = job.spec, evaluator.workers, evaluator.model, evaluator.splits.image
    network = compile_network(model, workers.device, graphs=workers.alone) if compiled else model
    # every shape is compiled by itself, so blank images come in the number of a batch's
    count = spec.recipe.batch_size // workers.world_size if compiled else 2
    network = workers.parallel(network, image=image, count=count, precision=spec.precision, plain=model)
    task = workers.everywhere(
        lambda: build_task(
            spec, store=job.store, image=image, workers=workers, compiled=compiled, itself=state.companions.teacher
        )
    )
    return Trained(network, task)


@contextlib.contextmanager
def _weights_kept(model: nn.Module) -> Iterator[None]:
    """Give the model its weights and buffers of before the block back after it."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        yield
    finally:
        model.load_state_dict(before)


def _mixed(job: Job, reason: str) -> Note:
    return Note(
        f"generation {job.spec.generation} ({job.spec.key}) was begun through torch.compile and goes on without "
        f"({reason}): it ends in other last bits",
        "warning",
    )


def _first(problems: list[str | None]) -> str | None:
    return next(filter(None, problems), None)
