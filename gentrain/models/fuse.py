"""Fuse a folded network for a CPU: a convolution, the sum after it and its ReLU become one call of oneDNN.

oneDNN keeps the values in between in float32, where separate calls round them to bfloat16: the last bits differ.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from gentrain.models import _compat

_RELUS: tuple[Any, ...] = (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
_SUMS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add)


def fuse(network: fx.GraphModule, *, image: Tensor, dtype: torch.dtype) -> fx.GraphModule:
    """Return the traced network for evaluation on this machine's CPU, its convolutions fused with what follows them.

    Weights are stored in `dtype`, in oneDNN's layout. Where oneDNN can't compute in it, the network stays as it is.

    Args:
        network: as `fold` returns it, on the CPU.
        image: any image of the size to come, (1, 3, H, W), float32.
        dtype: float32 or bfloat16.
    """
    if not _compat.onednn_available or (dtype == torch.bfloat16 and not _compat.bf16_supported()):
        return network
    with torch.no_grad():
        ShapeProp(network).propagate(image)
    modules, graph = dict(network.named_modules()), network.graph
    calls = [node for node in graph.nodes if node.op == "call_module"]
    for node in calls:
        convolution = modules.get(str(node.target))
        if not isinstance(convolution, nn.Conv2d) or [other.target for other in calls].count(node.target) > 1:
            continue
        if convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
            continue
        if node.kwargs or not isinstance(node.args[0], fx.Node):
            continue
        last, arguments = node, node.args
        if (total := _only_user(node, _sum_of_two)) and len(node.args[0].users) == 1:  # nobody changes it meanwhile
            (other,) = (term for term in total.args if term is not node)
            if _shape(other) == _shape(node):
                last, arguments = total, (*node.args, other)
        activation = _only_user(last, lambda user: _is_relu(user, modules))
        with graph.inserting_after(last):
            fused = graph.call_module(str(node.target), arguments)
        fused.meta = node.meta  # its shape
        network.set_submodule(str(node.target), FusedConvolution(convolution, relu=activation is not None, dtype=dtype))
        for replaced in dict.fromkeys(filter(None, (activation, last, node))):
            replaced.replace_all_uses_with(fused)
            graph.erase_node(replaced)
    network.delete_all_unused_submodules()
    network.recompile()
    return network


class FusedConvolution(nn.Module):
    """Computes a frozen convolution, plus another tensor of its output's shape, then ReLU, in one call of oneDNN."""

    def __init__(self, convolution: nn.Conv2d, *, relu: bool, dtype: torch.dtype) -> None:
        super().__init__()
        at: list[Any] = [convolution.padding, convolution.stride, convolution.dilation, convolution.groups]
        self._where = at
        self._dtype = dtype
        self._activation: Any = ("relu" if relu else "none", [], "")
        packed: Any = convolution.weight.detach().to(dtype).to_mkldnn()
        self._weight = _compat.reorder_conv2d_weight(packed, *self._where)
        self._bias = None if convolution.bias is None else convolution.bias.detach().to(dtype)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Return the output in the weights' dtype of x (N, C, H, W), with `other` added to it."""
        call = _compat.convolution_pointwise
        x = self._laid_out(x)
        if other is None:
            out: Tensor = call(x, self._weight, self._bias, *self._where, *self._activation)
        else:
            terms = x, self._laid_out(other), self._weight, self._bias
            out = call.binary(*terms, *self._where, "add", 1.0, *self._activation)
        return out

    def _laid_out(self, x: Tensor) -> Tensor:
        return x.to(self._dtype).contiguous(memory_format=torch.channels_last)


def _only_user(node: fx.Node, wanted: Callable[[fx.Node], bool]) -> fx.Node | None:
    """Return the only node that uses this one's output, None where there are several or it isn't `wanted`."""
    users = list(node.users)
    return users[0] if len(users) == 1 and wanted(users[0]) else None


def _sum_of_two(node: fx.Node) -> bool:
    terms = node.args
    return (
        node.op == "call_function"
        and node.target in _SUMS
        and not node.kwargs
        and len(terms) == 2
        and all(isinstance(term, fx.Node) for term in terms)
        and terms[0] is not terms[1]
    )


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules.get(str(node.target)), nn.ReLU)
    return node.target in _RELUS


def _shape(node: Any) -> Any:
    metadata = node.meta.get("tensor_meta")
    return metadata.shape if metadata is not None else None
