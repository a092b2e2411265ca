"""Classify image files with an exported model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gentrain.data.sources.folders import BrokenImage
from gentrain.data.sources.single import list_files, read_fitting
from gentrain.train.exported import read_model

BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """The classes that a model gives an image, the likeliest first."""

    image: str
    classes: tuple[str, ...]
    scores: tuple[float, ...]
    """Their probabilities."""
    problem: str | None = None
    """Why the image can't be decoded; then there are no classes."""


def predict_files(model: Path, images: Iterable[Path], *, top: int) -> Iterator[Prediction]:
    """Yield the predictions of an exported model, in the images' order.

    Args:
        model: folder that `write_model` wrote.
        images: files, and folders, which are searched for images.
        top: how many classes of each.

    Raises:
        ConfigError, StoreError: when there is no such model or image, or the model is damaged.
    """
    network, description = read_model(model)
    every = list_files(images)
    for files in (every[start : start + BATCH] for start in range(0, len(every), BATCH)):
        decoded = [
            read_fitting(file, height=network.height, width=network.width, center=description.center) for file in files
        ]
        valid = [pixels for pixels in decoded if not isinstance(pixels, BrokenImage)]
        rows: Iterator[np.ndarray] = iter(())
        if valid:
            with torch.no_grad():
                rows = iter(network(torch.from_numpy(np.stack(valid))).softmax(dim=1).numpy())
        for file, pixels in zip(files, decoded, strict=True):
            if isinstance(pixels, BrokenImage):
                yield Prediction(str(file), (), (), problem=pixels.reason)
                continue
            scores = next(rows)
            best = np.argsort(-scores, kind="stable")[:top]
            yield Prediction(str(file), tuple(network.classes[i] for i in best), tuple(scores[best].tolist()))
