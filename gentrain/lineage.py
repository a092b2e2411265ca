"""From a study to its generations: what determines a network's weights, and the key that names it.

A key is the hash of exactly that: data, network, recipe, precision, seed, task, teacher. Devices, workers, paths and
names are not part of it, so that a run that moves or gets more GPUs doesn't start over.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gentrain import METHOD_VERSION
from gentrain.config import RecipeConfig, Study
from gentrain.errors import ConfigError
from gentrain.models import label
from gentrain.process import Process


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PatriarchSpec(_Frozen):
    """Eq. (3): η, and K where η > 0 (plain cross-entropy has no secondary classes)."""

    kind: Literal["patriarch"] = "patriarch"
    eta: float
    k: int | None


class StudentSpec(_Frozen):
    """Eq. (4): λ and the temperature; `teacher` is the teacher's key."""

    kind: Literal["student"] = "student"
    lam: float
    temperature: float
    teacher: str
    teacher_pass: Literal["exact", "folded"] = "exact"


class NetworkSpec(_Frozen):
    """What of the network's settings changes the result: its name."""

    name: str


class GenerationSpec(_Frozen):
    """All that determines one generation's weights and predictions."""

    method: int = METHOD_VERSION
    data: str
    num_classes: int
    network: NetworkSpec
    recipe: RecipeConfig
    precision: Literal["bf16", "fp32"]
    sync_batchnorm: bool
    seed: int
    generation: int
    task: Annotated[PatriarchSpec | StudentSpec, Field(discriminator="kind")]

    @property
    def key(self) -> str:
        """16 hex digits of the sha256 of the canonical JSON, without settings that were added later and aren't used."""
        identity = self.model_dump(mode="json")
        if self.recipe.pictures is None:
            del identity["recipe"]["pictures"]
        if identity["task"].get("teacher_pass") == "exact":
            del identity["task"]["teacher_pass"]
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def teacher(self) -> str | None:
        """Key of the teacher, None for a patriarch."""
        return self.task.teacher if isinstance(self.task, StudentSpec) else None


class Chain(_Frozen):
    """One chain D(f_a1, λ): its generations in order, each the next one's teacher."""

    name: str
    f_a1: float
    lam: float | tuple[float, ...]
    k: int
    specs: tuple[GenerationSpec, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Its generations' keys, in order."""
        return tuple(spec.key for spec in self.specs)

    @property
    def targets(self) -> tuple[float, ...]:
        """Predicted primary score w_g of each generation."""
        process = Process(self.f_a1, self.lam, k=self.k)
        return tuple(process.predicted_primary(g) for g in range(len(self.specs)))


def build_chain(study: Study, *, data: str, num_classes: int) -> Chain:
    """Return the study's chain over the dataset of fingerprint `data`.

    Raises:
        ConfigError: when K exceeds the number of classes.
    """
    settings = study.process
    if settings.k > num_classes:
        raise ConfigError(f"process.k: {settings.k} is more than the dataset's {num_classes} classes; lower process.k")
    process = Process(settings.f_a1, settings.lam, k=settings.k, temperature=settings.temperature)
    specs: list[GenerationSpec] = []
    for generation in range(study.students + 1):
        task: PatriarchSpec | StudentSpec
        if generation == 0:
            task = PatriarchSpec(eta=process.eta, k=settings.k if process.eta > 0 else None)
        else:
            task = StudentSpec(
                lam=process.lam_at(generation),
                temperature=settings.temperature,
                teacher=specs[-1].key,
                teacher_pass=study.teacher_pass,
            )
        specs.append(
            GenerationSpec(
                data=data,
                num_classes=num_classes,
                network=NetworkSpec(name=study.network.of(generation)),
                recipe=study.recipe,
                precision=study.precision,
                sync_batchnorm=study.sync_batchnorm,
                seed=study.seed,
                generation=generation,
                task=task,
            )
        )
    networks = "-".join(label(name) for name in (study.network.name, study.network.students) if name)
    name = f"{process.label}-{networks}-s{study.seed}"
    return Chain(name=name, f_a1=settings.f_a1, lam=settings.lam, k=settings.k, specs=tuple(specs))


@dataclass(frozen=True)
class Forest:
    """The distinct generations of many chains: each is trained once, whoever wants it."""

    chains: tuple[Chain, ...]

    @cached_property
    def specs(self) -> dict[str, GenerationSpec]:
        """Every distinct generation by key, teachers before their students."""
        every = {spec.key: spec for chain in self.chains for spec in chain.specs}
        return dict(sorted(every.items(), key=lambda item: item[1].generation))

    @cached_property
    def wanted(self) -> int:
        """Generations counted once a chain: what would be trained without sharing."""
        return sum(len(chain.specs) for chain in self.chains)

    @cached_property
    def wanted_by(self) -> dict[str, tuple[str, ...]]:
        """Names of the chains that need each generation, by key."""
        found: dict[str, list[str]] = {key: [] for key in self.specs}
        for chain in self.chains:
            for spec in chain.specs:
                found[spec.key].append(chain.name)
        return {key: tuple(names) for key, names in found.items()}


def build_forest(study: Study, *, data: str, num_classes: int) -> Forest:
    """Return the forest of the study's whole grid over the dataset of fingerprint `data`.

    Raises:
        ConfigError: when K exceeds the number of classes, or two different points have one name.
    """
    chains = tuple(build_chain(point, data=data, num_classes=num_classes) for point in study.points())
    names = [chain.name for chain in chains]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"grid: two different points are named {twice[0]}; run them in studies of their own")
    return Forest(chains)
