"""The study's section `process`: D(f_a1, λ), and what goes beyond the paper in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gentrain.process import DEFAULT_K, LambdaSchedule, Mass, Process, Teacher, eta_for_primary


class Settings(BaseModel):
    """A section of the study file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class LambdaConfig(Settings):
    """λ by generation as a curve between two ends (`process.LambdaSchedule`)."""

    schedule: Literal["linear", "cosine"] = Field(description="linear: equal steps; cosine: slow at both ends.")
    start: float = Field(alias="from", gt=0, le=1, description="λ of the first student.")
    end: float = Field(alias="to", gt=0, le=1, description="λ of the last student.")


class MassConfig(Settings):
    """K by sample or by class (`losses.adaptive_patriarch_loss`)."""

    mass: float = Field(gt=0, lt=1, description="Score that the K largest must reach together.")
    by: Literal["sample", "class"] = Field(
        "sample", description="sample: each sample's own scores; class: means over its class in a worker's batch."
    )
    most: int = Field(20, ge=2, description="The largest K; never more than there are classes.")


_Section = TypeVar("_Section", bound=Settings)


def _section(kind: type[_Section], value: object) -> _Section:
    """Return a mapping as a section; what is wrong with it in one line, as pydantic tells it for every alternative."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        valid = ", ".join(field.alias or name for name, field in kind.model_fields.items())
        told = []
        for problem in error.errors():
            key = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                told.append(f"{key}: unknown key; valid keys here: {valid}")
            else:
                told.append(f"{key}: {problem['msg'][:1].lower()}{problem['msg'][1:]}")
        raise ValueError("; ".join(told)) from None


def _weights(value: object) -> object:
    """Check a λ, or one for each student: 0 has no use for a teacher, so only a chain without students may say it."""
    if isinstance(value, Mapping | LambdaConfig):
        return _section(LambdaConfig, value)
    several = isinstance(value, list | tuple)
    for weight in value if several else [value]:  # type: ignore[attr-defined]
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight <= 1 or (several and weight == 0):
            raise ValueError("must be a number from 0 to 1, or a list of such above 0, one for each student")
    return tuple(value) if several else value  # type: ignore[arg-type]


def _classes(value: object) -> object:
    """Check a K, or how it is found."""
    if isinstance(value, Mapping | MassConfig):
        return _section(MassConfig, value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be an integer from 2, or a mapping such as {mass: 0.95, by: sample, most: 20}")  # noqa: TRY004
    if value < 2:
        raise ValueError("input should be greater than or equal to 2")
    return value


class ProcessConfig(Settings):
    """D(f_a1, λ): how tolerant the patriarch is, and how much of it the students keep."""

    f_a1: float = Field(0.6, description="Aim of the patriarch's primary score, in (1/K, 1]; 1.0 is cross-entropy.")
    lam: Annotated[float | tuple[float, ...] | LambdaConfig, BeforeValidator(_weights)] = Field(
        0.6,
        alias="lambda",
        description="Weight of the teacher in a student's loss; by generation: a list, or `{schedule, from, to}`.",
    )
    k: Annotated[int | MassConfig, BeforeValidator(_classes)] = Field(
        DEFAULT_K,
        description="K: the primary class and its K-1 secondary classes, 2 or more; or by score, `{mass, by, most}`.",
    )
    temperature: float = Field(1.0, gt=0, description="Softening of both softmaxes in the KL term (the paper: 1).")
    teacher: Teacher = Field(
        "previous", description="Whom a student learns from: the generation before it, or the mean of all before it."
    )

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if not isinstance(self.k, MassConfig):
            eta_for_primary(self.f_a1, k=self.k)
        elif not 1 / 2 < self.f_a1 <= 1:
            raise ValueError(
                f"f_a1 is {self.f_a1}; with k by mass, which may be as small as 2, it must lie above 1/2 and be at "
                "most 1; raise f_a1 or give k as a number"
            )
        return self

    @property
    def most_classes(self) -> int:
        """Classes that there must be."""
        return 2 if isinstance(self.k, MassConfig) else self.k

    @property
    def process(self) -> Process:
        """The process that these settings say."""
        lam, k = self.lam, self.k
        return Process(
            f_a1=self.f_a1,
            lam=LambdaSchedule(lam.schedule, lam.start, lam.end) if isinstance(lam, LambdaConfig) else lam,
            k=Mass(k.mass, k.by, k.most) if isinstance(k, MassConfig) else k,
            temperature=self.temperature,
            teacher=self.teacher,
        )
