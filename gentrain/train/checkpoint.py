"""Encode training state and weights as safetensors bytes with JSON metadata; nothing is pickled.

RNG state isn't stored: initial weights, order, augmentation and dropout are functions of (seed, generation, epoch,
rank), so a resumed run needs only the model, the momentum and the rows of the finished epochs.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from gentrain.errors import StoreError


def encode_weights(model: nn.Module) -> bytes:
    """Return the model's parameters and buffers as safetensors bytes, on the CPU, in their own dtypes."""
    weights: bytes = safetensors.torch.save({name: _portable(value) for name, value in model.state_dict().items()})
    return weights


def load_weights(model: nn.Module, content: bytes) -> None:
    """Load `encode_weights` bytes into a model of the same architecture, strictly."""
    model.load_state_dict(safetensors.torch.load(content))


def encode_training_state(model: nn.Module, optimizer: torch.optim.Optimizer, metadata: Mapping[str, Any]) -> bytes:
    """Return model, momentum buffers and JSON metadata as one safetensors file."""
    tensors = {f"model/{name}": _portable(value) for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer") if parameter in optimizer.state else None
        if momentum is not None:
            tensors[f"momentum/{name}"] = _portable(momentum)
    content: bytes = safetensors.torch.save(tensors, metadata={"gentrain": json.dumps(metadata)})
    return content


def load_training_state(model: nn.Module, optimizer: torch.optim.Optimizer, content: bytes) -> dict[str, Any]:
    """Restore `encode_training_state` bytes in place and return the metadata."""
    metadata = _read_metadata(content)
    tensors = safetensors.torch.load(content)
    model.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")})
    for name, parameter in model.named_parameters():
        if (momentum := tensors.get(f"momentum/{name}")) is not None:
            # copied over the parameter's own layout (channels_last), so that the arithmetic takes the same path
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
    return metadata


def _read_metadata(content: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    try:
        metadata: dict[str, Any] = json.loads(header["__metadata__"]["gentrain"])
    except KeyError:
        raise StoreError("a checkpoint without gentrain's metadata; delete it and run the same command again") from None
    return metadata


def _portable(value: Tensor) -> Tensor:
    return value.detach().to("cpu").contiguous().clone()
