"""Check a study's networks before anything is started: do they take its images, and train on all of its batches?"""

from __future__ import annotations

from typing import Any

from gentrain.data.loading.order import PAIR, worker_parts
from gentrain.data.prepare.manifest import Manifest
from gentrain.errors import ConfigError
from gentrain.models.cost import check_fits, check_trains
from gentrain.study.schema import Study

FARTHEST = 64
"""Multiples of the number of workers, to either side, among which another batch size is looked for."""


def check_networks(study: Study, manifest: Manifest) -> None:
    """Raise ConfigError where a network can't take the dataset's images, or can't train on the study's batches."""
    pretrained = [entry.network or study.network.name for entry in study.pretrained]
    trained = [network for point in study.points() for network in point.trained_networks]
    folded = (*pretrained, *study.teaching_networks) if study.fold_batchnorm else ()
    shape = {"num_classes": len(manifest.classes), "height": manifest.height, "width": manifest.width}
    samples = manifest.splits["train"].count
    for network in dict.fromkeys((*pretrained, *trained)):
        try:
            check_fits(network, **shape, folded=network in folded)
            if network in trained:
                _check_batches(network, study, samples, shape)
        except ValueError as error:
            raise ConfigError(f"{study.name}: {error}") from None


def _check_batches(network: str, study: Study, samples: int, shape: dict[str, Any]) -> None:
    """Raise ValueError where a network can't train on a batch, or a worker's part of one, that an epoch has."""
    batch = study.recipe.batch_size
    for images in sorted(_parts(study, samples, batch), reverse=True):
        try:
            check_trains(network, **shape, images=images)
        except ValueError as error:
            if images > 1:
                raise
            raise ValueError(f"{error}; {_remedy(study, samples, images)}") from None


def _remedy(study: Study, samples: int, images: int) -> str:
    """Return what leaves a worker with so few images, and the nearest batch size that doesn't."""
    batch, workers = study.recipe.batch_size, study.workers
    step_size = workers * (PAIR if study.recipe.mixes else 1)
    near = [batch + step_size * step for distance in range(1, FARTHEST + 1) for step in (-distance, distance)]
    fitting = next((size for size in near if size >= 2 and images not in _parts(study, samples, size)), None)
    whom = f"one of {workers} workers" if workers > 1 else "the last"
    return (
        f"{samples} training images in batches of {batch} leave {whom} with {images or 'none'}; "
        + (f"set recipe.batch_size: {fitting}, or " if fitting else "")
        + "choose another network"
    )


def _parts(study: Study, samples: int, batch: int) -> frozenset[int]:
    """Return how many images BatchNorms take statistics of at once; 0 where layers see a part without images.

    That is a worker's part of a batch, and with `sync_batchnorm` all of the batch. A worker that the last batch has no
    image for computes nothing, unless its BatchNorms wait for the others.
    """
    together = PAIR if study.recipe.mixes else 1
    parts = worker_parts(samples, batch_size=batch, world_size=study.workers, together=together)
    if not study.sync_batchnorm:
        return parts - {0}
    return worker_parts(samples, batch_size=batch, world_size=1) | (parts & {0})
