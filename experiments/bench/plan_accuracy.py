"""Hold estimates of `gentrain plan` against what happens: train small networks, hide one at a time, estimate it.

    .venv/bin/python -m experiments.bench.plan_accuracy

Every network trains a patriarch and a student on one core, in rounds, so that other load on the machine meets them all.
Then each is estimated from the others alone, as if it had never been timed.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import typer

from experiments.bench.rows import machine

NETWORKS = ("resnet8", "resnet14", "resnet20", "resnet20-strided", "densenet16-k12", "densenet22-k12")
CLASSES, BATCH, SIDE, EPOCHS = 10, 64, 32, 2


def images(dataset: Any) -> Any:
    """Return random images, a source of gentrain's."""
    from gentrain.data.sources.formats import SourceData, Split

    del dataset
    draw = np.random.default_rng(0)

    def split(count: int) -> Split:
        return Split(draw.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8), np.arange(count) % CLASSES)

    classes = tuple(str(label) for label in range(CLASSES))
    return SourceData({"train": split(8 * BATCH), "test": split(BATCH)}, classes)


def study(network: str, *, seed: int = 0) -> Any:
    """Return a patriarch and a student of a few epochs."""
    from gentrain.study.loading import parse_study

    settings = {
        "name": f"accuracy-{network}-{seed}",
        "dataset": {"source": "experiments.bench.plan_accuracy:images"},
        "network": {"name": network},
        "recipe": {"epochs": EPOCHS, "batch_size": BATCH, "milestones": [], "learning_rate": 0.01},
        "generations": 1,
        "seed": seed,
        "evaluate_every": EPOCHS,
        "compile": False,
        "cpus_per_worker": 1,
        "device": "cpu",
    }
    return parse_study(settings, where="plan_accuracy.py")


class Clock:
    """Takes the events of a run; keeps the seconds and the CPU seconds of each generation's epochs, by key."""

    def __init__(self) -> None:
        self.taken: dict[str, tuple[float, float]] = {}
        self._key, self._began = "", (0.0, 0.0)

    def __call__(self, event: Any) -> None:
        """See `gentrain.events`."""
        from gentrain.events import EpochDone, GenerationStarted

        now = (time.perf_counter(), time.process_time())
        if isinstance(event, GenerationStarted):
            self._key, self._began = event.key, now
        elif isinstance(event, EpochDone):
            wall, used = (there - before for there, before in zip(now, self._began, strict=True))
            self.taken[self._key] = wall, used


def compare(store: Any, network: str, *, rounds: int, taken: Mapping[str, float], others: Sequence[str]) -> list[Any]:
    """Return name, true images/s, guessed ones and their band, and slowest / fastest round, of patriarch and student.

    Args:
        store: where they were trained.
        network: that is hidden.
        rounds: trainings of each.
        taken: seconds of each generation, by key.
        others: networks from which it is estimated.
    """
    from gentrain.data.prepare.share import prepare_shared
    from gentrain.running.estimator import Estimator
    from gentrain.running.survey import Example, Survey
    from gentrain.study.lineage import build_forest

    manifest = prepare_shared(study(network).dataset, store).manifest
    count = manifest.splits["train"].count * EPOCHS

    def trained(name: str) -> list[list[Any]]:
        """Return the specs of the patriarchs, and of the students."""
        studies = [study(name, seed=seed) for seed in range(rounds)]
        forests = [build_forest(each, data=manifest.fingerprint, num_classes=CLASSES) for each in studies]
        return [[list(forest.specs.values())[place] for forest in forests] for place in (0, 1)]

    examples: dict[Any, Example] = {}
    for other in others:
        for specs in trained(other):
            done = store.generation(specs[0].key).done()
            seconds = [taken[spec.key] / EPOCHS for spec in specs]
            examples[other, specs[0].work] = Example(seconds, specs[0], done)
    wanted = study(network)
    forest = build_forest(wanted, data=manifest.fingerprint, num_classes=CLASSES)
    estimator = Estimator(wanted, store=store, manifest=manifest)
    guesses = estimator(forest, Survey({}, examples), list(forest.specs))
    rows = []
    for key, specs in zip(forest.specs, trained(network), strict=True):
        seconds, guess = [taken[spec.key] for spec in specs], guesses[key]
        true, spread = statistics.median(seconds), max(seconds) / min(seconds)
        speeds = [count / value for value in (true, guess.seconds, guess.high, guess.low)]
        rows.append((f"{network} {specs[0].work}", *speeds, spread))
    return rows


def table(rows: Sequence[Any]) -> str:
    """Return the rows as Markdown, and how many are right."""
    lines = ["| training | images/s | estimated | nine of ten | error of seconds | slowest / fastest round |",
             "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    errors = [true / guessed - 1 for _, true, guessed, *_ in rows]
    for (name, true, guessed, low, high, spread), error in zip(rows, errors, strict=True):
        band = f"{low:,.0f} – {high:,.0f}"
        lines.append(f"| {name} | {true:,.0f} | {guessed:,.0f} | {band} | {100 * error:+.0f} % | {spread:.2f} |")
    inside = sum(abs(error) <= 0.3 for error in errors)
    worst = 100 * max(map(abs, errors))
    return "\n".join([*lines, "", f"{inside} of {len(rows)} within ± 30 %; the worst is off by {worst:.0f} %."])


def main(
    networks: Annotated[str, typer.Option(help="By commas.")] = ",".join(NETWORKS),
    rounds: Annotated[int, typer.Option(help="Trainings of each network; their median counts.")] = 3,
) -> None:
    """Train, hide, estimate, print."""
    from gentrain import api
    from gentrain.store.run import RunStore

    names, clock, before = networks.split(","), Clock(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="gentrain-accuracy-") as folder:
        for seed in range(rounds):
            for network in names:
                api.run(study(network, seed=seed), runs=folder, local=True, progress=clock)
        store = RunStore(folder)
        for place, what in enumerate(("by the clock", "by CPU seconds, which other load changes less")):
            taken = {key: seconds[place] for key, seconds in clock.taken.items()}
            rows: list[Any] = []
            for network in names:
                others = [name for name in names if name != network]
                rows += compare(store, network, rounds=rounds, taken=taken, others=others)
            typer.echo(f"{what}\n\n{table(rows)}\n")
    made = machine()
    load = f"load {before:.1f} before, {os.getloadavg()[0]:.1f} after"
    typer.echo(f"{load}, {made['machine']}, commit {made['commit']}, {made['date']}.")


if __name__ == "__main__":
    typer.run(main)
