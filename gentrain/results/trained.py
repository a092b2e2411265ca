"""The networks of a finished chain: a generation or an ensemble, as a torch module with its preprocessing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gentrain.data.prepare.manifest import Manifest
from gentrain.data.prepare.share import find_trained_on
from gentrain.errors import ConfigError
from gentrain.results.card import model_card, shared_settings
from gentrain.results.chain import COLUMNS, GenerationResult
from gentrain.results.evaluate import ensemble_weights, finished_results, recorded_chain
from gentrain.results.html import HEADINGS, html_facts, html_table, shown_value
from gentrain.scores.ensembles import Kind
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec
from gentrain.study.schema import Study

if TYPE_CHECKING:
    from gentrain.train.classifier import Classifier
    from gentrain.train.exported import Description


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
    results: tuple[GenerationResult, ...]
    """Of the chain's generations up to its last member."""

    @property
    def generation(self) -> int:
        """Generation of its last member."""
        return self.specs[-1].generation

    @property
    def name(self) -> str:
        """What it is, in words: its chain, and its generation or ensemble."""
        own = f"generation {self.generation}"
        return f"{self.chain}: {f'{self.kind} ensemble up to {own}' if self.kind else own}"

    def __repr__(self) -> str:
        return f"<{self.name}: top-1 error {100 * self.scores['top1_error']:.2f} %>"

    def _repr_html_(self) -> str:
        """Show in a notebook what it is and how well it does on the test images."""
        members = zip(self.specs, self.weights, strict=True)
        used = [f"M({spec.generation}) {spec.network.name} × {weight:.3f}" for spec, weight in members if weight]
        facts = {
            "study": self.study.name,
            "networks": ", ".join(used),
            **{HEADINGS[name]: shown_value(name, score) for name, score in self.scores.items()},
            "keys": " → ".join(spec.key for spec in self.lineage),
        }
        return html_facts(facts, title=self.name)

    @property
    def lineage(self) -> tuple[GenerationSpec, ...]:
        """Specs of the chain's generations up to its last member."""
        return tuple(result.finished.spec for result in self.results)

    @property
    def prefix(self) -> str:
        """What its columns of results.parquet begin with: an ensemble's kind, nothing for one generation."""
        return {None: "", "mean": "ensemble_"}.get(self.kind, f"{self.kind}_") if len(self.specs) > 1 else ""

    @property
    def scores(self) -> dict[str, float]:
        """Its scores on the test split; errors are fractions."""
        row = self.results[-1].row
        return {name: score for name in COLUMNS if (score := row[self.prefix + name]) is not None}

    @cached_property
    def manifest(self) -> Manifest:
        """The data that it was trained on: classes, image size, mean and standard deviation.

        Raises:
            ConfigError: when nothing in the run folder says it any more.
        """
        manifest = find_trained_on(self.specs[0].key, self.specs[0].data, self.store)
        if manifest is None:
            raise ConfigError(
                f"{self.store.root}/data: no prepared dataset of {self.chain}; run gentrain prepare on its study"
            )
        return manifest

    def module(self) -> Classifier:
        """Return it as a torch module on the CPU, in eval mode, with its weights verified.

        The module takes images (N, 3, H, W) or (N, H, W, 3), uint8 or floats in 0..1, normalises them as in training
        and gives scores (N, C), whose softmax are the probabilities of `classes`. It computes in float32.

        Raises:
            StoreError: when weights are missing or damaged.
            ConfigError: when nothing says what the dataset was, or a network can't be built here.
        """
        from gentrain.train.classifier import load_classifier

        keys = [spec.key for spec in self.specs]
        return load_classifier(keys, self.store, data=self.manifest, weights=self.weights)

    def export(
        self,
        folder: str | os.PathLike[str],
        *,
        preprocessing: bool = True,
        notify: Callable[[str], None] = lambda _: None,
    ) -> list[str]:
        """Write it into a folder of its own: weights, JSON, torch.export's program, ONNX, a card; return their names.

        Args:
            folder: new, empty, or an earlier model's, which is replaced.
            preprocessing: model.pt2 and model.onnx take uint8 images (N, H, W, 3), rather than normalised ones.
            notify: gets a line for a form that can't be written here, such as ONNX where onnx isn't installed.

        Raises:
            ConfigError: when the folder holds something else, or can't be written, and as `module` does.
            StoreError: when weights are missing or damaged.
        """
        from gentrain.train.exported import write_model

        description = self._description(preprocessing=preprocessing)
        card = partial(model_card, self, preprocessing=preprocessing)
        return write_model(
            Path(folder), self.module(), description, card=lambda names: card(files=names), notify=notify
        )

    def _description(self, *, preprocessing: bool) -> Description:
        from gentrain.train.exported import Ancestor, Description, Member

        data, images = self.manifest, self.study.recipe.images
        members = zip(self.specs, self.weights, strict=True)
        return Description(
            gentrain=version("gentrain"),
            study=self.study.name,
            chain=self.chain,
            generation=self.generation,
            ensemble=self.kind,
            classes=data.classes,
            height=data.height,
            width=data.width,
            mean=data.mean,
            std=data.std,
            center=images.center if images else 1.0,
            preprocessing=preprocessing,
            members=tuple(
                Member(key=spec.key, generation=spec.generation, network=spec.network.name, weight=weight)
                for spec, weight in members
                if weight
            ),
            lineage=tuple(
                Ancestor(
                    key=spec.key,
                    generation=spec.generation,
                    network=spec.network.name,
                    task=spec.model_dump(mode="json")["task"],
                )
                for spec in self.lineage
            ),
            scores=self.scores,
            settings=shared_settings(self.study),
            sha256="",
        )


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

    def _repr_html_(self) -> str:
        return html_table([result.row for result in self._results], title=self.name)

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
        results = self._results[: places[-1] + 1]
        return TrainedNetwork(self._store, self.study, self.name, specs, weights, kind, tuple(results))
