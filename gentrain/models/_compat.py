"""The private names of torch that networks use: oneDNN's convolution with what follows it in one call, and counting.

torch.compile makes the same calls on a CPU (https://github.com/pytorch/pytorch/pull/86581), but has no public way to
make them. The operators are registered only where torch is built with oneDNN: nothing here is called elsewhere.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.utils.flop_counter

from gentrain.upstream import Library

TORCH = Library("torch", works=">=2.10,<2.15")

onednn_available: bool = torch.backends.mkldnn.is_available()

if onednn_available:
    # A convolution, then an activation; its overload `binary` adds a tensor of the output's shape in between.
    convolution_pointwise: Any = TORCH.private(torch.ops.mkldnn, "_convolution_pointwise")
    TORCH.private(convolution_pointwise, "binary")
    # Weights in oneDNN's layout, reordered once instead of at every call.
    reorder_conv2d_weight: Any = TORCH.private(torch._C._nn, "mkldnn_reorder_conv2d_weight")  # noqa: SLF001
    # Whether this CPU computes in bfloat16.
    bf16_supported: Any = TORCH.private(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")

# Operations' formulas, of which only the mode that imports torch._dynamo is public (see `gentrain.models.counting`).
flop_registry: Any = TORCH.private(torch.utils.flop_counter, "flop_registry")
_OVERLOAD = torch.ops.aten.relu.default
TORCH.private(_OVERLOAD, "_overloadpacket")
TORCH.private(_OVERLOAD, "decompose")
TORCH.private(_OVERLOAD, "is_view")


def overload_packet(operation: Any) -> Any:
    """Return the operation of an overload, as the formulas know it."""
    return operation._overloadpacket  # noqa: SLF001


def is_view(operation: Any) -> bool:
    """Return whether an operation gives another shape of the same memory."""
    return bool(operation.is_view)
