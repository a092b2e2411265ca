"""Decide the questions of five-groups-resnet20.yaml from its stored results, as that file said before the first run.

Run: python experiments/verdicts.py experiments/results/five-groups-resnet20
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gentrain.scores.spread import Spread, paired_difference
from gentrain.store.run import RunStore
from gentrain.store.study_record import read_results

STUDY = "five-groups-resnet20"
BORN_AGAIN, TOLERANT = (1.0, 0.5), ((0.6, 0.6), (0.6, 0.5))
LAST = 4
BAND = 0.05
"""How far a measured energy may be from w_g."""

Rows = Sequence[Mapping[str, Any]]
Measure = Callable[[Mapping[str, Any]], float | None]


@dataclass(frozen=True)
class Decided:
    """Hold one statistic of a question, over the seeds that have it."""

    question: str
    text: str
    spread: Spread | None
    low: float = -float("inf")
    high: float = float("inf")
    """The claim: the mean lies between them."""
    digits: int = 2

    @property
    def verdict(self) -> str:
        """Return yes or no where the whole 95 % interval lies inside, or outside, of the claim; else open."""
        if self.spread is None or self.spread.interval is None:
            return "open"
        bottom, top = self.spread.interval
        if self.low < bottom and top < self.high:
            return "yes"
        return "no" if top <= self.low or bottom >= self.high else "open"

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        spread, form = self.spread, f"+.{self.digits}f"
        if spread is None:
            return self.question, self.text, "–", "–", "0", self.verdict
        interval = "–" if spread.interval is None else " … ".join(format(end, form) for end in spread.interval)
        return self.question, self.text, format(spread.mean, form), interval, str(spread.n), self.verdict


def decide(rows: Rows) -> Iterator[Decided]:
    """Yield every statistic, in the order of the questions; errors are in points of per cent."""
    above, below = {"low": 0.0}, {"high": 0.0}

    def over(process: tuple[float, float], generation: int, measure: Measure) -> Spread | None:
        wanted = (row for row in rows if (row["f_a1"], row["generation"]) == (process[0], generation))
        own = (row for row in wanted if generation == 0 or row["lambda"] == process[1])
        values = {row["seed"]: value for row in own if (value := measure(row)) is not None}
        return Spread(values) if values else None

    baseline = over(BORN_AGAIN, 0, _error)
    yield Decided(
        "a. Is a tolerant patriarch worse than the baseline?", "error of M(0): D(0.6,·) − baseline",
        paired_difference(over(TOLERANT[0], 0, _error), baseline), **above,
    )  # fmt: skip
    for process in TOLERANT:
        name, last = _name(process), over(process, LAST, _error)
        first, rival = over(process, 0, _error), over(BORN_AGAIN, LAST, _error)
        for question, text, other in (
            ("b. Do its students grow over generations?", f"error in {name}: M({LAST}) − M(0)", first),
            ("b. Do they pass the baseline?", f"error: M({LAST}) of {name} − baseline", baseline),
            ("b. Do they pass the born-again chain?", f"error of M({LAST}): {name} − D(1.0,0.5)", rival),
        ):
            yield Decided(question, text, paired_difference(last, other), **below)
    for process in TOLERANT:
        yield Decided(
            "c. Does the ensemble gain more from it?", f"gain at M({LAST}): {_name(process)} − D(1.0,0.5)",
            paired_difference(over(process, LAST, _gain), over(BORN_AGAIN, LAST, _gain)), **above,
        )  # fmt: skip
    for process in TOLERANT:
        for generation in range(LAST + 1):
            if generation or process == TOLERANT[0]:
                question = "d. Does the energy follow w_g?" if generation else "d. How far is the patriarch from 0.6?"
                name = _name(process) if generation else "D(0.6,·)"
                text = f"primary score: M({generation}) of {name} − w_{generation}"
                yield Decided(question, text, over(process, generation, _excess), -BAND, BAND, digits=3)
    for process in TOLERANT:
        last = over(process, LAST, _calibration)
        for text, other in (
            (f"ECE: M({LAST}) of {_name(process)} − baseline", over(BORN_AGAIN, 0, _calibration)),
            (f"ECE of M({LAST}): {_name(process)} − D(1.0,0.5)", over(BORN_AGAIN, LAST, _calibration)),
        ):
            yield Decided("e. Does calibration improve?", text, paired_difference(last, other), **below)


def markdown(rows: Rows) -> str:
    """Return the table of all statistics with their verdicts."""
    head = ("question", "difference", "mean", "95 % interval", "n", "verdict")
    lines = [head, ("---", "---", "---:", "---:", "---:", "---"), *(decided.cells() for decided in decide(rows))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _name(process: tuple[float, float]) -> str:
    return f"D({process[0]},{process[1]})"


def _error(row: Mapping[str, Any]) -> float:
    return 100 * float(row["top1_error"])


def _gain(row: Mapping[str, Any]) -> float | None:
    together = row["ensemble_top1_error"]
    return None if together is None else _error(row) - 100 * together


def _excess(row: Mapping[str, Any]) -> float:
    return float(row["primary_measured"] - row["primary_predicted"])


def _calibration(row: Mapping[str, Any]) -> float:
    return 100 * float(row["ece"])


if __name__ == "__main__":
    sys.stdout.write(markdown(read_results(RunStore(sys.argv[1]), STUDY)))
