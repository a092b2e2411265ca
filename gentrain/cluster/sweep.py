"""Many chains side by side through Ray Tune: one trial a chain, every shared generation trained once.

A trial holds no device: it waits for its turn at each generation (`gentrain.run.leases`), and Ray Train's worker group
takes the devices only then. A trial that is killed is started again, elsewhere if its node is gone; what it trained
goes on from the newest checkpoint under whichever chain is next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.tune import schedulers
from ray.tune.trainable.function_trainable import wrap_function

from gentrain.cluster.capacity import Capacity, capacity, pending, scaled_up
from gentrain.cluster.metrics import Gauges
from gentrain.cluster.progress import Every, Listener, start_board
from gentrain.cluster.registry import Turns, start_registry
from gentrain.cluster.session import Resources
from gentrain.cluster.trainer import RayRunner
from gentrain.errors import GentrainError, ResourceError, TakenOverError
from gentrain.events import CapacityChanged, Event, GenerationDone, InChain, Note, Observer, Progress
from gentrain.run.chain import run_chain
from gentrain.store.run import RunStore
from gentrain.study.lineage import Chain
from gentrain.study.schema import Study

MAX_TRIAL_FAILURES = 3
"""Restarts of a chain's trial that was killed; errors of the user's making are not retried."""
MAX_TAKEOVERS = 10
"""Times that a chain whose lease lapsed (a node cut off for a while) queues again for the same generation."""
WATCH_SECONDS = 5.0


@dataclass(frozen=True)
class Outcome:
    """How a sweep's trials ended, by the names of their chains; those in neither are finished or were interrupted."""

    failed: Mapping[str, str]
    stopped: frozenset[str]
    """By the scheduler across chains."""


@dataclass(frozen=True)
class _Context:
    """What every trial is told."""

    chains: Mapping[str, Chain]
    points: Mapping[str, Study]
    store: RunStore
    data: str
    resources: Resources
    board: Any
    registry: Any
    runner: type[RayRunner]


def run_trials(
    chains: Sequence[Chain],
    points: Mapping[str, Study],
    priorities: Mapping[str, float],
    *,
    store: RunStore,
    data: str,
    observe: Observer,
    runner: type[RayRunner] = RayRunner,
) -> Outcome:
    """Run the chains to their end on the connected cluster, in the order given.

    Args:
        chains: those that aren't finished.
        points: the study of every chain, by name.
        priorities: urgency of every generation, by key.
        store: opened again wherever a trial runs.
        data: name of the prepared dataset.
        observe: told what happens.
        runner: what trains; another than Ray Train's is for measuring all but the training.
    """
    study = next(iter(points.values()))
    later = scaled_up()
    found = capacity(study, later)
    at_once = min(len(chains), 2 * found.slots, found.drivers)
    observe(Note(_told(found, chains=len(chains), at_once=at_once)))
    observe(CapacityChanged(found.slots))
    board = start_board(f"progress of {study.name}")
    registry = start_registry(priorities, found.slots, name=f"registry of {study.name}")
    context = _Context(
        chains={chain.name: chain for chain in chains},
        points=dict(points),
        store=store,
        data=data,
        resources=found.resources,
        board=board,
        registry=registry,
        runner=runner,
    )
    tuner = tune.Tuner(
        _trainable(context, found.driver_resources),
        param_space={"chain": tune.grid_search([chain.name for chain in chains])},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=at_once,
            scheduler=_scheduler(study),
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=study.name, verbose=0, failure_config=tune.FailureConfig(max_failures=MAX_TRIAL_FAILURES)
        ),
    )
    watch = _Watch(study, later, registry, found.slots, observe)
    try:
        with Listener(board, observe), Every(WATCH_SECONDS, watch):
            results = tuner.fit()
        failed = dict(ray.get(board.failures.remote()))
    finally:
        ray.kill(board)
        ray.kill(registry)
    stopped = set()
    for result in results:
        name = result.config["chain"]
        if result.error is not None:
            failed.setdefault(name, str(result.error).strip().splitlines()[-1])
        elif (result.metrics or {}).get("done") and not result.metrics.get("chain_done"):
            stopped.add(name)
    return Outcome(failed, frozenset(stopped - failed.keys()))


def _trainable(context: _Context, resources: Mapping[str, float]) -> type[tune.Trainable]:
    class ChainTrial(wrap_function(tune.with_parameters(_trial, context=context))):  # type: ignore[misc]
        """An actor that the dashboard lists by its chain; Tune's own would all be called by their function."""

        __qualname__ = "ChainTrial"

        def __repr__(self) -> str:
            return str(self.trial_name)

        @classmethod
        def default_resource_request(cls, config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
            return tune.PlacementGroupFactory([dict(resources)])

    return ChainTrial


def _trial(config: Mapping[str, Any], *, context: _Context) -> None:
    name = config["chain"]
    study, store, board = context.points[name], context.store, context.board
    post: Callable[[Event], None] = board.post.remote
    gauges = Gauges(name)

    def observe(event: Event) -> None:
        gauges(event)
        if isinstance(event, Note):
            post(Note(f"{name}: {event.text}", event.level))
        elif not isinstance(event, Progress):  # too many for the driver of a thousand chains
            post(InChain(name, event))
        if isinstance(event, GenerationDone):
            row = {k: value for k, value in event.row.items() if isinstance(value, int | float | str)}
            last = event.generation + 1 == len(context.chains[name].specs)
            tune.report(row | {"chain_done": last})

    runner = context.runner(
        study,
        store=store,
        data=context.data,
        chain=name,
        observe=observe,
        resources=context.resources,
        turn=Turns(context.registry, store, chain=name),
    )
    reason = f"its lease lapsed {MAX_TAKEOVERS} times; is the head overloaded, or a second sweep on the same store?"
    for _ in range(MAX_TAKEOVERS):
        try:
            run_chain(context.chains[name], study=study, store=store, runner=runner, observe=observe)
        except TakenOverError:
            continue
        except GentrainError as error:
            reason = str(error)
            break
        else:
            return
    ray.get(board.fail.remote(name, reason))


class _Watch:
    """Follows the cluster while a sweep runs: tells the registry of its devices, the user of nodes waited for."""

    def __init__(self, study: Study, later: Mapping[str, float], registry: Any, slots: int, observe: Observer) -> None:
        self._study, self._later, self._registry, self._slots, self._observe = study, later, registry, slots, observe
        self._waiting = self._told = ""

    def __call__(self) -> None:
        try:
            slots = capacity(self._study, self._later).slots
        except ResourceError:
            slots = 0  # what is left holds no training; the cluster may get nodes again
        if slots != self._slots:
            ray.get(self._registry.set_slots.remote(slots))
            self._slots = slots
            self._observe(CapacityChanged(slots))
        waiting = pending()
        if waiting == self._waiting != self._told:  # twice the same: not just on its way
            self._told = waiting
            if waiting:
                self._observe(Note(waiting))
        self._waiting = waiting


def _scheduler(study: Study) -> Any:
    settings = study.scheduler
    if settings.name == "fifo":
        return None
    common = {"time_attr": "generation", "metric": "validation_error", "mode": "min"}
    if settings.name == "asha":
        return schedulers.ASHAScheduler(
            **common, grace_period=settings.grace, reduction_factor=settings.reduction, max_t=max(1, study.generations)
        )
    return schedulers.MedianStoppingRule(**common, grace_period=settings.grace, min_samples_required=2)


def _told(found: Capacity, *, chains: int, at_once: int) -> str:
    return (
        f"{chains} chains to run, {at_once} side by side: the devices hold {found.slots} trainings at once, "
        f"{found.drivers_told}"
    )


def _trial_name(trial: Any) -> str:
    return str(trial.config["chain"])
