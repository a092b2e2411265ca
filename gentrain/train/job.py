"""Describe a training to its workers; light to import, so that Ray's helper processes don't load torch for it."""

from __future__ import annotations

from dataclasses import dataclass

from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec


@dataclass(frozen=True)
class Job:
    """Names one generation to train; workers read everything else from the store."""

    spec: GenerationSpec
    store: RunStore
    data: str
    """Name of the prepared dataset (see `gentrain.data.prepare.share`)."""
    token: str
    """Of the claim under which it is trained (`gentrain.store.claims`): a worker stops when another has the claim."""
    evaluate_every: int
    memory_efficient: bool = False
    auto_compile: bool = False
    """Whether it is compiled where that pays (`compile: auto`); `spec.compile` says that it is compiled anyway."""
    weights_done: bool = False
    """Whether the weights are finished and valid, so that only predictions have to be computed again."""
