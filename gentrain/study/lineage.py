"""From a study to its generations: what determines a network's weights, and the key that names it.

A key is the hash of exactly that: data, network, recipe, precision, compilation, seed, task, teacher. Devices, workers,
paths and names are not part of it, so that a run that moves or gets more GPUs doesn't start over.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_serializer, model_validator

from gentrain.errors import ConfigError, shown
from gentrain.models.registry import label
from gentrain.study.losses import KL
from gentrain.study.process import predicted_energies
from gentrain.study.schema import Study
from gentrain.study.sections import RecipeConfig
from gentrain.study.settings import Later, current_form, stored_form
from gentrain.study.tasks import (
    Frozen,
    PatriarchSpec,
    PretrainedSpec,
    StudentSpec,
    patriarch_recipe,
    patriarch_spec,
    student_spec,
)

METHOD_VERSION = 1
"""Bumped by hand, with a changelog line, whenever the code changes the numbers that a generation ends in."""

LONGEST_NAME = 200
"""Most characters of a chain's name, which is the name of its record with `.json`, and of a temporary file for it."""
SHORT = 8
"""Hex digits by which a pretrained network is named."""


class NetworkSpec(Frozen):
    """What of the network's settings changes the result: its name."""

    name: str


class GenerationSpec(Frozen):
    """All that determines one generation's weights and predictions."""

    method: int = METHOD_VERSION
    data: str
    num_classes: int
    network: NetworkSpec
    recipe: RecipeConfig
    precision: Literal["bf16", "fp32", "tf32"]
    compile: Annotated[bool, Later(False)] = False
    sync_batchnorm: bool
    seed: int
    generation: int
    task: Annotated[PatriarchSpec | StudentSpec | PretrainedSpec, Field(discriminator="kind")]

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
        canonical = json.dumps(stored_form(self, hashed=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @model_validator(mode="before")
    @classmethod
    def _of_stored(cls, value: Any) -> Any:
        stored = isinstance(value, Mapping) and not isinstance(value.get("recipe"), BaseModel)  # else it is built here
        return current_form(cls, value) if stored else value

    @model_serializer
    def _stored(self) -> dict[str, Any]:
        return stored_form(self)

    @property
    def teacher(self) -> str | None:
        """Key of the teacher, None for a patriarch; the last one's of an ensemble, which has the others for its own."""
        return self.task.teacher if isinstance(self.task, StudentSpec) else None

    @property
    def pretrained(self) -> bool:
        """Whether it is only evaluated, never trained."""
        return isinstance(self.task, PretrainedSpec)

    @property
    def work(self) -> str:
        """What a step of its training does, in a word or two: patriarch, student, student of 3, pretrained."""
        if self.pretrained:
            return "pretrained"
        if isinstance(self.task, PatriarchSpec) and self.task.loss and self.task.teaches_itself:
            return f"patriarch by {self.task.loss.name}"
        several = isinstance(self.task, StudentSpec) and len(self.task.members)
        return f"{self.task.kind} of {several}" if several else self.task.kind


class Chain(Frozen):
    """One chain D(f_a1, λ): its generations in order, each the next one's teacher."""

    name: str
    settings: Study
    """The study of this chain alone: the grid's point, without a grid."""
    specs: tuple[GenerationSpec, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Its generations' keys, in order."""
        return tuple(spec.key for spec in self.specs)

    @property
    def pretrained(self) -> int:
        """How many of its first generations are pretrained networks."""
        return len(self.settings.pretrained)


def predicted_scores(settings: Study, measured: Sequence[float]) -> tuple[float | None, ...]:
    """Return the predicted primary score w_g of each generation of a chain.

    The closed form for students is that of the paper's loss: with another, another temperature than 1, smoothed or
    mixed labels, there is none, so theirs is None. A patriarch of the user's own, or of mixed labels, has none either.

    Args:
        settings: of the chain.
        measured: primary scores of its pretrained networks, in order, as far as they are known; the prediction starts
            from them, so it is None for all after them until every one is known.
    """
    process, pretrained = settings.process, len(settings.pretrained)
    weights = process.weights(settings.students)[max(0, pretrained - 1) :]
    recipe = settings.recipe
    plain = isinstance(process.student, KL) and not recipe.label_smoothing and not recipe.mixes
    start = measured[:pretrained] if pretrained else () if process.aim is None or recipe.mixes else (process.aim,)
    if len(start) < max(1, pretrained) or process.temperature != 1 or not plain:
        return (*start, *[None] * (max(1, pretrained) - len(start) + len(weights)))
    last = process.teacher_of(last=True)
    return predicted_energies(start, weights, teacher=process.teacher, last=last)


Resolve = Callable[[Study], tuple[GenerationSpec, ...]]
"""Returns the specs of a study's pretrained networks; see `gentrain.running.pretrained`."""


def _none_pretrained(study: Study) -> tuple[GenerationSpec, ...]:
    assert not study.pretrained, "pretrained networks must be resolved"
    return ()


def build_chain(
    study: Study,
    *,
    data: str,
    num_classes: int,
    resolve: Resolve = _none_pretrained,
    shared: dict[GenerationSpec, GenerationSpec] | None = None,
) -> Chain:
    """Return the study's chain over the dataset of fingerprint `data`.

    Args:
        study: without a grid.
        data: fingerprint of the dataset.
        num_classes: C.
        resolve: returns the specs of pretrained networks.
        shared: specs of other chains, which equal ones are replaced by: a spec then computes its key once.

    Raises:
        ConfigError: when K exceeds the number of classes, or the aim is too low for so few.
    """
    process = study.process
    if process.classes_needed > num_classes:
        raise ConfigError(process.too_few(num_classes))
    known = {} if shared is None else shared
    specs = [known.setdefault(spec, spec) for spec in resolve(study)]
    pretrained = len(specs)
    weights = process.weights(study.students)[max(0, pretrained - 1) :]
    for lam in weights if pretrained else (None, *weights):
        generation = len(specs)
        spec = GenerationSpec(
            data=data,
            num_classes=num_classes,
            network=NetworkSpec(name=study.network_of(generation)),
            recipe=study.recipe if lam is not None else patriarch_recipe(process, study.recipe),
            precision=study.precision,
            compile=study.compile is True,  # auto: how a generation is computed is not who it is
            sync_batchnorm=study.sync_batchnorm,
            seed=study.seed,
            generation=generation,
            task=patriarch_spec(process, num_classes=num_classes)
            if lam is None
            else student_spec(study, lam=lam, teachers=[spec.key for spec in specs]),
        )
        specs.append(known.setdefault(spec, spec))
    networks: Sequence[str | None] = (study.network.name, study.network.students)
    start = process.label
    if pretrained:
        networks = tuple(dict.fromkeys(spec.network.name for spec in specs))
        start = process.label_from(_pretrained_label(specs[:pretrained]))
    labels = "-".join(label(name) for name in networks if name)
    return Chain(
        name=f"{start}-{labels}-s{study.seed}",
        settings=study,
        specs=tuple(specs),
    )


def _pretrained_label(specs: Sequence[GenerationSpec]) -> str:
    """Return "given-" and eight hex digits of the network, of all of them where they are several, with their number."""
    names = [spec.task.sha256 if isinstance(spec.task, PretrainedSpec) else spec.key for spec in specs]
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
        """Keys of the distinct generations that this study trains; pretrained ones are only evaluated."""
        return frozenset(key for chain in self.chains for key in chain.keys[chain.pretrained :])

    @cached_property
    def wanted(self) -> int:
        """Generations counted once a chain: what would be trained without sharing."""
        return sum(len(chain.specs) - chain.pretrained for chain in self.chains)

    @cached_property
    def wanted_by(self) -> dict[str, tuple[str, ...]]:
        """Names of the chains that need each generation, by key."""
        chains: dict[str, list[str]] = {key: [] for key in self.specs}
        for chain in self.chains:
            for key in chain.keys:
                chains[key].append(chain.name)
        return {key: tuple(names) for key, names in chains.items()}


def build_forest(study: Study, *, data: str, num_classes: int, resolve: Resolve = _none_pretrained) -> Forest:
    """Return the forest of the study's whole grid over the dataset of fingerprint `data`.

    Raises:
        ConfigError: when K exceeds the number of classes, two different points have one name, or one is too long.
    """
    shared: dict[GenerationSpec, GenerationSpec] = {}
    chains = tuple(
        build_chain(point, data=data, num_classes=num_classes, resolve=resolve, shared=shared)
        for point in study.points()
    )
    if too_long := [chain.name for chain in chains if len(chain.name) > LONGEST_NAME]:
        raise ConfigError(
            f"process: the chain's name {shown(too_long[0])} has {len(too_long[0]):,} characters, more than "
            f"the {LONGEST_NAME} of a file's name; give λ as a schedule, or shorter network names"
        )
    names = Counter(chain.name for chain in chains)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConfigError(f"grid: two different points are named {twice[0]}; run them in studies of their own")
    return Forest(chains)
