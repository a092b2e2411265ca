"""Encode training state and weights as safetensors bytes with JSON metadata; nothing is pickled.

RNG state isn't stored: initial weights, order, augmentation and dropout are functions of (seed, generation, epoch,
rank), so a resumed run needs only the model, the optimiser's state and the rows of the finished epochs.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gentrain.errors import StoreError

STATES = {"momentum": "momentum_buffer", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq", "step": "step"}
"""Names in a file of what an optimiser keeps for each parameter: SGD's, AdamW's."""


def encode_weights(model: nn.Module) -> bytes:
    """Return the model's parameters and buffers as safetensors bytes, on the CPU, in their own dtypes."""
    weights: bytes = safetensors.torch.save({name: _portable(value) for name, value in model.state_dict().items()})
    return weights


def load_weights(model: nn.Module, content: bytes) -> None:
    """Load `encode_weights` bytes into a model of the same architecture, strictly."""
    model.load_state_dict(safetensors.torch.load(content))


NONE: Mapping[str, nn.Module] = {}


def encode_training_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    metadata: Mapping[str, Any],
    *,
    companions: Mapping[str, nn.Module] = NONE,
) -> bytes:
    """Return model, the optimiser's state, companions by name and JSON metadata as one safetensors file."""
    tensors = {
        f"{which}/{name}": _portable(value)
        for which, network in {"model": model, **companions}.items()
        for name, value in network.state_dict().items()
    }
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        for kind, key in STATES.items():
            if state.get(key) is not None:
                tensors[f"{kind}/{name}"] = _portable(state[key])
    content: bytes = safetensors.torch.save(tensors, metadata={"gentrain": json.dumps(metadata)})
    return content


def load_training_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    content: bytes,
    *,
    companions: Mapping[str, nn.Module] = NONE,
) -> dict[str, Any]:
    """Restore `encode_training_state` bytes in place and return the metadata."""
    metadata = _read_metadata(content)
    if metadata is None:
        raise StoreError("a checkpoint without gentrain's metadata; delete it and run the same command again")
    tensors = safetensors.torch.load(content)
    for which, network in {"model": model, **companions}.items():
        network.load_state_dict(_part(tensors, which))
    for name, parameter in model.named_parameters():
        for kind, key in STATES.items():
            if (value := tensors.get(f"{kind}/{name}")) is not None:
                # copied over the parameter's own layout (channels_last), so that the arithmetic takes the same path
                like = torch.empty_like(parameter) if value.dim() else value.to(parameter.device)
                optimizer.state[parameter][key] = like.copy_(value)
    return metadata


def checkpoint_problem(
    content: bytes, *, key: str, epoch: int, model: nn.Module, companions: Mapping[str, nn.Module] = NONE
) -> str | None:
    """Return why bytes can't be the state of a generation after an epoch, None where they are.

    Checkpoints without a key were written before keys were recorded: their place and their name say what they are of.

    Args:
        content: the file.
        key: of the generation.
        epoch: finished epochs.
        model: whose parameters and buffers must be in it, in their shapes.
        companions: by name, likewise.
    """
    try:
        tensors = safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        return f"not a safetensors file: {error}"
    metadata = _read_metadata(content)
    if metadata is None:
        return "no metadata of gentrain's"
    if metadata.get("key", key) != key:
        return f"it is of generation {str(metadata['key'])[:16]}"
    rows = metadata.get("rows")
    if metadata.get("epoch", epoch) != epoch or not isinstance(rows, list) or len(rows) != epoch:
        return f"it isn't the state after epoch {epoch}"
    if not isinstance(metadata.get("rollbacks", []), list) or not isinstance(metadata.get("compiled_epochs", 0), int):
        return "its rollbacks are no list, or its compiled epochs no number"
    return next(
        filter(None, (_tensor_problem(tensors, which, n) for which, n in {"model": model, **companions}.items())), None
    )


def _part(tensors: Mapping[str, Tensor], which: str) -> dict[str, Tensor]:
    """Return a checkpoint's tensors of one network, by their names in it."""
    return {name.removeprefix(f"{which}/"): t for name, t in tensors.items() if name.startswith(f"{which}/")}


def _tensor_problem(tensors: Mapping[str, Tensor], which: str, network: nn.Module) -> str | None:
    """Return why a checkpoint's tensors can't be loaded into a network, None where they can."""
    saved = _part(tensors, which)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if {name: tensor.shape for name, tensor in saved.items()} != shapes:
        return "its tensors aren't the network's"
    for name, tensor in tensors.items():
        kind, _, parameter = name.partition("/")
        if kind in STATES and shapes.get(parameter) != tensor.shape and (kind != "step" or tensor.dim()):
            return "its momentum isn't the network's"
    bad = next((name for name, tensor in saved.items() if not tensor.isfinite().all()), None)
    return None if bad is None else f"{bad} isn't finite"


def _read_metadata(content: bytes) -> dict[str, Any] | None:
    """Return the metadata of a safetensors file that gentrain wrote, None of any other."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    try:
        metadata = json.loads(header["__metadata__"]["gentrain"])
    except (KeyError, ValueError, RecursionError):
        return None
    return metadata if isinstance(metadata, dict) else None


def _portable(value: Tensor) -> Tensor:
    return value.detach().to("cpu").contiguous().clone()
