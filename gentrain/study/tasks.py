"""What each generation of a process minimises, as spec.json has it: the tasks of patriarchs and students."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict

from gentrain.study.losses import KL, OWN_TEACHERS, OwnTeacher, Parameters, ScoreDifference, Snapshot
from gentrain.study.process import AdaptiveK, Process
from gentrain.study.schema import FOLDING, Study
from gentrain.study.sections import RecipeConfig
from gentrain.study.settings import Later, Stored


class Frozen(BaseModel):
    """A part of a spec."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AdaptiveKSpec(AdaptiveK):
    """Eq. (3) with K by sample or by class; the η of each follows from the aim."""

    f_a1: float


class LossSpec(Frozen):
    """A loss that isn't the paper's: its name or import path, and all its settings, by name."""

    name: str
    settings: Parameters


class PatriarchSpec(Frozen):
    """Eq. (3): η, and K where η > 0 (plain cross-entropy has no secondary classes); or K by score; or another loss."""

    kind: Literal["patriarch"] = "patriarch"
    eta: float | None
    k: int | None
    adaptive: Annotated[AdaptiveKSpec | None, Stored("mass"), Later(None)] = None
    loss: Annotated[LossSpec | None, Later(None, written=False)] = None

    @property
    def teaches_itself(self) -> bool:
        """Whether what it was earlier in its training teaches it."""
        return self.loss is not None and self.loss.name in OWN_TEACHERS


class StudentSpec(Frozen):
    """Eq. (4): λ and the temperature, or another loss; `teacher` is the teacher's key."""

    kind: Literal["student"] = "student"
    lam: float
    temperature: float
    teacher: str
    fold_batchnorm: Annotated[bool, FOLDING, Later(False)] = False
    members: Annotated[tuple[str, ...], Later(())] = ()
    """Of an ensemble of several as teacher: all their keys, in order; `teacher` is the last."""
    loss: Annotated[LossSpec | None, Later(None, written=False)] = None

    @property
    def teachers(self) -> tuple[str, ...]:
        """Keys of all networks that teach."""
        return self.members or (self.teacher,)


class PretrainedSpec(Frozen):
    """A network that was trained elsewhere: the sha256 of its weights as the store would write them."""

    kind: Literal["given"] = "given"
    sha256: str


def patriarch_spec(process: Process, *, num_classes: int) -> PatriarchSpec:
    """Return what a process's patriarch minimises over C classes."""
    k, patriarch = process.k, process.patriarch
    if process.eta == 0:
        return PatriarchSpec(eta=0.0, k=None)
    if not isinstance(patriarch, ScoreDifference):
        settings = patriarch.knob(process.f_a1, num_classes=num_classes)
        return PatriarchSpec(eta=None, k=None, loss=LossSpec(name=patriarch.name, settings=settings))
    if isinstance(k, AdaptiveK):
        adaptive = AdaptiveKSpec(f_a1=process.f_a1, top_p=k.top_p, by=k.by, k_max=min(k.k_max, num_classes))
        return PatriarchSpec(eta=None, k=None, adaptive=adaptive)
    return PatriarchSpec(eta=process.eta, k=k)


def patriarch_recipe(process: Process, recipe: RecipeConfig) -> RecipeConfig:
    """Return how a process's patriarch is optimised: labels are its loss's affair, some have other epochs."""
    changes: dict[str, object] = {"label_smoothing": 0.0}
    loss = process.patriarch
    if isinstance(loss, OwnTeacher):
        changes["epochs"] = recipe.epochs * loss.trainings
        changes["milestones"] = tuple(milestone * loss.trainings for milestone in recipe.milestones)
    if isinstance(loss, Snapshot):
        changes |= {"schedule": "cosine", "cycles": loss.cycles}
    return recipe.model_copy(update=changes)


def student_spec(study: Study, *, lam: float, teachers: Sequence[str]) -> StudentSpec:
    """Return what a study's next student minimises.

    Args:
        study: of one chain.
        lam: its λ.
        teachers: keys of all generations before it.
    """
    ensemble = study.process.teacher_of(last=len(teachers) == study.generations) == "ensemble" and len(teachers) > 1
    student = study.process.student
    return StudentSpec(
        lam=lam,
        temperature=study.process.temperature,
        teacher=teachers[-1],
        fold_batchnorm=study.fold_batchnorm,
        members=tuple(teachers) if ensemble else (),
        loss=None if isinstance(student, KL) else LossSpec(name=student.name, settings=student.parameters),
    )
