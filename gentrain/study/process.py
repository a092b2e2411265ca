"""D(f_a1, λ): the section `process`, and the closed forms that link its parameters to losses and predicted energies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from gentrain.study.last import LastStudent, Teacher
from gentrain.study.losses import (
    KL,
    PATRIARCHS,
    STUDENTS,
    Imported,
    ImportedPatriarch,
    ImportedStudent,
    Loss,
    OwnTeacher,
    Patriarch,
    ScoreDifference,
    Student,
    loss_kind,
)
from gentrain.study.settings import Later, Settings, Stored

DEFAULT_K = 5
DIGITS = 12
"""Decimals of a λ that a schedule gives, so that 0.8 - 0.1 is the 0.7 of another study, with the same key."""


def eta_for_primary(f_a1: float, *, k: int = 5) -> float:
    """Return the η whose patriarch loss has its optimum at primary score `f_a1`: η(f) = (K-1) / (K f + K - 1).

    D(1.0, ·) means η = 0, plain cross-entropy, though every η up to (K-1)/(2K-1) has its optimum there.

    Raises:
        ValueError: when `f_a1` is not in (1/K, 1], or K < 2.
    """
    _check_k(k)
    if not 1 / k < f_a1 <= 1:
        raise ValueError(f"f_a1 is {f_a1}; it must lie above 1/K = {1 / k:g} (K = {k}) and be at most 1")
    return 0.0 if f_a1 == 1 else (k - 1) / (k * f_a1 + k - 1)


def primary_for_eta(eta: float, *, k: int = 5) -> float:
    """Return u(η) = min(1, (1-η)(K-1) / (η K)), the primary score at which eq. (3) has its optimum.

    Raises:
        ValueError: when η is not in [0, 1), or K < 2.
    """
    _check_k(k)
    if not 0 <= eta < 1:
        raise ValueError(f"eta is {eta}; it must lie in [0, 1)")
    return 1.0 if eta == 0 else min(1.0, (1 - eta) * (k - 1) / (eta * k))


def predicted_primary(f_a1: float, *, lam: float | Sequence[float], generation: int) -> float:
    """Return w_g = 1 - (1 - f_a1)·λ^g, the primary score after g generations (λ_1·…·λ_g where λ is a sequence)."""
    if generation < 0:
        raise ValueError(f"generation is {generation}; generations count from 0")
    kept = 1.0
    for g in range(generation):
        kept *= lam[g] if isinstance(lam, Sequence) else lam
    return f_a1 + (1 - f_a1) * (1 - kept)


def predicted_energies(
    start: Sequence[float], weights: Sequence[float], *, teacher: Teacher, last: Teacher | None = None
) -> tuple[float, ...]:
    """Return the predicted primary score w_g = 1 - e_g of every generation.

    The minimiser of eq. (4) at one sample is (1-λ)·y + λ·f_T at temperature 1, so a student's energy is λ_g times its
    teacher's; at other temperatures the minimiser has no such form, and this is no prediction.

        previous: e_g = λ_g · e_{g-1}      ensemble: e_g = λ_g · (e_0 + … + e_{g-1}) / g

    Args:
        start: w_0..w_{n-1} of the generations that learn from none: the patriarch's aim, or what was measured.
        weights: λ_n..λ_G of the students after them.
        teacher: whom a student learns from.
        last: whom the last one learns from; None as the others.
    """
    energies = [1 - primary for primary in start]
    teachers = [teacher] * len(weights)
    teachers[-1:] = [last or teacher] * bool(weights)
    for lam, whom in zip(weights, teachers, strict=True):
        energies.append(lam * (energies[-1] if whom == "previous" else math.fsum(energies) / len(energies)))
    return tuple(1 - energy for energy in energies)


class LambdaSchedule(Settings):
    """λ by generation between two ends, for students g = 1..G; a lone student has `start`.

    linear: λ_g = start + (end - start)·(g-1)/(G-1)
    cosine: λ_g = end + (start - end)·(1 + cos(π·(g-1)/(G-1)))/2
    """

    shape: Literal["linear", "cosine"] = Field(
        alias="schedule", description="linear: equal steps; cosine: slow at both ends."
    )
    start: float = Field(alias="from", gt=0, le=1, description="λ of the first student.")
    end: float = Field(alias="to", gt=0, le=1, description="λ of the last student.")

    def weights(self, students: int) -> tuple[float, ...]:
        """Return λ_1..λ_G, rounded to `DIGITS` decimals."""
        steps = [g / (students - 1) if students > 1 else 0.0 for g in range(students)]
        if self.shape == "cosine":
            steps = [(1 - math.cos(math.pi * step)) / 2 for step in steps]
        return tuple(round(self.start + (self.end - self.start) * step, DIGITS) for step in steps)


class AdaptiveK(Settings):
    """K by score: the smallest K >= 2 whose K largest scores sum to `top_p` or more, at most `k_max`."""

    top_p: Annotated[float, Stored("mass")] = Field(
        gt=0, lt=1, description="Score that the K largest must reach together."
    )
    by: Literal["sample", "class"] = Field(
        "sample", description="sample: each sample's own scores; class: means over its class in a worker's batch."
    )
    k_max: Annotated[int, Stored("most")] = Field(
        20, ge=2, le=1_000_000, description="The largest K; never more than there are classes."
    )


_Section = TypeVar("_Section", bound=Settings)


def _section(kind: type[_Section], value: object) -> _Section:
    """Return a mapping as a section; what is wrong with it in one line (pydantic writes one for every alternative)."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        valid = ", ".join(field.alias or name for name, field in kind.model_fields.items())
        problems = []
        for problem in error.errors():
            key = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                problems.append(f"{key}: unknown key; valid keys here: {valid}")
            else:
                message = problem["msg"].removeprefix("Value error, ")
                problems.append(f"{key}: {message[:1].lower()}{message[1:]}" if key else message)
        raise ValueError("; ".join(problems)) from None


def _check_weights(value: object) -> object:
    """Check a λ, or one for each student: 0 has no use for a teacher, so only a chain without students may say it."""
    if isinstance(value, Mapping | LambdaSchedule):
        return _section(LambdaSchedule, value)
    several = isinstance(value, list | tuple)
    for weight in value if several else [value]:  # type: ignore[attr-defined]
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight <= 1 or (several and weight == 0):
            raise ValueError("must be a number from 0 to 1, or a list of such above 0, one for each student")
    return tuple(value) if several else value  # type: ignore[arg-type]


def _check_classes(value: object) -> object:
    """Check a K, or how it is chosen."""
    if isinstance(value, Mapping | AdaptiveK):
        return _section(AdaptiveK, value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be an integer from 2, or a mapping such as {top_p: 0.95, by: sample, k_max: 20}")  # noqa: TRY004
    if not 2 <= value <= 1_000_000:
        raise ValueError(f"input should be {'greater than or equal to 2' if value < 2 else 'at most 1,000,000'}")
    return value


def _check_patriarch(value: object) -> object:
    return value if isinstance(value, Loss) else _section(loss_kind(value, PATRIARCHS, ImportedPatriarch), value)


def _check_student(value: object) -> object:
    return value if isinstance(value, Loss) else _section(loss_kind(value, STUDENTS, ImportedStudent), value)


class Process(Settings):
    """One parametrised process D(f_a1, λ): how tolerant the patriarch is, and how much of it the students keep.

    Raises:
        ValueError: when a value is out of its range (pydantic's ValidationError).
    """

    f_a1: float = Field(0.6, description="Aim of the patriarch's primary score, in (1/K, 1]; 1.0 is cross-entropy.")
    lam: Annotated[float | tuple[float, ...] | LambdaSchedule, BeforeValidator(_check_weights)] = Field(
        0.6,
        alias="lambda",
        description="Weight of the teacher in a student's loss; by generation: a list, or `{schedule, from, to}`.",
    )
    k: Annotated[int | AdaptiveK, BeforeValidator(_check_classes)] = Field(
        DEFAULT_K,
        description="K: the primary class and its K-1 secondary classes, 2 or more; or by score, `{top_p, by, k_max}`.",
    )
    temperature: float = Field(1.0, gt=0, description="Softening of both softmaxes in the KL term (the paper: 1).")
    teacher: Teacher = Field(
        "previous", description="Whom a student learns from: the generation before it, or the mean of all before it."
    )
    last: Annotated[LastStudent | None, Later(None, written=False)] = Field(
        None,
        description="What differs of the last student, the one of number `generations`: `ensemble`, or "
        "`{teacher, network}`.",
    )
    patriarch: Annotated[Patriarch, BeforeValidator(_check_patriarch)] = Field(
        ScoreDifference(),
        description="Loss of the patriarch, `{name}`: score_difference (the paper's), label_smoothing, "
        "confidence_penalty, mse, or package.module:Class; `f_a1` sets its aim (docs/losses.md); or ps_kd, snapshot: "
        "one training that teaches itself (docs/recipes.md).",
    )
    student: Annotated[Student, BeforeValidator(_check_student)] = Field(
        KL(),
        description="Loss of the students, `{name, …}`: kl (the paper's), logit_standardised, dkd, dist, nkd, or "
        "package.module:Class (docs/losses.md).",
    )

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if not isinstance(self.student, KL) and self.temperature != 1:
            raise ValueError(
                f"temperature is {self.temperature} but student is {self.student.name}; `process.temperature` is for "
                "kl, other losses have a temperature of their own under `process.student`"
            )
        if self.last is not None and self.lam == 0:
            raise ValueError("last is given but lambda is 0, which has no students; leave `last` out")
        if not isinstance(self.patriarch, ScoreDifference):
            if self.k != DEFAULT_K:
                raise ValueError(
                    f"k is {self.k} but patriarch is {self.patriarch.name}; `process.k` is for score_difference: "
                    "leave it out"
                )
            if self.aim is not None and not 0 < self.aim <= 1:
                raise ValueError(f"f_a1 is {self.f_a1}; it must lie above 1/C (C classes) and be at most 1")
        elif not isinstance(self.k, AdaptiveK):
            eta_for_primary(self.f_a1, k=self.k)
        elif not 1 / 2 < self.f_a1 <= 1:
            raise ValueError(
                f"f_a1 is {self.f_a1}; with k by score, which may be as small as 2, it must lie above 1/2 and be at "
                "most 1; raise f_a1 or give k as a number"
            )
        return self

    def teacher_of(self, *, last: bool) -> Teacher:
        """Return whom a student learns from, which may be the chain's last."""
        return (self.last and last and self.last.teacher) or self.teacher

    @property
    def aim(self) -> float | None:
        """The primary score that the patriarch's loss has its optimum at; None where nothing is known of the loss."""
        return None if isinstance(self.patriarch, Imported | OwnTeacher) else self.f_a1

    @property
    def classes_needed(self) -> int:
        """The smallest number of classes that a dataset must have."""
        if not isinstance(self.patriarch, ScoreDifference):
            return 2 if self.aim is None else max(2, math.floor(1 / self.aim) + 1)
        return 2 if isinstance(self.k, AdaptiveK) else self.k

    def too_few(self, num_classes: int) -> str:
        """Return what to change for a dataset of fewer classes than are needed."""
        if isinstance(self.patriarch, ScoreDifference):
            return f"process.k: {self.k} is more than the dataset's {num_classes} classes; lower process.k"
        return (
            f"process.f_a1: {self.f_a1} must lie above 1/C = {1 / num_classes:g} with {self.patriarch.name} and the "
            f"dataset's {num_classes} classes; raise process.f_a1"
        )

    @property
    def eta(self) -> float | None:
        """Weight of the score difference in eq. (3), 0 where the patriarch's loss is cross-entropy.

        None where it differs by sample (`AdaptiveK`), and of other losses.
        """
        if not isinstance(self.patriarch, ScoreDifference):
            return 0.0 if self.aim == 1 and getattr(self.patriarch, "cross_entropy_at_1", False) else None
        if isinstance(self.k, AdaptiveK) and self.f_a1 < 1:
            return None
        return eta_for_primary(self.f_a1, k=2 if isinstance(self.k, AdaptiveK) else self.k)

    @property
    def label(self) -> str:
        """The paper's name, such as D(0.6,0.6); what isn't as in the paper follows: D(0.6,0.6,K4,T2.0,ensemble)."""
        return self._label(self.start, k=self._k_label if self.eta != 0 else "", patriarch=self.patriarch_label)

    @property
    def start(self) -> str:
        """What stands for the patriarch in names: its aim, or the loss where it has none."""
        return self.patriarch.label if self.aim is None else _shortest(self.aim)

    @property
    def patriarch_label(self) -> str:
        """What stands in names for a patriarch's loss that has an aim and isn't the paper's; else an empty text."""
        return "" if self.aim is None or isinstance(self.patriarch, ScoreDifference) else self.patriarch.label

    def label_from(self, start: str) -> str:
        """Return the name of the process that begins with `start` in place of a patriarch."""
        return self._label(start, k="", patriarch="")

    def _label(self, start: str, *, k: str, patriarch: str) -> str:
        parts = [start, self._lam_label, *([k] if k else [])]
        parts += [f"T{_shortest(self.temperature)}"] if self.temperature != 1 else []
        parts += ["ensemble"] if self.teacher == "ensemble" else []
        parts += [self.last.label] if self.last else []
        parts += [patriarch] if patriarch else []
        parts += [self.student.label] if not isinstance(self.student, KL) else []
        return f"D({','.join(parts)})"

    @property
    def _k_label(self) -> str:
        if isinstance(self.k, AdaptiveK):
            return f"K{_shortest(self.k.top_p)}-{self.k.by}-{self.k.k_max}"
        return f"K{self.k}" if self.k != DEFAULT_K else ""

    @property
    def _lam_label(self) -> str:
        if isinstance(self.lam, LambdaSchedule):
            return f"{self.lam.shape}-{_shortest(self.lam.start)}-{_shortest(self.lam.end)}"
        return "-".join(map(_shortest, self.lam)) if isinstance(self.lam, tuple) else _shortest(self.lam)

    def weights(self, students: int) -> tuple[float, ...]:
        """Return λ_1..λ_G, the teacher's weight in the loss of each student."""
        if isinstance(self.lam, LambdaSchedule):
            return self.lam.weights(students)
        return self.lam[:students] if isinstance(self.lam, tuple) else (self.lam,) * students


def _check_k(k: int) -> None:
    if k < 2:
        raise ValueError(f"k is {k}; there must be a primary and at least one secondary class: k >= 2")


def _shortest(value: float) -> str:
    return repr(float(value))


def saturated(validation_errors: Sequence[float], *, patience: int | None) -> bool:
    """Return whether no generation of the last `patience` beat the best held-out error before them."""
    if patience is None or len(validation_errors) <= patience:
        return False
    return min(validation_errors[-patience:]) >= min(validation_errors[:-patience])
