"""What a network takes of disk and memory: bytes of its weights, and of what a training step keeps for one image.

The registered networks' bytes are in a table, so that a plan needs no torch; a test holds the table equal to what torch
counts. What a step keeps is what autograd saves for the backward pass, in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gentrain.errors import first_line
from gentrain.models.registry import build_model


@dataclass(frozen=True)
class NetworkBytes:
    """Bytes of a network."""

    weights: int
    """Of its file: parameters and buffers."""
    parameters: int
    """Of the parameters alone: as much again take the gradients, and what an optimiser keeps of each."""
    kept: int
    """Of what a training step keeps for one image."""


BODIES: dict[str, tuple[int, int, int, float]] = {
    "resnet8": (64, 300_536, 298_560, 615.4),
    "resnet14": (64, 691_240, 687_424, 1065.1),
    "resnet20": (64, 1_081_944, 1_076_288, 1514.9),
    "resnet32": (64, 1_863_352, 1_854_016, 2414.4),
    "resnet44": (64, 2_644_760, 2_631_744, 3313.9),
    "resnet56": (64, 3_426_168, 3_409_472, 4213.4),
    "resnet74": (64, 4_598_280, 4_576_064, 5562.6),
    "resnet92": (64, 5_770_392, 5_742_656, 6911.9),
    "resnet110": (64, 6_942_504, 6_909_248, 8261.1),
    "resnet8-strided": (64, 300_536, 298_560, 591.4),
    "resnet14-strided": (64, 691_240, 687_424, 1041.1),
    "resnet20-strided": (64, 1_081_944, 1_076_288, 1490.9),
    "resnet32-strided": (64, 1_863_352, 1_854_016, 2390.4),
    "resnet44-strided": (64, 2_644_760, 2_631_744, 3289.9),
    "resnet56-strided": (64, 3_426_168, 3_409_472, 4189.4),
    "resnet74-strided": (64, 4_598_280, 4_576_064, 5538.6),
    "resnet92-strided": (64, 5_770_392, 5_742_656, 6887.9),
    "resnet110-strided": (64, 6_942_504, 6_909_248, 8237.1),
    "densenet100": (342, 3_159_672, 3_062_928, 34106.7),
    "densenet190": (2190, 103_439_432, 102_410_080, 342977.1),
    "resnet18": (512, 44_042_120, 44_010_752, 449.9),
    "resnet18-strided": (512, 44_744_608, 44_706_048, 443.0),
}
"""By name: features of the last layer, bytes of weights and of parameters before it, bytes kept for a pixel."""


def network_bytes(
    name: str, *, num_classes: int, height: int, width: int, memory_efficient: bool = False
) -> NetworkBytes:
    """Return the bytes of a network for C classes and images of this size; torch counts those not in the table.

    Raises:
        ValueError: when it can't be built, or doesn't take such images.
    """
    if name not in BODIES or memory_efficient:
        try:
            return count_bytes(
                name, num_classes=num_classes, height=height, width=width, memory_efficient=memory_efficient
            )
        except Exception as error:  # a network from elsewhere raises whatever it likes
            raise ValueError(f"network {name!r} can't be counted: {first_line(error)}") from None
    features, weights, parameters, kept = BODIES[name]
    last = 4 * (features + 1) * num_classes
    return NetworkBytes(weights + last, parameters + last, round(kept * height * width))


def count_bytes(
    name: str, *, num_classes: int, height: int, width: int, memory_efficient: bool = False
) -> NetworkBytes:
    """Return what torch counts, without computing or allocating anything."""
    import torch

    from gentrain.models.cost import without_memory

    images = 2  # BatchNorm takes no statistics of one pixel of one image
    saved: dict[int, tuple[Any, int]] = {}

    def keep(tensor: Any) -> Any:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            saved[storage._cdata] = storage, storage.nbytes()  # noqa: SLF001 - held, so that no other takes its place
        return tensor

    with without_memory():
        model = build_model(name, num_classes=num_classes, memory_efficient=memory_efficient).train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(torch.zeros(images, 3, height, width))
    state = model.state_dict().values()
    return NetworkBytes(
        sum(tensor.numel() * tensor.element_size() for tensor in state),
        sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
        sum(count for _, count in saved.values()) // images,
    )
