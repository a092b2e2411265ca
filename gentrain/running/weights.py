"""Read files of weights from elsewhere: unwrap what training scripts and libraries put around a network, check, fit.

Weights are taken strictly: every tensor of the network, of its shape, dense, real and finite. What was unwrapped or
left out is reported, so that nobody takes another network's weights for the wanted ones.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gentrain.errors import ConfigError, cut, first_line, shown

if TYPE_CHECKING:
    from torch import Tensor

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".tar")
NESTED = (
    "state_dict", "model", "model_state_dict", "net", "network", "weights",
    "state_dict_ema", "model_ema", "ema_state_dict", "ema",
)  # fmt: skip
"""Where training scripts, Lightning and timm keep the weights in a .pt file, in the order in which they are tried."""
PREFIXES = ("module.", "model.", "net.", "network.")
"""What data parallelism, AveragedModel, timm's EMA and Lightning modules put before every name."""
TRANSPARENT = {"_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of names that torch.compile, Lightning Fabric, FSDP and checkpointing put anywhere; networks have none."""
EXTRAS = {"n_averaged"}
"""Tensors of AveragedModel that are no weights."""
MOST_NESTED = 8


@dataclass(frozen=True)
class Unwrapped:
    """Holds weights by their names in the network, and what was around them."""

    tensors: dict[str, Tensor]
    prefix: str = ""
    """What was taken off every name."""
    left_out: tuple[str, ...] = ()
    """Names of tensors that belong to something else."""


def read_weights(path: Path, key: str | None, where: str) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a file by their names there, and a text about where in the file they are.

    Args:
        path: of the file.
        key: where in a pickled file the weights are; by default one of `NESTED`, or nowhere.
        where: for messages.

    Raises:
        ConfigError: naming the file and the remedy.
    """
    import torch

    content = _load(path, key, where)
    steps: list[str] = []
    beside: list[str] = []
    if key is not None:
        if not (isinstance(content, Mapping) and isinstance(content.get(key), Mapping)):
            there = _listed(content) if isinstance(content, Mapping) else type(content).__name__
            raise ConfigError(f"{where}: has no weights under {shown(key)}; there: {there}")
        content = content[key]
    while isinstance(content, Mapping) and len(steps) < MOST_NESTED:
        inside = [name for name in NESTED if isinstance(content.get(name), Mapping)]
        if not inside:
            break
        beside += inside[1:]
        steps.append(inside[0])
        content = content[inside[0]]
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: holds a {type(content).__name__}, not named tensors; save model.state_dict()")
    others = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others or not content:
        problem = f"{shown(others[0])} is no tensor" if others else "it is empty"
        raise ConfigError(f"{where}: {problem}; name its weights with pretrained.key, or save a state_dict alone")
    if odd := [name for name in content if not isinstance(name, str)]:
        raise ConfigError(f"{where}: a tensor is named {shown(odd[0])}, not by a text; save model.state_dict()")
    text = f"weights under {shown('.'.join(steps))}" if steps else ""
    text += f", not those under {' or '.join(map(shown, beside))} (pretrained.key)" if beside else ""
    return dict(content), text


def _load(path: Path, key: str | None, where: str) -> Any:
    import safetensors.torch
    import torch

    pickled = path.suffix in PICKLED
    if not pickled and path.suffix != ".safetensors":
        raise ConfigError(f"{where}: not a file of weights by its suffix; give .safetensors, {', '.join(PICKLED)}")
    if key is not None and not pickled:
        raise ConfigError(
            f"{where}: key {shown(key)} is for {', '.join(PICKLED)}; a .safetensors file has nothing nested"
        )
    try:
        if not pickled:
            return dict(safetensors.torch.load(path.read_bytes()))
        with torch.serialization.safe_globals([argparse.Namespace]):  # timm keeps its options; it holds values only
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        other = re.search(r"GLOBAL ([\w.]+)", str(error))
        held = f"more than tensors ({cut(other[1])})" if other else "more than tensors"
        raise ConfigError(
            f"{where}: is damaged or holds {held}, which isn't loaded; save model.state_dict() alone"
        ) from None
    except Exception as error:  # whatever bytes that are no such file make its reader raise
        reason = cut(first_line(error))
        raise ConfigError(f"{where}: can't be read ({reason}); is the file whole?") from None


def unwrap(tensors: Mapping[str, Tensor], wanted: Iterable[str]) -> Unwrapped:
    """Return weights under the names that a network has for them, whatever was put before or into the names.

    Args:
        tensors: by their names in the file.
        wanted: the network's names; where no unwrapping leads to them, all that every name has is taken off.
    """
    names = {name for name in wanted if not counts_batches(name)}
    taken = ""
    bare = {_without_transparent(name): value for name, value in tensors.items()}
    if len(bare) == len(tensors) and bare.keys() != tensors.keys():
        removed = {part for name in tensors for part in name.split(".")} & TRANSPARENT
        taken, tensors = "".join(f"{part}." for part in sorted(removed)), bare
    while not _is(names, tensors):
        own = {name: value for name, value in tensors.items() if name not in EXTRAS or name in names}
        prefix = next((prefix for prefix in PREFIXES if _may_be_taken(prefix, own, names)), None)
        if prefix is None:
            tensors = own
            break
        tensors, taken = {name.removeprefix(prefix): value for name, value in own.items()}, taken + prefix
    if not _is(names, tensors):
        for prefix in PREFIXES:  # of several networks in one file, such as a student and its loss
            part = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            inner = unwrap(part, names) if 0 < len(part) < len(tensors) else Unwrapped({})
            if part and _is(names, inner.tensors):
                others = tuple(name for name in tensors if not name.startswith(prefix))
                return Unwrapped(inner.tensors, taken + prefix + inner.prefix, others)
    return Unwrapped(dict(tensors), taken)


def _may_be_taken(prefix: str, own: Iterable[str], wanted: Iterable[str]) -> bool:
    """Return whether all of a file's names begin with a prefix, more often than the network's own names do."""
    belongs = all(name.startswith(prefix) for name in wanted)
    names = list(own)
    return bool(names) and all(name.startswith(2 * prefix if belongs else prefix) for name in names)


def _is(names: set[str], tensors: Mapping[str, Tensor]) -> bool:
    return {name for name in tensors if not counts_batches(name)} == names


def _without_transparent(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in TRANSPARENT)


def fit(tensors: dict[str, Tensor], network: str, num_classes: int, where: str) -> tuple[bytes, str]:
    """Return weights as the store writes them, loaded into the network without remainder, and a text about unwrapping.

    Raises:
        ConfigError: naming the first tensor that differs, and what the file fits.
    """
    from gentrain.models.registry import build_model
    from gentrain.train.checkpoint import encode_weights

    model = build_model(network, num_classes=num_classes)
    wanted = model.state_dict()
    unwrapped = unwrap(tensors, wanted)
    tensors = unwrapped.tensors

    def refuse(problem: str) -> NoReturn:
        raise ConfigError(
            f"{where}: {problem} in {network} for {num_classes} classes; {_remedy(tensors, network, num_classes)}"
        )

    for name, value in wanted.items():
        tensor = tensors.get(name)
        if tensor is None and not counts_batches(name):
            refuse(f"has no tensor {shown(name)}, which is {tuple(value.shape)}")
        if tensor is not None and (oddity := _oddity(tensor, value)):
            raise ConfigError(f"{where}: tensor {shown(name)} {oddity}; save it as dense {value.dtype}")
        if tensor is not None and tensor.shape != value.shape:
            refuse(f"tensor {shown(name)} is {tuple(tensor.shape)}, but {tuple(value.shape)}")
        if tensor is not None and not tensor.to(value.dtype).isfinite().all():
            raise ConfigError(f"{where}: tensor {shown(name)} isn't finite; that network can teach nothing")
    if more := next((name for name in tensors if name not in wanted), None):
        refuse(f"tensor {shown(more)} is {tuple(tensors[more].shape)}, but isn't there")
    model.load_state_dict(wanted | tensors)
    parts = [f"prefix {shown(unwrapped.prefix)} taken off the names"] if unwrapped.prefix else []
    if unwrapped.left_out:
        several = "s" if len(unwrapped.left_out) > 1 else ""
        parts.append(
            f"{len(unwrapped.left_out)} other tensor{several} left out, such as {shown(unwrapped.left_out[0])}"
        )
    return encode_weights(model), ", ".join(parts)


def _oddity(tensor: Tensor, wanted: Tensor) -> str | None:
    """Return what a tensor is that no weights can be read from; None where it is none of that."""
    import torch

    if tensor.layout != torch.strided:
        return f"is sparse ({tensor.layout})"
    if tensor.is_quantized:
        return f"is quantised ({tensor.dtype})"
    if tensor.is_meta:
        return "has no values (it was saved from device meta)"
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    integers = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    if tensor.dtype not in (floats if wanted.is_floating_point() else floats + integers):
        return f"is {tensor.dtype}, not {'real numbers' if wanted.is_floating_point() else 'numbers'}"
    return None


def _remedy(tensors: dict[str, Tensor], network: str, num_classes: int) -> str:
    """Return what the file fits: the network or another one, for this or another number of classes."""
    from gentrain.models.registry import model_names

    setting = "(pretrained.network, --teacher-network)"
    if fits := [name for name in model_names() if _fits(tensors, name, num_classes)]:
        return f"it fits {' and '.join(fits)} {setting}"
    heads = [tensor.shape[0] for tensor in list(tensors.values())[-2:] if tensor.dim()]
    for other in dict.fromkeys(head for head in heads if head > 1):
        if fits := [name for name in dict.fromkeys((network, *model_names())) if _fits(tensors, name, other)]:
            return f"it is {fits[0]} for {other} classes; the dataset has {num_classes}: give a network for these"
    return f"name its network {setting}"


def _fits(tensors: Mapping[str, Tensor], network: str, num_classes: int) -> bool:
    """Return whether a network has tensors of just these names and shapes."""
    return _network_shapes(network, num_classes) == _shapes(tensors)


@cache
def _network_shapes(network: str, num_classes: int) -> dict[str, tuple[int, ...]] | None:
    from gentrain.models.cost import without_memory
    from gentrain.models.registry import build_model

    try:
        with without_memory():
            return _shapes(build_model(network, num_classes=num_classes).state_dict())
    except ValueError:  # a function from elsewhere that builds nothing on this device, or for so many classes
        return None


def _shapes(named: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in named.items() if not counts_batches(name)}


def counts_batches(name: str) -> bool:
    """Return whether a tensor counts BatchNorm's batches, which files of older versions of torch lack."""
    return name.endswith("num_batches_tracked")


def _listed(content: Mapping[Any, Any]) -> str:
    names = [shown(name) if not isinstance(name, str) else cut(name) for name in content]
    return ", ".join(names[:10]) + (" …" if len(names) > 10 else "")
