"""Many chains side by side through Ray Tune: one trial a chain, every shared generation trained once.

A chain's generations are trained under the lock of their folder (`GenerationFolder.locked`): of several chains that
want one, the first trains it and the others wait for the lock, holding no device. The kernel frees the lock of a trial
that died, so the next one goes on from the newest checkpoint. Nobody holds a device while waiting for a lock, so no two
chains can wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune

from gentrain.chain import run_chain
from gentrain.cluster.progress import Listener, ProgressBoard
from gentrain.cluster.session import fit_resources
from gentrain.cluster.trainer import RayRunner
from gentrain.config import Study
from gentrain.errors import GentrainError
from gentrain.events import Event, GenerationDone, Note, Observer
from gentrain.lineage import Chain
from gentrain.store import RunStore

DRIVER_BYTES = 1.7e9
"""Memory of a running chain's helper processes: its trial, Ray Train's controller, their monitors."""
MAX_TRIAL_FAILURES = 3
"""Restarts of a chain's trial that was killed; errors of the user's making are not retried."""


def run_trials(
    chains: Sequence[Chain], points: Mapping[str, Study], *, store: RunStore, data: Path, observe: Observer
) -> dict[str, str]:
    """Run the chains to their end on the connected cluster, the longest remaining first.

    Returns:
        What went wrong, by the name of the chain; empty when all are finished.
    """
    study = next(iter(points.values()))
    at_once = _at_once(study, len(chains), observe)
    board = ray.remote(num_cpus=0)(ProgressBoard).remote()
    trainable = tune.with_parameters(
        _trial, chains={chain.name: chain for chain in chains}, points=dict(points), store=store, data=data, board=board
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([{"node:__internal_head__": 0.001}])),
        param_space={"chain": tune.grid_search([chain.name for chain in chains])},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=at_once,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=study.name, verbose=0, failure_config=tune.FailureConfig(max_failures=MAX_TRIAL_FAILURES)
        ),
    )
    failures: dict[str, str] = {}
    try:
        with Listener(board, observe):
            results = tuner.fit()
        failures |= ray.get(board.failures.remote())
        for result in results:
            if result.error is not None and result.config["chain"] not in failures:
                failures[result.config["chain"]] = str(result.error).strip().splitlines()[-1]
    finally:
        ray.kill(board)
    return failures


def _trial(
    config: Mapping[str, Any],
    *,
    chains: Mapping[str, Chain],
    points: Mapping[str, Study],
    store: RunStore,
    data: Path,
    board: Any,
) -> None:
    name = config["chain"]
    post: Callable[[Event], None] = board.post.remote

    def observe(event: Event) -> None:
        if isinstance(event, Note):
            post(Note(f"{name}: {event.text}", event.level))
        elif isinstance(event, GenerationDone):
            post(event)
            tune.report({key: value for key, value in event.row.items() if value is not None})

    study = points[name]
    runner = RayRunner(study, store=store, data=data, chain=name, observe=observe)
    try:
        run_chain(chains[name], study=study, store=store, runner=runner, observe=observe)
    except GentrainError as error:
        ray.get(board.fail.remote(name, str(error)))


def _at_once(study: Study, chains: int, observe: Observer) -> int:
    """Return how many chains run side by side: twice what the devices hold (some wait for others), if memory allows."""
    resources = fit_resources(study, ray.cluster_resources())
    available = ray.cluster_resources()
    room = available["CPU"] / (resources.workers * resources.cpus)
    if resources.cuda:
        room = min(room, available["GPU"] / (resources.workers * resources.gpus))
    held = max(1, math.floor(room + 1e-9))
    memory = max(1, int(available["memory"] // DRIVER_BYTES)) if "memory" in available else chains
    at_once: int = min(chains, 2 * held, memory)
    observe(
        Note(
            f"{chains} chains to run, {at_once} side by side: the devices hold {held} trainings at once, memory "
            f"{memory} drivers of {DRIVER_BYTES / 1e9:g} GB"
        )
    )
    return at_once


def _trial_name(trial: Any) -> str:
    return str(trial.config["chain"])
