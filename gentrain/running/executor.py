"""What brings chains to their end: the interface of Ray's executor and of the one in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gentrain.errors import GentrainError
from gentrain.events import Observer
from gentrain.store.run import RunStore
from gentrain.study.lineage import Chain
from gentrain.study.schema import Study


@dataclass(frozen=True)
class Outcome:
    """How chains ended, by their names; those in neither are finished, or the run was interrupted."""

    failed: Mapping[str, GentrainError]
    """Chains that can't be finished, with what stopped them."""
    stopped: frozenset[str]
    """Chains that the scheduler across chains ended early."""
    interrupted: bool
    """Whether some chains neither finished nor failed nor were stopped: Ctrl-C."""


class Executor(Protocol):
    """Brings chains to their end: on Ray, or in this process."""

    here: bool
    """Whether it trains on this machine."""
    concurrent: bool
    """Whether several chains are trained at the same time."""

    def check(self, study: Study) -> None:
        """Raise ResourceError at once where the study can never run here."""

    def run(
        self,
        chains: Sequence[Chain],
        *,
        store: RunStore,
        data: str,
        urgencies: Mapping[str, float],
        observe: Observer,
    ) -> Outcome:
        """Run the chains in the order given.

        Args:
            chains: those that aren't finished.
            store: where generations are.
            data: name of the prepared dataset.
            urgencies: of every generation, by key: the work that waits for it.
            observe: called with every event.
        """
