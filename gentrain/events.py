"""What happens during a chain, as plain values; the views show them, nothing depends on how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Note:
    """One line for the user."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True)
class ChainStarted:
    """A chain begins; `targets` are the predicted primary scores by generation, None before `TargetsKnown`."""

    chain: str
    epochs: int
    targets: tuple[float | None, ...]
    keys: tuple[str, ...]
    runs: str


@dataclass(frozen=True)
class TargetsKnown:
    """The given networks that a chain begins with were measured, so the theory predicts what follows."""

    targets: tuple[float, ...]


@dataclass(frozen=True)
class ChainSaturated:
    """The chain ends early, after `generation`: its held-out error got no better (`patience`)."""

    chain: str
    generation: int


@dataclass(frozen=True)
class GenerationWaiting:
    """A generation is being trained by another, or no device is free for it."""

    generation: int
    key: str


@dataclass(frozen=True)
class GenerationQueued:
    """A generation is about to be trained: its workers are being started."""

    generation: int


@dataclass(frozen=True)
class GenerationStarted:
    """Training of a generation begins (or goes on after `epoch` finished epochs)."""

    generation: int
    key: str
    epoch: int


@dataclass(frozen=True)
class Progress:
    """Within an epoch: means since its first step, of rank 0's share; images are counted over all workers."""

    generation: int
    epoch: int
    images: int
    total_images: int
    images_per_second: float
    loss: float
    hard: float
    soft: float
    primary: float
    train_error: float


@dataclass(frozen=True)
class EpochDone:
    """An epoch's row of epochs.parquet."""

    generation: int
    row: Mapping[str, Any]


@dataclass(frozen=True)
class GenerationDone:
    """A generation's row of results.parquet; `reused` when it was found finished in the store."""

    generation: int
    row: Mapping[str, Any]
    reused: bool


@dataclass(frozen=True)
class InChain:
    """What happened in one of a sweep's chains."""

    chain: str
    event: Event


@dataclass(frozen=True)
class SweepStarted:
    """A sweep begins: the keys of its chains' generations, by the chains' names."""

    name: str
    epochs: int
    chains: Mapping[str, tuple[str, ...]]
    runs: str


@dataclass(frozen=True)
class CapacityChanged:
    """The cluster's devices hold so many trainings at once."""

    slots: int


Event = (
    Note
    | ChainStarted
    | TargetsKnown
    | ChainSaturated
    | GenerationWaiting
    | GenerationQueued
    | GenerationStarted
    | Progress
    | EpochDone
    | GenerationDone
    | InChain
    | SweepStarted
    | CapacityChanged
)
Observer = Callable[[Event], None]
