"""Count what the forward pass of a network computes and moves.

torch's own FlopCounterMode has the formulas, but imports all of `torch._dynamo`, a second, to keep its counting out of
compiled code. Here nothing is compiled.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gentrain.models._compat import flop_registry, is_view, overload_packet


class Counter(TorchDispatchMode):
    """Counts the operations of the networks that run in the block."""

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds = 0
        """Of matrix products and convolutions, attention's too; not of biases, normalisations and activations."""
        self.bytes = 0
        """Read and written by every operation, without parameters, which all images of a batch share."""
        self.operations = 0
        """Calls of kernels; views and shapes are none."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports torch._dynamo at the first operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        out = func(*args, **kwargs)
        if not is_view(func):
            formula = flop_registry.get(overload_packet(func))
            if formula is not None:
                self.multiply_adds += int(formula(*args, **kwargs, out_val=out)) // 2
            self.bytes += sum(map(_bytes, tree_leaves((args, kwargs, out))))
            self.operations += 1
        return out


def _bytes(value: Any) -> int:
    moved = isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter)
    return value.numel() * value.element_size() if moved else 0
