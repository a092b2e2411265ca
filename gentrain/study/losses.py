"""The losses of a process by name: their settings, how a patriarch's knob follows from its aim, classes of your own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from gentrain.errors import cut, shown
from gentrain.models.registry import import_module, label
from gentrain.study.settings import Settings

Value = bool | int | float | str
"""What a setting of a loss can be."""
Parameters = tuple[tuple[str, Value], ...]
"""Names and values, by name."""


class Loss(Settings):
    """A loss by name; its other settings are parameters of its class."""

    @property
    def parameters(self) -> Parameters:
        """All parameters, those at their defaults too."""
        return tuple((name, getattr(self, name)) for name in sorted(type(self).model_fields) if name != "name")

    @property
    def defaults(self) -> Mapping[str, Value]:
        """Defaults of the parameters that have one."""
        return {name: field.default for name, field in type(self).model_fields.items()}

    @property
    def label(self) -> str:
        """The name and what isn't at its default, as in a chain's name: dkd-beta2.0."""
        changed = [f"{name}{value}" for name, value in self.parameters if value != self.defaults.get(name)]
        return label("-".join([self.name, *changed]))  # type: ignore[attr-defined]


class PatriarchLoss(Loss):
    """A patriarch's loss, whose knob follows from `f_a1`."""

    cross_entropy_at_1: ClassVar[bool] = True
    """Whether the aim 1.0 makes it plain cross-entropy."""

    def knob(self, f_a1: float, *, num_classes: int) -> Parameters:
        """Return the parameters whose optimum is at the primary score `f_a1`, in (1/C, 1]."""
        raise NotImplementedError


class ScoreDifference(PatriarchLoss):
    """Eq. (3) of the paper."""

    name: Literal["score_difference"] = "score_difference"


class LabelSmoothing(PatriarchLoss):
    """Cross-entropy with smoothed labels (Szegedy et al. 2016): f_a1 = 1 - ε + ε/C."""

    name: Literal["label_smoothing"] = "label_smoothing"

    def knob(self, f_a1: float, *, num_classes: int) -> Parameters:
        """Return ε = (1 - f_a1)·C / (C - 1)."""
        return (("epsilon", smoothing_for_primary(f_a1, num_classes=num_classes)),)


class ConfidencePenalty(PatriarchLoss):
    """Cross-entropy minus β times the scores' entropy (Pereyra et al. 2017)."""

    name: Literal["confidence_penalty"] = "confidence_penalty"

    def knob(self, f_a1: float, *, num_classes: int) -> Parameters:
        """Return β."""
        return (("beta", penalty_for_primary(f_a1, num_classes=num_classes)),)


class SquaredError(PatriarchLoss):
    """Squared error of the scores from smoothed labels: f_a1 = 1 - ε + ε/C."""

    cross_entropy_at_1: ClassVar[bool] = False
    name: Literal["mse"] = "mse"

    def knob(self, f_a1: float, *, num_classes: int) -> Parameters:
        """Return ε = (1 - f_a1)·C / (C - 1)."""
        return (("epsilon", smoothing_for_primary(f_a1, num_classes=num_classes)),)


class OwnTeacher(PatriarchLoss):
    """A patriarch that is taught by what it was earlier in its one training; `process.f_a1` plays no part."""

    cross_entropy_at_1: ClassVar[bool] = False
    of_the_recipe: ClassVar[frozenset[str]] = frozenset({"trainings"})
    """Settings that change the recipe, not the loss."""
    trainings: int = Field(
        1,
        ge=1,
        le=1000,
        description="ps_kd, snapshot: epochs of so many generations in one training; milestones move likewise.",
    )

    def knob(self, f_a1: float, *, num_classes: int) -> Parameters:
        """Return the parameters of the loss."""
        return tuple((name, value) for name, value in self.parameters if name not in self.of_the_recipe)


class PSKD(OwnTeacher):
    """Progressive self-distillation: the epoch before teaches (Kim et al. 2021)."""

    name: Literal["ps_kd"] = "ps_kd"
    alpha: float = Field(0.8, ge=0, le=1, description="ps_kd: α_T, the teacher's weight in the last epoch.")


class Snapshot(OwnTeacher):
    """Snapshot distillation: the end of a cycle teaches the next (Yang et al. 2019)."""

    of_the_recipe: ClassVar[frozenset[str]] = frozenset({"trainings", "cycles"})
    name: Literal["snapshot"] = "snapshot"
    cycles: int = Field(2, ge=2, le=1000, description="snapshot: cycles of the learning rate, each a cosine.")
    weight: float = Field(0.5, ge=0, le=1, description="snapshot: the teacher's weight.")
    temperature: float = Field(2.0, gt=0, description="snapshot: smoothing of the teacher.")


class KL(Loss):
    """Eq. (4) of the paper; `process.temperature` is its temperature."""

    name: Literal["kl"] = "kl"


class LogitStandardised(Loss):
    """KL divergence of standardised logits (Sun et al. 2024)."""

    name: Literal["logit_standardised"] = "logit_standardised"
    temperature: float = Field(2.0, gt=0, description="logit_standardised: base temperature τ.")


class DKD(Loss):
    """Decoupled distillation (Zhao et al. 2022)."""

    name: Literal["dkd"] = "dkd"
    alpha: float = Field(1.0, ge=0, description="dkd: weight α of the true class against all others.")
    beta: float = Field(8.0, ge=0, description="dkd: weight β of the scores among the others.")
    temperature: float = Field(4.0, gt=0, description="dkd: temperature.")
    standardise: bool = Field(False, description="dkd: standardise the logits first, as logit_standardised does.")


class DIST(Loss):
    """Relations between classes and between samples (Huang et al. 2022)."""

    name: Literal["dist"] = "dist"
    beta: float = Field(1.0, ge=0, description="dist: weight β of each sample's relations between classes.")
    gamma: float = Field(1.0, ge=0, description="dist: weight γ of each class's relations between samples.")
    temperature: float = Field(1.0, gt=0, description="dist: temperature τ.")


class NKD(Loss):
    """Normalised distillation (Yang et al. 2023)."""

    name: Literal["nkd"] = "nkd"
    gamma: float = Field(1.5, ge=0, description="nkd: weight γ of the other classes.")
    temperature: float = Field(1.0, gt=0, description="nkd: temperature τ of the other classes.")


class Imported(Loss):
    """A class of your own, `package.module:Class`; its other settings are keyword arguments of the class."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Value]
    name: str = Field(description="A name of the table in docs/losses.md, or package.module:Class.")
    arguments: ClassVar[tuple[tuple[Any, ...], dict[str, Any]]] = ((), {})
    """Stand for what the class is called with apart from settings."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        for key, setting in value.items() if isinstance(value, Mapping) else ():
            if not isinstance(setting, Value):
                raise ValueError(f"{cut(str(key))}: must be a number, a text, true or false, not {shown(setting)}")  # noqa: TRY004
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        signature = _signature(self.name)
        positional, keywords = self.arguments
        try:
            signature.bind(*positional, **keywords, **(self.model_extra or {}))
        except TypeError as error:
            raise ValueError(f"{cut(self.name)}: {error}; its settings here: {self._known or 'none'}") from None
        return self

    @property
    def parameters(self) -> Parameters:
        """All parameters, those at the class's defaults too."""
        return tuple(sorted({**self.defaults, **(self.model_extra or {})}.items()))

    @property
    def defaults(self) -> Mapping[str, Value]:
        """Defaults of the class's keyword arguments that settings can be."""
        given = len(self.arguments[0])
        parameters = list(_signature(self.name).parameters.values())[given:]
        return {p.name: p.default for p in parameters if isinstance(p.default, Value)}

    @property
    def _known(self) -> str:
        names = list(_signature(self.name).parameters)[len(self.arguments[0]) :]
        return ", ".join(name for name in names if name not in self.arguments[1])


class ImportedPatriarch(Imported):
    """A patriarch of your own, called as Class(**settings); `process.f_a1` plays no part."""

    def knob(self, f_a1: float, *, num_classes: int) -> Parameters:
        """Return all settings: the knob is among them."""
        return self.parameters


class ImportedStudent(Imported):
    """A student of your own, called as Class(teacher, lam=λ, **settings)."""

    arguments: ClassVar[tuple[tuple[Any, ...], dict[str, Any]]] = ((None,), {"lam": 0.5})


Patriarch = ScoreDifference | LabelSmoothing | ConfidencePenalty | SquaredError | PSKD | Snapshot | ImportedPatriarch
Student = KL | LogitStandardised | DKD | DIST | NKD | ImportedStudent
PATRIARCHS: Mapping[str, type[PatriarchLoss]] = {
    "score_difference": ScoreDifference,
    "label_smoothing": LabelSmoothing,
    "confidence_penalty": ConfidencePenalty,
    "mse": SquaredError,
    "ps_kd": PSKD,
    "snapshot": Snapshot,
}
OWN_TEACHERS = frozenset({"ps_kd", "snapshot"})
STUDENTS: Mapping[str, type[Loss]] = {
    "kl": KL,
    "logit_standardised": LogitStandardised,
    "dkd": DKD,
    "dist": DIST,
    "nkd": NKD,
}


def loss_kind(value: object, known: Mapping[str, type[Loss]], imported: type[Imported]) -> type[Loss]:
    """Return the settings' class of a mapping with a loss's `name`.

    Raises:
        ValueError: where there is no such loss.
    """
    name = value.get("name") if isinstance(value, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(f"must be a mapping with a `name`: {', '.join(known)}, or package.module:Class")  # noqa: TRY004
    if name in known:
        return known[name]
    if ":" in name:
        return imported
    raise ValueError(f"unknown loss {shown(name)}; known: {', '.join(known)}, or package.module:Class")


def import_class(path: str) -> Callable[..., Any]:
    """Return the class at package.module:Class.

    Raises:
        ValueError: when it can't be imported, or is none.
    """
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")) or not attribute.isidentifier():
        raise ValueError(f"loss {shown(path)}: not package.module:Class, such as mylosses:Focal")
    loss = getattr(import_module(module_name, what=f"loss {shown(path)}"), attribute, None)
    if not isinstance(loss, type):
        raise ValueError(f"loss {shown(path)}: {cut(module_name)} has no class {shown(attribute)}")  # noqa: TRY004
    return loss


@cache
def _signature(path: str) -> inspect.Signature:
    return inspect.signature(import_class(path))


def smoothing_for_primary(f_a1: float, *, num_classes: int) -> float:
    """Return the ε with 1 - ε + ε/C = `f_a1`: the optimum of smoothed labels, by cross-entropy or squared error."""
    _check_aim(f_a1, num_classes)
    return (1 - f_a1) * num_classes / (num_classes - 1)


def penalty_for_primary(f_a1: float, *, num_classes: int) -> float:
    """Return the β at which CE - β·H has its optimum at the primary score p = `f_a1`.

    The others share 1 - p equally, as that has the largest entropy, so p minimises
    -log p + β·(p·log p + (1-p)·log((1-p)/(C-1))), whose derivative -1/p + β·log(p(C-1)/(1-p)) is 0 at

        β = 1 / (p·log(p(C-1)/(1-p)))
    """
    _check_aim(f_a1, num_classes)
    return 0.0 if f_a1 == 1 else 1 / (f_a1 * math.log(f_a1 * (num_classes - 1) / (1 - f_a1)))


def _check_aim(f_a1: float, num_classes: int) -> None:
    if not 1 / num_classes < f_a1 <= 1:
        raise ValueError(
            f"f_a1 is {f_a1}; it must lie above 1/C = {1 / num_classes:g} ({num_classes} classes) and be at most 1"
        )
