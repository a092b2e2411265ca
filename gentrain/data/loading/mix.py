"""Mixup and CutMix of neighbours in an epoch's order; draws are functions of (seed, epoch, sample) alone.

Neighbours of the epoch's order, the first and the second, the third and the fourth and so on, are each other's
partners, and always in the same worker's part of the same batch (`order`, `PAIR`): who is mixed with whom, and how,
depends on neither batches nor workers. A last sample without a partner stays as it is.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SWITCH = 0.5
"""Probability of CutMix for a sample where there are both, as in timm."""
_WEIGHT_MIXUP, _WEIGHT_CUTMIX, _CUT, _ROW, _COLUMN = range(5)
"""Streams of draws."""


class MixDraws(NamedTuple):
    """Draws of an epoch by sample; each (num_samples,)."""

    weight: Tensor
    """float32 in [0, 1]: how much of the image stays its own, λ of the sources."""
    cut: Tensor
    """bool: whether a box is cut out (CutMix), instead of all pixels being averaged (mixup)."""
    row: Tensor
    """float32 in [0, 1): the middle of the box, as a part of the height."""
    column: Tensor
    """Likewise, of the width."""


@functools.lru_cache(maxsize=1)
def draw_mixes(
    num_samples: int, *, seed: int, epoch: int, mixup: float, cutmix: float, device: torch.device
) -> MixDraws:
    """Return an epoch's draws: λ ~ Beta(α, α) of each sample; those of a sample don't depend on how many there are.

    Args:
        num_samples: of the split.
        seed: of the generation.
        epoch: counted from 0.
        mixup: α of mixup; 0 for none.
        cutmix: α of CutMix; 0 for none. With both, one of them is drawn for each sample.
        device: of the tensors.
    """

    def stream(which: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch), spawn_key=(which,))))

    cut = stream(_CUT).random(num_samples) < (SWITCH if mixup and cutmix else float(bool(cutmix)))
    weights = [
        stream(which).beta(alpha, alpha, num_samples) if alpha else np.ones(num_samples)
        for which, alpha in ((_WEIGHT_MIXUP, mixup), (_WEIGHT_CUTMIX, cutmix))
    ]
    weight = torch.from_numpy(np.where(cut, weights[1], weights[0])).float()
    row, column = (torch.from_numpy(stream(which).random(num_samples, np.float32)) for which in (_ROW, _COLUMN))
    return MixDraws(*(part.to(device) for part in (weight, torch.from_numpy(cut), row, column)))


def mix(images: Tensor, labels: Tensor, indices: Tensor, *, draws: MixDraws, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return every image mixed with its partner, and its label with the partner's.

        mixup:  x̃ = λ·x + (1-λ)·x',  ỹ = λ·y + (1-λ)·y'
                (Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018)
        CutMix: x̃ = x with x' inside a box of H·√(1-λ) times W·√(1-λ) pixels about a random middle, cut at the borders;
                the labels' λ is the part of the pixels outside of it
                (Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers", ICCV 2019)

    Args:
        images: (n, 3, H, W), float32, consecutive in the epoch's order from an even place on.
        labels: (n,), int64.
        indices: (n,), int64, each sample's index in its split.
        draws: of the epoch.
        num_classes: C.

    Returns:
        Images (n, 3, H, W), channels last in memory, and labels (n, C), float32, which sum to 1.
    """
    count, _, height, width = images.shape
    places = torch.arange(count, device=images.device)
    partner = torch.where((places ^ 1) < count, places ^ 1, places)
    weight, cut, row, column = (part[indices] for part in draws)
    inside = _span(row, weight, height)[:, :, None] & _span(column, weight, width)[:, None, :]
    part = torch.where(cut[:, None, None], (~inside).float(), weight[:, None, None])[:, None]
    mixed = images * part + images[partner] * (1 - part)
    outside = 1 - inside.sum(dim=(1, 2)).float() / (height * width)
    own = torch.where(cut, outside, weight)[:, None]
    hot = F.one_hot(labels, num_classes).float()
    return mixed.contiguous(memory_format=torch.channels_last), hot * own + hot[partner] * (1 - own)


def _span(middle: Tensor, weight: Tensor, size: int) -> Tensor:
    """Return which of `size` rows or columns are inside each sample's box: (n, size), bool."""
    half = (size * (1 - weight).sqrt()).long() // 2
    middle = (size * middle).long()
    places = torch.arange(size, device=middle.device)
    return (places >= (middle - half)[:, None]) & (places < (middle + half)[:, None])
