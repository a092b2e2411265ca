"""What a runner tells its workers; light to import, so that Ray's helper processes don't load torch for it."""

from __future__ import annotations

from dataclasses import dataclass

from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec


@dataclass(frozen=True)
class Job:
    """One generation to train: all else is read from the store."""

    spec: GenerationSpec
    store: RunStore
    data: str
    """Name of the prepared dataset (see `gentrain.data.prepare.share`)."""
    token: str
    """Of the claim (`GenerationFolder.claim`): a worker whose token is no longer the folder's stops."""
    evaluate_every: int
    memory_efficient: bool = False
    weights_done: bool = False
    """The weights are finished and sound; only predictions have to be made again."""
