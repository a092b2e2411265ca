"""What a study will take of disk and memory, foretold, and held against what is free before it starts.

On the disk: a generation keeps its weights and, of each test and validation image, C probabilities, its label and its
number. While it is trained there are three checkpoints for a moment: weights, and what the optimiser keeps.

In memory, a worker on CPUs takes

    BASE + parameters · (2 + states) + weights of the teachers + images of a worker · kept · STEP[precision]

parameters and gradients, what the optimiser keeps (SGD one value for each, AdamW two), and what a step keeps of an
image for the backward pass (`gentrain.models.footprint`). BASE and STEP were measured (ResNet-20, 64 and 512 images).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from gentrain.data.prepare.expected import Expected, expected_images
from gentrain.data.prepare.manifest import Manifest
from gentrain.errors import ResourceError
from gentrain.models.footprint import NetworkBytes
from gentrain.running.costs import size_of
from gentrain.store.run import RunStore
from gentrain.study.lineage import Forest, GenerationSpec
from gentrain.study.schema import Study
from gentrain.study.tasks import StudentSpec

BASE = 1.05e9
"""Bytes of a worker before it trains: torch, FFCV, Numba, Arrow and their threads."""
STEP = {"fp32": 1.6, "tf32": 1.6, "bf16": 0.7}
"""Bytes of a step for a byte that autograd keeps in fp32: that, gradients on their way, and scratch of convolutions."""
CHECKPOINTS = 3
EPOCHS = 64
"""Bytes of a row of epochs.parquet, about."""
RECORDS = 20_000
"""Bytes of a generation's records, about."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that a study will take."""

    generations: int
    """Weights, predictions and records of what is still to be trained."""
    checkpoints: int
    """Of the trainings at once, while they last."""
    prepared: int
    """Of the dataset; 0 where it is prepared."""
    worker: int
    """Memory of a worker, the largest of them."""

    @property
    def disk(self) -> int:
        """All that the disk must hold at once."""
        return self.generations + self.checkpoints + self.prepared


def foretell(
    study: Study, forest: Forest, *, keys: Collection[str], manifest: Manifest | None, at_once: int
) -> Footprint | None:
    """Return what the study's generations of `keys` will take; None where images or a network aren't known yet.

    Args:
        study: whose generations they are.
        forest: of the study's chains.
        keys: of those that are not finished.
        manifest: of the prepared dataset, where there is one.
        at_once: trainings at the same time.
    """
    images = expected_images(study.dataset, manifest)
    if images is None:
        return None
    names = {spec.network.name for spec in forest.specs.values()}
    try:
        sizes = {name: size_of(name, images, memory_efficient=study.network.memory_efficient) for name in names}
    except ValueError:
        return None
    left = [forest.specs[key] for key in keys if key in forest.specs]
    trained = [spec for spec in left if not spec.pretrained]
    states = 2 if study.recipe.optimizer == "adamw" else 1
    saved = sorted((_checkpoint(spec, sizes[spec.network.name], states) for spec in trained), reverse=True)
    return Footprint(
        generations=sum(_kept(spec, sizes[spec.network.name], images) for spec in left),
        checkpoints=CHECKPOINTS * sum(saved[: max(1, at_once)]),
        prepared=images.bytes,
        worker=max((_worker(spec, study, forest, sizes, states) for spec in trained), default=0),
    )


def check_room(footprint: Footprint | None, study: Study, *, store: RunStore, here: bool) -> None:
    """Refuse a study that doesn't fit the disk of the run folder, or this machine's memory.

    Args:
        footprint: what it will take; None where that isn't known, which is not refused.
        study: to be run.
        store: the run folder; an object store has room.
        here: whether it trains on this machine.

    Raises:
        ResourceError: with what is needed and free, and the remedy.
    """
    if footprint is None:
        return
    if store.local:
        free = free_disk(Path(store.root.path) / "generations")
        if footprint.disk > free:
            raise ResourceError(
                f"{store.root}: {study.name} needs {_gigabytes(footprint.disk)} of disk, {_gigabytes(free)} are free; "
                "free some, choose another folder with --runs, or start nevertheless with --force"
            )
    if not here or study.device == "cuda" or study.gpus_per_worker or not footprint.worker:
        return
    wanted, free = study.workers * footprint.worker, free_memory()
    if wanted > free:
        raise ResourceError(
            f"{study.name}: {study.workers} worker{'s' * (study.workers > 1)} of {_gigabytes(footprint.worker)} of "
            f"memory, {_gigabytes(free)} are free; lower recipe.batch_size, close other programs, or start "
            "nevertheless with --force"
        )


def _kept(spec: GenerationSpec, size: NetworkBytes, images: Expected) -> int:
    predictions = images.predicted * (4 * images.classes + 16)
    averages = 2 if spec.recipe.ema is not None and spec.recipe.ema.role != "result" else 1
    return averages * size.weights + predictions + EPOCHS * spec.recipe.epochs + RECORDS


def _checkpoint(spec: GenerationSpec, size: NetworkBytes, states: int) -> int:
    averages = 1 if spec.recipe.ema is None else 2
    return averages * size.weights + states * size.parameters


def _worker(spec: GenerationSpec, study: Study, forest: Forest, sizes: dict[str, NetworkBytes], states: int) -> int:
    own = sizes[spec.network.name]
    images = -(-spec.recipe.batch_size // study.workers)
    teachers = sum(sizes[forest.specs[key].network.name].weights for key in _teachers(spec) if key in forest.specs)
    return round(BASE + (2 + states) * own.parameters + teachers + images * own.kept * STEP[spec.precision])


def _teachers(spec: GenerationSpec) -> Iterable[str]:
    return spec.task.teachers if isinstance(spec.task, StudentSpec) else ()


def free_disk(path: Path) -> int:
    """Return the bytes that are free where a folder is, or will be."""
    while not os.path.isdir(path):
        path = path.parent
    return shutil.disk_usage(path).free


def free_memory() -> int:
    """Return the bytes of memory that this machine has free."""
    return int(psutil.virtual_memory().available)


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e7 else f"{count / 1e6:,.2f} MB"
