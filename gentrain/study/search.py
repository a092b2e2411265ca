"""The section `search`: which settings of the process are varied, within which limits; random draws from them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Container, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from gentrain.errors import cut, shown
from gentrain.study.losses import Value
from gentrain.study.process import Process
from gentrain.study.settings import Settings

DIGITS = 3
"""Significant digits of what is drawn from a range, so that chains' names stay short."""
REPEATS = 1000
"""Draws in a row that were proposed before, after which all points of a space count as tried."""
_KEY = re.compile(r"lambda|f_a1|temperature|(student|patriarch)\.(?!name$)\w+")


class RangeConfig(Settings):
    """Numbers between two ends."""

    low: float = Field(alias="from", description="Smallest value.")
    high: float = Field(alias="to", description="Largest value.")
    log: bool = Field(False, description="Whether a factor counts the same everywhere, not a difference.")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"from {self.low:g} to {self.high:g}: must rise, and with `log` begin above 0")
        return self

    def draw(self, random: np.random.Generator) -> float:
        """Return a number of the range."""
        if self.log:
            return self.rounded(math.exp(random.uniform(math.log(self.low), math.log(self.high))))
        return self.rounded(random.uniform(self.low, self.high))

    def rounded(self, value: float) -> float:
        """Return a number of the range with `DIGITS` significant digits, or its end."""
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


def _check_values(value: object) -> object:
    """Check a range, or a list of values, with what is wrong in one line."""
    if isinstance(value, RangeConfig):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(each, Value) for each in value):
        return tuple(value)
    if isinstance(value, Mapping):
        try:
            return RangeConfig.model_validate(value)
        except ValidationError as error:
            problem = error.errors()[0]
            where = "".join(f"{key}: " for key in problem["loc"])
            raise ValueError(f"{where}{problem['msg'].removeprefix('Value error, ')}") from None
    raise ValueError(f"must be a range {{from, to, log}} or a list of values, not {shown(value)}")


Values = Annotated[RangeConfig | tuple[Value, ...], BeforeValidator(_check_values)]


class SearchConfig(Settings):
    """A search for the process whose students err least on the held-out split."""

    method: Literal["random", "optuna"] = Field(
        "random",
        description="random: all proposals at once; optuna: tree-structured Parzen estimators (the extra `search`).",
    )
    budget: int = Field(
        ge=1, le=100_000, description="Most distinct trainings of all proposals together; a shared one counts once."
    )
    batch: int = Field(
        8, ge=1, le=10_000, description="optuna: proposals that are trained side by side before the next are made."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Decides the proposals, with the results so far.")
    space: Mapping[str, Values] = Field(
        description="What varies: `lambda`, `f_a1`, `temperature`, `student.SETTING`, `patriarch.SETTING`; each a "
        "range `{from: 0.3, to: 0.9, log: false}` or a list of values.",
    )

    @model_validator(mode="after")
    def _known_settings(self) -> Self:
        if not self.space:
            raise ValueError("space: must name a setting to vary, such as {lambda: {from: 0.3, to: 0.9}}")
        for key in self.space:
            if not _KEY.fullmatch(key):
                raise ValueError(
                    f"space: {cut(key)} can't be searched; lambda, f_a1, temperature, student.SETTING and "
                    "patriarch.SETTING can"
                )
        return self


def process_with(process: Process, values: Mapping[str, Value]) -> Process:
    """Return a process with some settings, by their names in a search's space, at other values.

    Raises:
        ValueError: where the process doesn't take them (pydantic's ValidationError).
    """
    mapping: dict[str, Any] = process.model_dump(by_alias=True)
    for key, value in values.items():
        section, _, name = key.partition(".")
        mapping[section] = {**mapping[section], name: value} if name else value
    return Process.model_validate(mapping)


def valid_process(process: Process, values: Mapping[str, Value]) -> Process | None:
    """Return `process_with`'s process; None where its values don't go together."""
    try:
        return process_with(process, values)
    except ValidationError:
        return None


def values_of(process: Process, search: SearchConfig) -> dict[str, Any]:
    """Return a process's values of the settings that a search varies, by their names in its space."""
    mapping = process.model_dump(by_alias=True)
    pairs = {key: key.partition(".") for key in sorted(search.space)}
    return {key: mapping[section].get(name) if name else mapping[section] for key, (section, _, name) in pairs.items()}


def check_space(process: Process, search: SearchConfig) -> None:
    """Refuse a space with a value that the process doesn't take: each end and each choice is tried by itself.

    Raises:
        ValueError: naming the first.
    """
    for key, values in search.space.items():
        for value in (values.low, values.high) if isinstance(values, RangeConfig) else values:
            try:
                process_with(process, {key: value})
            except ValidationError as error:
                problem = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"`search.space`: {key}: {shown(value)}: {problem}") from None


def random_proposals(process: Process, search: SearchConfig, known: Container[Process]) -> Iterator[Process]:
    """Yield processes drawn at random, none that is known or was yielded before.

    Draw i depends on the seed and i alone, so that a search with some proposals known goes on as if it had made them.
    """
    made: set[Process] = set()
    repeats = 0
    for index in itertools.count():
        random = np.random.default_rng([search.seed, index])
        drawn = {key: _draw(search.space[key], random) for key in sorted(search.space)}
        proposal = valid_process(process, drawn)
        repeats = repeats + 1 if proposal is None or proposal in made else 0
        if repeats == REPEATS:
            return
        if proposal is not None and not repeats:
            made.add(proposal)
            if proposal not in known:
                yield proposal


def rounded(values: RangeConfig | tuple[Value, ...], value: Any) -> Value:
    """Return a proposed value as it is used: of a range rounded, of a list as it is."""
    return values.rounded(value) if isinstance(values, RangeConfig) else value


def fits(values: RangeConfig | tuple[Value, ...], value: Any) -> bool:
    """Return whether a value is one of the space's."""
    if isinstance(values, RangeConfig):
        return isinstance(value, int | float) and values.low <= value <= values.high
    return value in values


def _draw(values: RangeConfig | tuple[Value, ...], random: np.random.Generator) -> Value:
    return values.draw(random) if isinstance(values, RangeConfig) else values[random.integers(len(values))]
