"""Set up where and how networks compute: threads, precision, memory layout."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn


def configure(device: torch.device, *, threads: int, precision: str) -> None:
    """Set threads, determinism and the study's precision for this process."""
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = False  # may pick another algorithm in the resumed process
        torch.backends.cudnn.deterministic = True
        set_tf32(precision == "tf32")


def set_tf32(allowed: bool) -> None:
    """Let a GPU round the factors of float32 matrix products and convolutions to TF32, or keep them exact.

    It uses the switches that all supported versions of torch have and that torch.compile reads.
    """
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Return the block in which convolutions run in the study's precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def to_device(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to the device, channels last."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def device_name(device: torch.device) -> str:
    """Return the device's name as DONE.json records it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
