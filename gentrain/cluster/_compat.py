"""All private and half-private names of Ray that gentrain uses, each with the reason.

A missing name is an error (`gentrain.upstream`) when it is first used, not when this module is imported: this module
sets what Ray reads when it is imported, and an actor that only needs Ray's core should not import Ray Train and Tune.
`trainer_class` runs when `gentrain.cluster.trainer` is imported, before anything is trained. Ray 2.57, 2.58, 2.59 and
2.60 have all names.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from gentrain.train.allocator import HUGE_PAGES
from gentrain.upstream import Library

RAY = Library("ray", works=">=2.57,<2.61")

STATE_TRACKING = "RAY_TRAIN_ENABLE_STATE_TRACKING"
HEALTH_CHECK_INTERVAL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
PREEMPTION_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
"""Ray Train's watch for machines that are taken away (https://github.com/ray-project/ray/pull/63807)."""
REACHABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""`0`: nodes have the address 127.0.0.1, and every server listens there only, as is Ray's default on Windows and macOS.
`ray.init(_node_ip_address="127.0.0.1")` takes the machine's own address instead."""
AUTH_MODE = "RAY_AUTH_MODE"
"""`token` or `disabled`: whether Ray asks for a token and sends one."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without it Ray's API lists no Train runs (/api/train/v2/runs).
    STATE_TRACKING: "1",
    # Workers' reports are collected this often; with the default of 2 s short epochs wait
    # (https://github.com/ray-project/ray/pull/56718).
    HEALTH_CHECK_INTERVAL: "0.5",
    # A machine may have to be bought and booted first; the default is 60 s
    # (https://github.com/ray-project/ray/pull/60376).
    START_TIMEOUT: "1800",
    # Without Tune's new progress output: the views show what happens.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Processes that ask for no GPU keep CUDA_VISIBLE_DEVICES as it is, which has become Ray's default
    # (https://github.com/ray-project/ray/pull/62492).
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray starts workers with niceness 15 (https://github.com/ray-project/ray/pull/24928): every other process goes
    # first, and a training step waits for its slowest thread.
    "RAY_worker_niceness": "0",
    # torch reads it before a worker runs anything of gentrain's.
    HUGE_PAGES: "1",
}
"""What gentrain asks of Ray, where the user hasn't set it; deploy/environment.sh sets the same on a cluster's nodes."""

AUTOSCALER_OPTION = "--autoscaling-config="
"""Option of Ray's monitor process on the head: the file from which its autoscaler reads what it may start, which no API
returns (https://github.com/ray-project/ray/issues/37838). Without it only nodes that are up are counted."""


def health_check(address: str) -> list[str]:
    """Return the command that succeeds where the cluster at `address` lets it in: `ray health-check`, which is hidden.

    It runs by its module, as `ray` may not be on the PATH, and isn't imported here: it would read the environment.
    """
    for script in metadata.entry_points(group="console_scripts", name="ray"):
        return [sys.executable, "-m", script.module, "health-check", "--address", address]
    raise RAY.gone("console script `ray`")


def set_reachable(*, reachable: bool) -> bool:
    """Set whether nodes that this process starts can be reached from other machines; return what was set before.

    Ray reads the environment variable `REACHABLE` when it is imported, which may have been long ago.
    """
    with RAY.modules():
        from ray._private import ray_constants
    before: bool = RAY.private(ray_constants, "ENABLE_RAY_CLUSTER")
    ray_constants.ENABLE_RAY_CLUSTER = reachable
    return before


@functools.cache
def head_resource() -> str:
    """Return the resource that only the head node has, to place an actor there.

    Ray has no public name for it (https://github.com/ray-project/ray/issues/15930).
    """
    with RAY.modules():
        from ray._common import constants
    name: str = RAY.private(constants, "HEAD_NODE_RESOURCE_NAME")
    return name


def cluster_status() -> Any:
    """Return what the connected cluster has no node for yet and which nodes are being started, as `ray status` does.

    The public way is that command's text (https://github.com/ray-project/ray/issues/37838).
    """
    with RAY.modules():
        import ray
        from ray.autoscaler.v2 import sdk
    return RAY.private(sdk, "get_cluster_status")(ray.get_runtime_context().gcs_address)


def function_trainable(function: Callable[..., Any]) -> Any:
    """Return the actor class that Tune makes of a trial's function, to be subclassed.

    All its actors would bear the function's name on the dashboard (https://github.com/ray-project/ray/issues/32903).
    """
    with RAY.modules():
        from ray.tune.trainable import function_trainable as module
    return RAY.private(module, "wrap_function")(function)


@dataclass(frozen=True)
class StartedRun:
    """A run of Ray Train that goes on: what `fit` of `trainer_class()` returns."""

    controller: Any
    """Ray Train's actor for the run."""
    running: Any
    """Reference that is ready when the run is over, or its controller dead."""
    error: None = None
    """Where `fit` itself looks for the run's error."""

    def check(self) -> None:
        """Raise what ended a run that is over, if anything did: TrainingFailedError, or an error of Ray's."""
        import ray

        ray.get(self.running)
        if (error := ray.get(self.controller.get_result.remote()).error) is not None:
            raise error


@functools.cache
def trainer_class() -> Any:
    """Return Ray Train's trainer with fewer helper processes, each of which wakes 100 times a second.

    No setting changes these points:

    - It starts no actor for Ray Data, which gentrain doesn't use.
    - The actor that gives back a dead controller's devices (https://github.com/ray-project/ray/pull/58515) is started
      in an actor only, that is in a sweep's trial: when a driver ends, Ray gives back all that it had.
    - `fit` starts the run and doesn't wait for its end: a `StartedRun`. The chain decides what its workers train next
      while they run. Nor does it take Ctrl-C, which raises KeyboardInterrupt as everywhere; Ray Train's own handler
      ends the process (https://github.com/ray-project/ray/pull/53600).
    """
    with RAY.modules():
        import ray
        from ray.train import constants as train_constants
        from ray.train.v2._internal import callbacks, constants
        from ray.train.v2._internal.callbacks import placement_group_callback
        from ray.train.v2._internal.execution import controller
        from ray.train.v2.api import data_parallel_trainer
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    for module, name, value in (
        (train_constants, "RAY_TRAIN_ENABLE_STATE_TRACKING", STATE_TRACKING),
        (constants, "HEALTH_CHECK_INTERVAL_S_ENV_VAR", HEALTH_CHECK_INTERVAL),
        (constants, "WORKER_GROUP_START_TIMEOUT_S_ENV_VAR", START_TIMEOUT),
        (constants, "ENABLE_PREEMPTION_WATCHER_ENV_VAR", PREEMPTION_WATCHER),
    ):
        if RAY.private(module, name) != value:
            raise RAY.gone(value)
    for_ray_data = RAY.private(callbacks, "DatasetsCallback")
    cleaner = RAY.private(placement_group_callback, "PlacementGroupCleanerCallback")
    variables = RAY.private(constants, "get_env_vars_to_propagate")
    controller_class = RAY.private(controller, "TrainController")
    base: Any = RAY.private(data_parallel_trainer, "DataParallelTrainer")
    RAY.private(base, "_create_default_callbacks")
    RAY.private(base, "_initialize_and_run_controller")

    class Trainer(base):
        def _create_default_callbacks(self) -> list[Any]:
            created: list[Any] = super()._create_default_callbacks()
            in_driver = ray.get_runtime_context().get_actor_id() is None
            unused = (for_ray_data, cleaner) if in_driver else (for_ray_data,)
            return [callback for callback in created if not isinstance(callback, unused)]

        def _initialize_and_run_controller(self, **arguments: Any) -> StartedRun:
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            environment = {"env_vars": {"RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0"} | variables()}
            actor = ray.remote(num_cpus=0, scheduling_strategy=here, runtime_env=environment)(controller_class)
            started = actor.remote(**arguments)
            return StartedRun(started, started.run.remote())

    return Trainer
