"""Estimate how long a training takes that was never timed: from those that were, by what a step computes and moves.

An image takes a·M + b·B + c·N seconds of a thread or a GPU: M multiply-adds, B bytes, and N calls of kernels, of which
a step of many images needs no more than one of few. The three prices come from timings by least squares of relative
errors, held to the proportions of a first guess, which decide where few networks were timed. Estimates are for people:
they never replace what was timed, and nothing is scheduled by them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gentrain.running.cards import Card

FORWARD_AND_BACKWARD = 3
"""Passes of a network in training: the backward pass computes as much as two forward ones."""
NOISE = 0.1
"""Relative error of a timing, and of the terms themselves, at least."""
SPREAD = 0.7
"""By how much the proportions of two prices may differ from a first guess's, relatively."""
TWO_SIDED = 1.64
"""Standard deviations: nine of ten."""
CPU_BAND, CARD_BAND = 5.0, 3.0
"""Factors up and down of a first guess: of any CPU, and from a card's published figures."""
WIDEST = 20.0
"""Factor up and down where timings contradict each other."""
COMPUTING, MOVING = 0.3, 0.6
"""Efficiency of a card: the parts of its peak figures that training reaches."""
LAUNCH_SECONDS = 20e-6
"""For a call of a kernel in eager PyTorch on a GPU, with what Python does for it."""


@dataclass(frozen=True)
class Work:
    """What training on one image takes, of all networks that take part."""

    multiply_adds: float
    bytes: float
    """In fp32."""
    calls: float
    """Of kernels, divided by the images of a worker's step."""

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(self.terms, other.terms, strict=True)))

    def __mul__(self, passes: float) -> Work:
        return Work(*(passes * value for value in self.terms))

    @property
    def terms(self) -> tuple[float, float, float]:
        """All three."""
        return self.multiply_adds, self.bytes, self.calls


Prices = tuple[float, float, float]
"""Seconds of one multiply-add, byte and call."""


@dataclass(frozen=True)
class Timing:
    """A training that was timed."""

    name: str
    """Of its network."""
    work: Work
    seconds: float
    """Of a thread or a GPU, for an image."""
    images_per_second: float
    """Of the whole training, for people."""


@dataclass(frozen=True)
class Guess:
    """Estimated seconds, and where nine of ten should lie."""

    seconds: float
    low: float
    high: float
    basis: str
    """What it is estimated from, as a phrase after "from"."""

    def times(self, factor: float) -> Guess:
        """Return what so many of it take."""
        return Guess(self.seconds * factor, self.low * factor, self.high * factor, self.basis)


def cpu_prices(precision: str) -> Prices:
    """Return a first guess for a thread of an unknown CPU of recent years."""
    multiply_adds = {"bf16": 100e9}.get(precision, 40e9)
    return 1 / multiply_adds, 1 / 15e9, 60e-6


def card_prices(card: Card, precision: str) -> Prices:
    """Return the prices of a GPU by its published figures and a usual efficiency; bf16 halves the bytes."""
    moved = 0.5 if precision == "bf16" else 1.0
    return 2 / (COMPUTING * card.peak(precision)), moved / (MOVING * card.bandwidth), LAUNCH_SECONDS


class Speed:
    """How fast a thread or a GPU trains.

    Args:
        first: prices that are guessed: their proportions count as far as the timings don't tell them.
        timings: on this machine, in this precision.
        basis: of the first guess, for people.
        band: the factor up and down of the first guess.
    """

    def __init__(self, first: Prices, timings: Sequence[Timing] = (), *, basis: str, band: float) -> None:
        self._first, self._timings, self._basis, self._band = np.array(first), tuple(timings), basis, band
        if timings:
            self._fit()

    def estimate(self, work: Work) -> Guess:
        """Return the seconds of a thread or GPU for an image."""
        terms = np.array(work.terms) * self._first
        if not self._timings:
            seconds = float(terms.sum())
            return Guess(seconds, seconds / self._band, seconds * self._band, self._basis)
        seconds = float(terms @ self._prices)
        uncertain = float(terms @ self._covariance @ terms) / seconds**2
        factor = math.exp(min(TWO_SIDED * self._noise * math.sqrt(1 + uncertain), math.log(WIDEST)))
        return Guess(seconds, seconds / factor, seconds * factor, self._named(work))

    def _fit(self) -> None:
        """Find the prices, relative to the first guess, and their covariance."""
        terms = np.array([timing.work.terms for timing in self._timings]) * self._first
        seconds = np.array([timing.seconds for timing in self._timings])
        scale = math.exp(float(np.mean(np.log(seconds / terms.sum(axis=1)))))
        held = NOISE / SPREAD
        rows = np.vstack([terms / seconds[:, None], np.eye(3) * held / scale])
        wanted = np.concatenate([np.ones(len(seconds)), np.full(3, held)])
        self._prices = _least_squares(rows, wanted)
        errors = terms @ self._prices / seconds - 1
        self._noise = max(NOISE, float(np.sqrt(np.mean(errors**2))))
        self._covariance = np.linalg.inv(rows.T @ rows)

    def _named(self, work: Work) -> str:
        near = sorted(self._timings, key=lambda timing: abs(math.log(timing.work.bytes / work.bytes)))
        nearest: dict[str, Timing] = {}
        for timing in near:
            nearest.setdefault(timing.name, timing)
        names = [f"{timing.name}'s {timing.images_per_second:,.0f}" for timing in list(nearest.values())[:2]]
        more = f" and {len(nearest) - 2} more networks" if len(nearest) > 2 else ""
        return f"{' and '.join(names)} images/s{more}, by multiply-adds and bytes"


def _least_squares(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the solution x ≥ 0 of least squares: of all choices of which x are 0, the best that is allowed."""
    best, least = np.zeros(rows.shape[1]), math.inf
    for chosen in itertools.product([True, False], repeat=rows.shape[1]):
        if not any(chosen):
            continue
        part = np.linalg.lstsq(rows[:, chosen], wanted, rcond=None)[0]
        error = float(np.sum((rows[:, chosen] @ part - wanted) ** 2))
        if (part >= 0).all() and error < least:
            best, least = np.zeros(rows.shape[1]), error
            best[list(chosen)] = part
    return best
