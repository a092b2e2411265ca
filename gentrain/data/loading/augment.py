"""Augment whole batches on the device; draws are functions of (seed, epoch, sample index) alone.

The draws come from a counter-based generator (SplitMix64, Steele et al. 2014), so they don't depend on how samples
are batched, on the number of workers or threads, or on what was drawn before.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Grey of red, green and blue (ITU-R BT.601)."""
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def augment(images: Tensor, indices: Tensor, *, seed: int, epoch: int, padding: int, flip: bool) -> Tensor:
    """Pad with black on each side, crop back to size at a random place, mirror with probability 1/2.

    Args:
        images: (N, C, H, W), uint8.
        indices: (N,), int64, each sample's index in its split.
        seed: of the generation.
        epoch: counted from 0.
        padding: pixels on each side; 0 for no crop.
        flip: whether to mirror.

    Returns:
        (N, C, H, W), uint8.
    """
    if padding == 0 and not flip:
        return images
    count, channels, height, width = images.shape
    draws = random_bits(indices, seed=seed, epoch=epoch)
    side = 2 * padding + 1
    top = ((draws >> 40 & 0xFFFFFF) * side) >> 24
    left = ((draws >> 16 & 0xFFFFFF) * side) >> 24
    columns = torch.arange(width, device=images.device).expand(count, width)
    if flip:
        columns = torch.where((draws & 1).bool()[:, None], width - 1 - columns, columns)
    rows = torch.arange(height, device=images.device) + top[:, None]
    padded = F.pad(images, (padding, padding, padding, padding))
    places = rows[:, :, None] * (width + 2 * padding) + (columns + left[:, None])[:, None, :]
    places = places.view(count, 1, height * width).expand(count, channels, height * width)
    return padded.view(count, channels, -1).gather(2, places).view(count, channels, height, width)


def distort(
    images: Tensor, indices: Tensor, *, seed: int, epoch: int, flip: bool, rotation: float, jitter: float
) -> Tensor:
    """Mirror, rotate and vary the colours of images that were cropped already.

    Rotation is by an angle drawn evenly from ±`rotation` degrees, bilinear, black outside. Brightness, contrast (about
    the image's mean grey) and saturation are multiplied by factors drawn evenly from 1 ± `jitter`, in this order.

    Args:
        images: (N, 3, H, W), uint8.
        indices: (N,), int64, each sample's index in its split.
        seed: of the generation.
        epoch: counted from 0.
        flip: whether to mirror with probability 1/2.
        rotation: degrees.
        jitter: in [0, 1).

    Returns:
        (N, 3, H, W), uint8.
    """
    mirrored = images
    if flip:
        heads = (random_bits(indices, seed=seed, epoch=epoch) & 1).bool()
        mirrored = torch.where(heads[:, None, None, None], images.flip(3), images)
    if not rotation and not jitter:
        return mirrored
    pixels = mirrored.float().contiguous()
    angle, brightness, contrast, saturation = (
        2 * random_unit(indices, seed=seed, epoch=epoch, draw=draw) - 1 for draw in range(4)
    )
    if rotation:
        pixels = _rotate(pixels, torch.deg2rad(angle * rotation))
    if jitter:
        factors = [(1 + jitter * draw).view(-1, 1, 1, 1) for draw in (brightness, contrast, saturation)]
        pixels = (pixels * factors[0]).clamp(0, 255)
        weights = _luma(images.device)
        mean = (pixels * weights).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
        pixels = (mean + (pixels - mean) * factors[1]).clamp(0, 255)
        grey = (pixels * weights).sum(dim=1, keepdim=True)
        pixels = (grey + (pixels - grey) * factors[2]).clamp(0, 255)
    return pixels.round().to(torch.uint8)


def _rotate(pixels: Tensor, angles: Tensor) -> Tensor:
    """Rotate (N, 3, H, W) about the middle by (N,) radians; square pixels stay square."""
    height, width = pixels.shape[2:]
    sin, cos, zero = angles.sin(), angles.cos(), torch.zeros_like(angles)
    rows = [
        torch.stack([cos, -sin * height / width, zero], dim=1),
        torch.stack([sin * width / height, cos, zero], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def random_unit(indices: Tensor, *, seed: int, epoch: int, draw: int) -> Tensor:
    """Return a float32 in [0, 1) for each sample index, another for each `draw`."""
    bits = random_bits(indices, seed=_mix_int(seed + draw + 1), epoch=epoch)
    return _shift_right(bits, 40).float() * 2.0**-24


def normalise(images: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return ((pixels / 255) - mean) / std of (N, 3, H, W) uint8 images as float32, channels last in memory."""
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), images.device)
    return torch.addcmul(shift, images.contiguous(memory_format=torch.channels_last).float(), scale)


@functools.lru_cache(maxsize=8)
def _luma(device: torch.device) -> Tensor:
    return torch.tensor(LUMA, device=device).view(1, 3, 1, 1)


@functools.lru_cache(maxsize=8)
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the constants of `normalise`, made once: bringing them to a GPU at every step would wait for it."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, -1, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, -1, 1, 1)
    return scale, shift


def random_bits(indices: Tensor, *, seed: int, epoch: int) -> Tensor:
    """Return 64 random bits, as int64, for each sample index."""
    state = indices * _signed(_GOLDEN) + _signed(stream_of(seed=seed, epoch=epoch))
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        state = (state ^ _shift_right(state, shift)) * _signed(multiplier)
    return state ^ _shift_right(state, 31)


def stream_of(*, seed: int, epoch: int) -> int:
    """Return the 64 bits that an epoch's draws begin from."""
    return _mix_int(_mix_int(seed) + epoch)


def _mix_int(value: int) -> int:
    state = (value + 1) * _GOLDEN & _MASK
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        state = (state ^ state >> shift) * multiplier & _MASK
    return state ^ state >> 31


def _shift_right(value: Tensor, by: int) -> Tensor:
    return (value >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
