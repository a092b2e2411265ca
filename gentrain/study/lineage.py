"""From a study to its generations: what determines a network's weights, and the key that names it.

A key is the hash of exactly that: data, network, recipe, precision, compilation, seed, task, teacher. Devices, workers,
paths and names are not part of it, so that a run that moves or gets more GPUs doesn't start over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gentrain.errors import ConfigError
from gentrain.models.registry import label
from gentrain.study.process import Mass, Process, Teacher, predicted_energies
from gentrain.study.schema import Study
from gentrain.study.sections import RecipeConfig

METHOD_VERSION = 1
"""Bumped by hand, with a changelog line, whenever the code changes the numbers that a generation ends in."""

SHORT = 8
"""Hex digits by which a given network is named."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MassSpec(_Frozen):
    """Eq. (3) with K by sample or by class; the η of each follows from the aim."""

    f_a1: float
    mass: float
    by: Literal["sample", "class"]
    most: int


class PatriarchSpec(_Frozen):
    """Eq. (3): η, and K where η > 0 (plain cross-entropy has no secondary classes); or K by mass."""

    kind: Literal["patriarch"] = "patriarch"
    eta: float | None
    k: int | None
    mass: MassSpec | None = None


class StudentSpec(_Frozen):
    """Eq. (4): λ and the temperature; `teacher` is the teacher's key."""

    kind: Literal["student"] = "student"
    lam: float
    temperature: float
    teacher: str
    teacher_pass: Literal["exact", "folded"] = "exact"
    members: tuple[str, ...] = ()
    """Of an ensemble of several as teacher: all their keys, in order; `teacher` is the last."""

    @property
    def teachers(self) -> tuple[str, ...]:
        """Keys of all networks that teach."""
        return self.members or (self.teacher,)


class GivenSpec(_Frozen):
    """A network that was trained elsewhere: the sha256 of its weights as the store would write them."""

    kind: Literal["given"] = "given"
    sha256: str


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
    precision: Literal["bf16", "fp32", "tf32"]
    compile: bool = False
    sync_batchnorm: bool
    seed: int
    generation: int
    task: Annotated[PatriarchSpec | StudentSpec | GivenSpec, Field(discriminator="kind")]

    @classmethod
    def parse(cls, content: bytes | None, *, key: str) -> Self | None:
        """Return the spec that a file `spec.json` holds; None if it is missing, damaged or another generation's."""
        if content is None:
            return None
        try:
            spec = cls.model_validate_json(content)
        except ValidationError:
            return None
        return spec if spec.key == key else None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields replaced; its key is computed from its own fields."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("key", None)  # pydantic copies cached values too
        return copied

    @cached_property
    def key(self) -> str:
        """16 hex digits of the sha256 of the canonical JSON, without settings that were added later and aren't used."""
        identity = self.model_dump(mode="json")
        if self.recipe.pictures is None:
            del identity["recipe"]["pictures"]
        if not self.compile:
            del identity["compile"]
        for later in ("mass", "members"):
            if not identity["task"].get(later):
                identity["task"].pop(later, None)
        if identity["task"].get("teacher_pass") == "exact":
            del identity["task"]["teacher_pass"]
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def teacher(self) -> str | None:
        """Key of the teacher, None for a patriarch; the last one's of an ensemble, which has the others for its own."""
        return self.task.teacher if isinstance(self.task, StudentSpec) else None

    @property
    def given(self) -> bool:
        """Whether it is only evaluated, never trained."""
        return isinstance(self.task, GivenSpec)

    @property
    def work(self) -> str:
        """What a step of its training does, in a word or two: patriarch, student, student of 3, given."""
        several = isinstance(self.task, StudentSpec) and len(self.task.members)
        return f"{self.task.kind} of {several}" if several else self.task.kind


class Chain(_Frozen):
    """One chain D(f_a1, λ): its generations in order, each the next one's teacher."""

    name: str
    settings: Study
    """The study of this chain alone: the grid's point, without a grid."""
    f_a1: float | None
    """None where the first generations are given."""
    given: int
    """How many are."""
    weights: tuple[float, ...]
    """λ of each student after those that learn from none."""
    teacher: Teacher
    specs: tuple[GenerationSpec, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Its generations' keys, in order."""
        return tuple(spec.key for spec in self.specs)

    @property
    def targets(self) -> tuple[float | None, ...]:
        """Predicted primary score w_g of each generation; None where it takes a measurement of given networks."""
        return (None,) * len(self.specs) if self.given else self.targets_from(())

    def targets_from(self, measured: Sequence[float]) -> tuple[float, ...]:
        """Return w_g of each generation, from the measured primary scores of the given ones, which are their own w."""
        start = measured if self.given else (self.f_a1 or 0.0,)
        return predicted_energies(start, self.weights, teacher=self.teacher)


Resolve = Callable[[Study], tuple[GenerationSpec, ...]]
"""Finds what a study's given networks are; see `gentrain.run.pretrained`."""


def _nothing_given(study: Study) -> tuple[GenerationSpec, ...]:
    assert not study.given, "given networks must be resolved"
    return ()


def build_chain(study: Study, *, data: str, num_classes: int, resolve: Resolve = _nothing_given) -> Chain:
    """Return the study's chain over the dataset of fingerprint `data`.

    Raises:
        ConfigError: when K exceeds the number of classes.
    """
    if study.process.most_classes > num_classes:
        raise ConfigError(
            f"process.k: {study.process.k} is more than the dataset's {num_classes} classes; lower process.k"
        )
    process = study.process.process
    specs = list(resolve(study))
    given = len(specs)
    weights = process.weights(study.students)[max(0, given - 1) :]
    tasks = [None, *weights] if not given else list(weights)
    for lam in tasks:
        task = (
            _patriarch(process, num_classes)
            if lam is None
            else _student(process, lam, teachers=tuple(s.key for s in specs), teacher_pass=study.teacher_pass)
        )
        generation = len(specs)
        specs.append(
            GenerationSpec(
                data=data,
                num_classes=num_classes,
                network=NetworkSpec(name=study.network.of(generation)),
                recipe=study.recipe,
                precision=study.precision,
                compile=study.compile,
                sync_batchnorm=study.sync_batchnorm,
                seed=study.seed,
                generation=generation,
                task=task,
            )
        )
    networks: Sequence[str | None] = (study.network.name, study.network.students)
    start = process.label
    if given:
        networks = tuple(dict.fromkeys(spec.network.name for spec in specs))
        start = process.label_from(_given_label(specs[:given]))
    labels = "-".join(label(name) for name in networks if name)
    return Chain(
        name=f"{start}-{labels}-s{study.seed}",
        settings=study,
        f_a1=None if given else process.f_a1,
        given=given,
        weights=weights,
        teacher=process.teacher,
        specs=tuple(specs),
    )


def _patriarch(process: Process, num_classes: int) -> PatriarchSpec:
    k = process.k
    if isinstance(k, Mass):
        if process.eta == 0:
            return PatriarchSpec(eta=0.0, k=None)
        most = min(k.most, num_classes)
        return PatriarchSpec(eta=None, k=None, mass=MassSpec(f_a1=process.f_a1, mass=k.mass, by=k.by, most=most))
    return PatriarchSpec(eta=process.eta, k=k if process.eta else None)


def _student(
    process: Process, lam: float, *, teachers: tuple[str, ...], teacher_pass: Literal["exact", "folded"]
) -> StudentSpec:
    return StudentSpec(
        lam=lam,
        temperature=process.temperature,
        teacher=teachers[-1],
        teacher_pass=teacher_pass,
        members=teachers if process.teacher == "ensemble" and len(teachers) > 1 else (),
    )


def _given_label(specs: Sequence[GenerationSpec]) -> str:
    """Return "given-" and eight hex digits of the network, of all of them where they are several, with their number."""
    names = [spec.task.sha256 if isinstance(spec.task, GivenSpec) else spec.key for spec in specs]
    if len(names) == 1:
        return f"given-{names[0][:SHORT]}"
    return f"given{len(names)}-{hashlib.sha256(' '.join(names).encode()).hexdigest()[:SHORT]}"


@dataclass(frozen=True)
class Forest:
    """The distinct generations of many chains: each is trained once, whoever wants it."""

    chains: tuple[Chain, ...]

    @cached_property
    def specs(self) -> dict[str, GenerationSpec]:
        """Every distinct generation by key, teachers before their students."""
        every = [(place, spec) for chain in self.chains for place, spec in enumerate(chain.specs)]
        return {spec.key: spec for _, spec in sorted(every, key=lambda item: item[0])}

    @cached_property
    def trainings(self) -> frozenset[str]:
        """Keys of the distinct generations that this study trains; given ones are only evaluated."""
        return frozenset(key for chain in self.chains for key in chain.keys[chain.given :])

    @cached_property
    def wanted(self) -> int:
        """Generations counted once a chain: what would be trained without sharing."""
        return sum(len(chain.specs) - chain.given for chain in self.chains)

    @cached_property
    def wanted_by(self) -> dict[str, tuple[str, ...]]:
        """Names of the chains that need each generation, by key."""
        found: dict[str, list[str]] = {key: [] for key in self.specs}
        for chain in self.chains:
            for spec in chain.specs:
                found[spec.key].append(chain.name)
        return {key: tuple(names) for key, names in found.items()}


def build_forest(study: Study, *, data: str, num_classes: int, resolve: Resolve = _nothing_given) -> Forest:
    """Return the forest of the study's whole grid over the dataset of fingerprint `data`.

    Raises:
        ConfigError: when K exceeds the number of classes, or two different points have one name.
    """
    chains = tuple(build_chain(point, data=data, num_classes=num_classes, resolve=resolve) for point in study.points())
    names = [chain.name for chain in chains]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"grid: two different points are named {twice[0]}; run them in studies of their own")
    return Forest(chains)
