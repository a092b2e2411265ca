"""The networks of a finished chain: a generation or an ensemble, as a torch module with its preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from gentrain.data.prepare.manifest import Manifest
from gentrain.data.prepare.share import find_shared
from gentrain.errors import ConfigError
from gentrain.results.chain import GenerationResult
from gentrain.results.evaluate import ensemble_weights, finished_results, recorded_chain
from gentrain.scores.ensembles import Kind
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec
from gentrain.study.schema import Study

if TYPE_CHECKING:
    from gentrain.train.classifier import Classifier


@dataclass(frozen=True)
class TrainedNetwork:
    """A finished generation of a chain, or an ensemble of its generations."""

    store: RunStore
    study: Study
    """The chain's own, as its last run resolved it."""
    chain: str
    specs: tuple[GenerationSpec, ...]
    """Of its members, by generation."""
    weights: tuple[float, ...]
    """Of its members' probabilities; their sum is 1."""
    kind: Kind | None
    """Of the ensemble; None for one generation."""

    @property
    def generation(self) -> int:
        """Generation of its last member."""
        return self.specs[-1].generation

    @cached_property
    def manifest(self) -> Manifest:
        """The data that it was trained on: classes, image size, mean and standard deviation.

        Raises:
            ConfigError: when that dataset is no longer in the run folder.
        """
        prepared = find_shared(self.specs[0].data, self.store)
        if prepared is None:
            raise ConfigError(
                f"{self.store.root}/data: no prepared dataset of {self.chain}; run gentrain prepare on its study"
            )
        return prepared[1]

    def module(self) -> Classifier:
        """Return it as a torch module on the CPU, in eval mode, with its weights verified.

        The module takes images (N, 3, H, W) or (N, H, W, 3), uint8 or floats in 0..1, normalises them as in training
        and gives scores (N, C), whose softmax are the probabilities of `classes`. It computes in float32.

        Raises:
            StoreError: when weights are missing or damaged.
            ConfigError: when the dataset is no longer there, or a network can't be built here.
        """
        from gentrain.train.classifier import load_classifier

        keys = [spec.key for spec in self.specs]
        return load_classifier(keys, self.store, manifest=self.manifest, weights=self.weights)


class TrainedChain:
    """The finished generations of one chain.

    Args:
        store: the run folder.
        study: name of the study.
        chain: name of the chain; by default the study's only one.

    Raises:
        ConfigError: when there is no such chain, or no generation of it is finished.
        StoreError: when a record or a finished generation is damaged.
    """

    def __init__(self, store: RunStore, study: str, chain: str | None = None) -> None:
        self._store = store
        recorded = recorded_chain(store, study, chain)
        self.name, self.study = recorded.name, recorded.settings
        self._results: Sequence[GenerationResult] = finished_results(store, study, recorded)

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        return f"<chain {self.name}: {len(self)} generations finished>"

    def generation(self, generation: int) -> TrainedNetwork:
        """Return a finished generation: 0 is the patriarch, -1 the last.

        Raises:
            ConfigError: when it isn't finished.
        """
        last = self._place(generation)
        return self._network([last], weights=(1.0,), kind=None)

    def ensemble(self, kind: Kind = "mean", *, generation: int = -1) -> TrainedNetwork:
        """Return the ensemble of generations 0 to `generation`.

        Args:
            kind: mean of the probabilities; weighted or selected on the held-out split.
            generation: its last one; by default the last that is finished.

        Raises:
            ConfigError: when the generation isn't finished, or there is no held-out split to weight or select on.
        """
        if kind not in ("mean", "weighted", "selected"):
            raise ConfigError(f"ensemble {kind!r}: choose mean, weighted or selected")
        last = self._place(generation)
        weights = ensemble_weights(self.name, self._results[: last + 1], kind)
        return self._network(range(last + 1), weights=tuple(weights.tolist()), kind=kind)

    def _place(self, generation: int) -> int:
        if not -len(self) <= generation < len(self):
            raise ConfigError(f"generation {generation}: {self.name} has generations 0 to {len(self) - 1} finished")
        return generation % len(self)

    def _network(self, places: Sequence[int], *, weights: tuple[float, ...], kind: Kind | None) -> TrainedNetwork:
        specs = tuple(self._results[place].finished.spec for place in places)
        return TrainedNetwork(self._store, self.study, self.name, specs, weights, kind)
