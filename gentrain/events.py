"""Define what happens during a run, as plain values that observers receive and the views show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Note:
    """Tell the user something in one line."""

    text: str
    level: Literal["info", "warning"] = "info"
    once: bool = False
    """Whether it is about the machine and not about a chain: a run shows it once, without the chain's name."""


@dataclass(frozen=True)
class ChainStarted:
    """A chain starts; `targets` are the predicted primary scores by generation, None where they aren't known."""

    chain: str
    epochs: int
    targets: tuple[float | None, ...]
    keys: tuple[str, ...]
    runs: str
    teachers: tuple[tuple[int, ...], ...] = ()
    """By generation: those of the chain that teach it; none of a patriarch."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The chain's own, by their dotted names."""
    epochs_by_generation: tuple[int, ...] = ()
    """Where they differ from `epochs`."""


@dataclass(frozen=True)
class TargetsKnown:
    """The pretrained networks of a chain have been measured, so the primary scores after them can be predicted.

    `targets` has None where there is no prediction (temperatures other than 1).
    """

    targets: tuple[float | None, ...]


@dataclass(frozen=True)
class ChainSaturated:
    """The chain stops early after `generation`: its held-out error no longer improves (`patience`)."""

    chain: str
    generation: int


@dataclass(frozen=True)
class GenerationWaiting:
    """A generation waits: another process trains it, or no device is free."""

    generation: int
    key: str
    holder: str = ""
    """Who trains it, and since when; empty where that isn't known."""


@dataclass(frozen=True)
class GenerationQueued:
    """A generation is next: its workers are being started."""

    generation: int


@dataclass(frozen=True)
class Compiling:
    """A generation's network is being compiled for the first time on this machine, which takes a while."""

    generation: int
    key: str


@dataclass(frozen=True)
class GenerationStarted:
    """Training of a generation starts, or resumes after `epoch` finished epochs."""

    generation: int
    key: str
    epoch: int


@dataclass(frozen=True)
class Progress:
    """Report within an epoch: means over rank 0's samples since the epoch's start; images are those of all workers."""

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
    """An epoch has ended; `row` is its row of epochs.parquet."""

    generation: int
    row: Mapping[str, Any]


@dataclass(frozen=True)
class GenerationDone:
    """A generation is finished; `row` is its row of results.parquet. `reused`: it was finished before this run."""

    generation: int
    row: Mapping[str, Any]
    reused: bool


@dataclass(frozen=True)
class InChain:
    """Wrap an event of one of a sweep's chains."""

    chain: str
    event: Event


@dataclass(frozen=True)
class SweepStarted:
    """A sweep starts; `chains` holds the keys of the generations by chain name."""

    name: str
    epochs: int
    chains: Mapping[str, tuple[str, ...]]
    runs: str
    epochs_by_key: Mapping[str, int] = field(default_factory=dict)
    """Of generations with other epochs than `epochs`."""


@dataclass(frozen=True)
class FinishedBefore:
    """Generations of a sweep's unfinished chains were finished before it started: their top-1 errors, by key."""

    errors: Mapping[str, float]


@dataclass(frozen=True)
class CapacityChanged:
    """The number of trainings that the cluster's devices can run at once has changed."""

    slots: int


Event = (
    Note
    | ChainStarted
    | TargetsKnown
    | ChainSaturated
    | GenerationWaiting
    | GenerationQueued
    | Compiling
    | GenerationStarted
    | Progress
    | EpochDone
    | GenerationDone
    | InChain
    | SweepStarted
    | FinishedBefore
    | CapacityChanged
)
Observer = Callable[[Event], None]
