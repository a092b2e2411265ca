"""Run chains side by side with Ray Tune: one trial per chain, every shared generation trained once.

A trial holds no device: it waits for the lease of each generation (`gentrain.running.leases`), and only then Ray
Train's worker group takes the devices. It keeps them for the next generation whose lease is granted at once. Ray Tune
starts a killed trial again, on another node if it must; its generation goes on from the newest checkpoint under the
chain that gets the lease next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.tune import schedulers

from gentrain.cluster._compat import function_trainable
from gentrain.cluster.capacity import Capacity, capacity, pending, scaled_up
from gentrain.cluster.leases import ChainLeases, start_lease_actor
from gentrain.cluster.metrics import Gauges
from gentrain.cluster.queue import Listener, Periodic, start_event_queue
from gentrain.cluster.session import Resources
from gentrain.cluster.trainer import RayRunner
from gentrain.errors import GentrainError, ResourceError, TakenOverError, TrainingError
from gentrain.events import CapacityChanged, Event, GenerationDone, InChain, Note, Observer, Progress
from gentrain.models.registry import search_functions, searched_folders
from gentrain.running.chain import attempt_chain
from gentrain.running.executor import Outcome
from gentrain.store.run import RunStore
from gentrain.study.lineage import Chain
from gentrain.study.schema import Study

MAX_TRIAL_FAILURES = 3
"""Restarts of a trial that was killed; errors of the user's making are not retried."""
MAX_TAKEOVERS = 10
"""Attempts of a chain whose lease lapsed, because its node was cut off for a while, say."""
WATCH_SECONDS = 5.0


@dataclass(frozen=True)
class _Context:
    """What every trial needs besides the name of its chain."""

    chains: Mapping[str, Chain]
    store: RunStore
    data: str
    resources: Resources
    queue: Any
    leases: Any
    runner: type[RayRunner]
    folders: tuple[str, ...]
    """Where modules of the user's are looked for, too: beside the study file."""


def run_trials(
    chains: Sequence[Chain],
    *,
    store: RunStore,
    data: str,
    urgencies: Mapping[str, float],
    observe: Observer,
    runner: type[RayRunner] = RayRunner,
) -> Outcome:
    """Run the chains to their end on the connected cluster, in the order given.

    Args:
        chains: those that aren't finished.
        store: opened again in every trial.
        data: name of the prepared dataset.
        urgencies: of every generation, by key: the work that waits for it.
        observe: called with every event.
        runner: class that trains generations; benchmarks replace it to measure everything but training.

    Raises:
        ResourceError: when the cluster can never hold one training.
    """
    study = chains[0].settings
    later = scaled_up()
    room = capacity(study, later)
    at_once = min(len(chains), 2 * room.slots, room.drivers)
    observe(Note(_headline(room, chains=len(chains), at_once=at_once)))
    observe(CapacityChanged(room.slots))
    queue = start_event_queue(f"events of {study.name}")
    leases = start_lease_actor(urgencies, room.slots, name=f"leases of {study.name}")
    context = _Context(
        chains={chain.name: chain for chain in chains},
        store=store,
        data=data,
        resources=room.resources,
        queue=queue,
        leases=leases,
        runner=runner,
        folders=searched_folders(),
    )
    tuner = tune.Tuner(
        _trainable(context, room.driver_resources),
        param_space={"chain": tune.grid_search([chain.name for chain in chains])},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=at_once,
            scheduler=_scheduler(study),
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=study.name,
            storage_path=str(store.log(study.name).with_name("ray")),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=MAX_TRIAL_FAILURES),
        ),
    )
    watch = _Watch(study, later, leases, room.slots, observe)
    try:
        with Listener(queue, observe), Periodic(WATCH_SECONDS, watch):
            results = tuner.fit()
        ended: Mapping[str, GentrainError | None] = ray.get(queue.ended.remote())
    finally:
        ray.kill(queue)
        ray.kill(leases)
    return _outcome(results, ended, scheduled=study.scheduler.name != "fifo")


def _outcome(results: Iterable[Any], ended: Mapping[str, GentrainError | None], *, scheduled: bool) -> Outcome:
    """Return how the sweep ended.

    After Ctrl-C, Ray Tune returns results as usual; what shows it are trials that haven't ended.

    Args:
        results: Ray Tune's, one per trial.
        ended: what stopped each chain that ran to its end, by its name; None for those that are finished.
        scheduled: whether a scheduler across chains may have stopped some.
    """
    failed = {name: error for name, error in ended.items() if error is not None}
    stopped: set[str] = set()
    interrupted = False
    for result in results:
        name, metrics = result.config["chain"], result.metrics or {}
        if name in ended:
            continue
        if result.error is not None:
            failed[name] = TrainingError(str(result.error).strip().splitlines()[-1])
        elif not metrics.get("done"):
            interrupted = True
        elif not metrics.get("chain_done"):
            if scheduled:
                stopped.add(name)
            else:
                interrupted = True  # its end was posted, and lost with the event queue's process
    return Outcome(failed, frozenset(stopped), interrupted)


def _trainable(context: _Context, resources: Mapping[str, float]) -> type[tune.Trainable]:
    class ChainTrial(function_trainable(tune.with_parameters(_trial, context=context))):  # type: ignore[misc]
        """Runs one chain in an actor that Ray's dashboard lists by the chain's name."""

        __qualname__ = "ChainTrial"

        def __repr__(self) -> str:
            return str(self.trial_name)

        @classmethod
        def default_resource_request(cls, config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
            return tune.PlacementGroupFactory([dict(resources)])

    return ChainTrial


def _trial(config: Mapping[str, Any], *, context: _Context) -> None:
    search_functions(*context.folders)
    name = config["chain"]
    chain, store, queue = context.chains[name], context.store, context.queue
    post: Callable[[Event], None] = queue.post.remote
    gauges = Gauges(name, study=chain.settings.name)

    def observe(event: Event) -> None:
        gauges(event)
        if isinstance(event, Note):
            post(event if event.once else Note(f"{name}: {event.text}", event.level))
        elif not isinstance(event, Progress):  # too many for the driver of a thousand chains
            post(InChain(name, event))
        if isinstance(event, GenerationDone):
            row = {k: value for k, value in event.row.items() if isinstance(value, int | float | str)}
            last = event.generation + 1 == len(chain.specs)
            tune.report(row | {"chain_done": last})

    with context.runner(
        chain.settings,
        store=store,
        data=context.data,
        chain=name,
        observe=observe,
        resources=context.resources,
        lease=ChainLeases(context.leases, store, study=chain.settings.name, chain=name),
    ) as runner:
        for _ in range(MAX_TAKEOVERS):
            error = attempt_chain(chain, store=store, runner=runner, observe=observe)
            if not isinstance(error, TakenOverError):
                break
        else:
            error = TrainingError(
                f"its lease lapsed {MAX_TAKEOVERS} times; is a machine overloaded, or cut off from the head or the "
                "store?"
            )
    ray.get(queue.end.remote(name, error))


class _Watch:
    """Follows the cluster's size while a sweep runs: updates the lease actor's slots, reports nodes waited for."""

    def __init__(self, study: Study, later: Mapping[str, float], leases: Any, slots: int, observe: Observer) -> None:
        self._study, self._later, self._leases, self._slots, self._observe = study, later, leases, slots, observe
        self._waiting = self._reported = ""

    def __call__(self) -> None:
        try:
            slots = capacity(self._study, self._later).slots
        except ResourceError:
            slots = 0  # the nodes left hold no training, but more may come
        if slots != self._slots:
            ray.get(self._leases.set_slots.remote(slots))
            self._slots = slots
            self._observe(CapacityChanged(slots))
        waiting = pending()
        if waiting == self._waiting != self._reported:  # the same twice: not just for a moment
            self._reported = waiting
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


def _headline(room: Capacity, *, chains: int, at_once: int) -> str:
    return (
        f"{chains} chains to run, {at_once} side by side: the devices hold {room.slots} trainings at once, "
        f"{room.drivers_reason}"
    )


def _trial_name(trial: Any) -> str:
    return str(trial.config["chain"])
