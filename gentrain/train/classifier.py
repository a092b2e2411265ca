"""A finished network with its preprocessing, for use outside of training: images in, scores out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from gentrain.errors import ConfigError
from gentrain.models.mean import WeightedMean
from gentrain.store.run import RunStore
from gentrain.train.device import to_device
from gentrain.train.inference import load_network


class TrainingData(Protocol):
    """What a network must know of the data that it was trained on, as a dataset's manifest does."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""

    @property
    def height(self) -> int:
        """Of the images, in pixels."""

    @property
    def width(self) -> int:
        """Of the images, in pixels."""

    @property
    def mean(self) -> tuple[float, float, float]:
        """Of the training images by channel, in 0..1."""

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation, likewise."""


class Classifier(nn.Module):
    """Normalises images as in training and gives (N, C) scores, whose softmax are the classes' probabilities.

    Args:
        network: (N, 3, H, W) -> (N, C).
        data: that it was trained on.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, *, data: TrainingData) -> None:
        super().__init__()
        self.network = network
        self.classes = data.classes
        self.height, self.width = data.height, data.width
        self.mean, self.std = data.mean, data.std
        shift = [-m / s for m, s in zip(self.mean, self.std, strict=True)]
        scale = [1 / (255 * s) for s in self.std]
        for name, values in (("scale", scale), ("shift", shift)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's scores, float32.

        Args:
            images: (N, 3, H, W) or (N, H, W, 3), of the size that the network was trained on; uint8, or floats in 0..1.

        Raises:
            ValueError: for images of another size or type.
        """
        scores: Tensor = self.network(self._normalised(images))
        return scores.float()

    def _normalised(self, images: Tensor) -> Tensor:
        """Return (pixels / 255 - mean) / std as (N, 3, H, W), with the arithmetic of training (`augment.normalise`)."""
        size = self.height, self.width
        if images.dim() != 4 or tuple(images.shape[1:]) not in ((3, *size), (*size, 3)):
            wanted = f"(N, 3, {size[0]}, {size[1]}) or (N, {size[0]}, {size[1]}, 3)"
            raise ValueError(f"images of shape {tuple(images.shape)}: this network takes {wanted}; resize them first")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images of {images.dtype}: give uint8, or floats in 0..1")
        if tuple(images.shape[1:]) != (3, *size):
            images = images.permute(0, 3, 1, 2)
        levels = images.float() * 255 if images.is_floating_point() else images.float()
        return torch.addcmul(self.shift, levels.contiguous(memory_format=torch.channels_last), self.scale)


def load_classifier(
    keys: Sequence[str], store: RunStore, *, data: TrainingData, weights: Sequence[float]
) -> Classifier:
    """Return finished generations as one network on the CPU, in eval mode: one, or the weighted mean of several.

    Args:
        keys: of the generations.
        store: where they are.
        data: that they were trained on.
        weights: of each one's probabilities; a generation of weight 0 isn't loaded.

    Raises:
        StoreError: when one is missing or damaged.
        ConfigError: when a network can't be built here.
    """
    used = [(key, weight) for key, weight in zip(keys, weights, strict=True) if weight]
    try:
        networks = [load_network(key, store) for key, _ in used]
    except ValueError as error:
        raise ConfigError(f"{store.generation(used[0][0])}: {error}") from None
    network = networks[0] if len(networks) == 1 else WeightedMean(networks, [weight for _, weight in used])
    return Classifier(to_device(network, torch.device("cpu")), data=data)
