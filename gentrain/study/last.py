"""A chain's last student where it differs from the others, as is common to ship: its teacher, its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from gentrain.models.registry import label
from gentrain.study.sections import NetworkName
from gentrain.study.settings import Settings

Teacher = Literal["previous", "ensemble"]


class LastStudent(Settings):
    """What is different of the student of number `generations`; `{teacher: ensemble}` may be written `ensemble`."""

    teacher: Teacher | None = Field(None, description="Whom it learns from; default: as the other students.")
    network: NetworkName | None = Field(None, description="Its network, which may be smaller; default: the students'.")

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: object) -> object:
        if isinstance(value, Mapping | LastStudent):
            return value
        if value in ("previous", "ensemble"):
            return {"teacher": value}
        raise ValueError("must be ensemble, or a mapping such as {teacher: ensemble, network: resnet8}")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.teacher is None and self.network is None:
            raise ValueError("give `teacher`, `network` or both; leave `last` out where neither differs")
        return self

    @property
    def label(self) -> str:
        """What stands in a chain's name: last-ensemble, last-resnet8, last-ensemble-resnet8."""
        return "-".join(["last", *filter(None, (self.teacher, self.network and label(self.network)))])
