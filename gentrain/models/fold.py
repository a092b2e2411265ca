"""Fold a frozen network: BatchNorms that follow a convolution become part of its weights.

The function stays the same, its rounding doesn't: the logits differ in their last bits (docs/performance.md).
"""

from __future__ import annotations

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold(model: nn.Module) -> fx.GraphModule:
    """Return the network for evaluation with every BatchNorm that only a convolution feeds folded into it.

    A BatchNorm before a convolution (DenseNet's order) can't be folded where a ReLU stands between them; it stays.

    Raises:
        ValueError: when the network's forward can't be traced, because it decides by its input's values.
    """
    try:
        traced = fx.symbolic_trace(model.eval())
    except (fx.proxy.TraceError, TypeError) as error:
        raise ValueError(f"{type(model).__name__}'s forward can't be traced: {error}") from error
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(before := node.args[0], fx.Node):
            continue
        convolution = modules.get(str(before.target)) if before.op == "call_module" else None
        called = [other for other in traced.graph.nodes if other.op == "call_module" and other.target == before.target]
        if isinstance(convolution, nn.Conv2d) and len(before.users) == 1 and len(called) == 1:
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
