"""Train generations with Ray Train: n data-parallel workers, restarted by Ray when one of them dies.

A run of Ray Train is a worker group that trains one generation after the other. Between two, the chain reads the
results and asks for its next lease; the workers wait and ask the chain's event queue for their next job. Where the
lease must be waited for, or comes late, they leave, and their devices are another chain's.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Self

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import BackendConfig

from gentrain.cluster._compat import StartedRun, trainer_class
from gentrain.cluster.queue import POLL_SECONDS, PostedJob, Standing, start_event_queue
from gentrain.cluster.session import Resources, fit_resources
from gentrain.cluster.worker import train_worker
from gentrain.errors import GentrainError, TrainingError
from gentrain.events import Event, Observer
from gentrain.models.registry import searched_folders
from gentrain.running.chain import Lease, lease_by_claim
from gentrain.store.claims import Waiting
from gentrain.store.record import Claim
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec
from gentrain.study.schema import Study
from gentrain.train.job import Job

Trainer = trainer_class()

MAX_FAILURES = 3
"""Restarts of a worker group before a generation fails; every restart goes on from the newest checkpoint."""


class RayRunner:
    """Trains generations with Ray Train on the connected cluster (see `session.ray_session`).

    A context manager: at the end of its block no worker is left. Checkpoints are gentrain's own, in the generation's
    folder, verified by checksum. Ray Train knows of none of them, and every group has a new run name: Ray Train would
    resume a run whose name it has seen before.
    """

    def __init__(
        self,
        study: Study,
        *,
        store: RunStore,
        data: str,
        chain: str,
        observe: Observer,
        resources: Resources | None = None,
        lease: Lease | None = None,
    ) -> None:
        self.study, self.store, self.data, self.chain, self.observe = study, store, data, chain, observe
        self.resources = resources or fit_resources(study, ray.cluster_resources())
        self._lease = lease or lease_by_claim(store, study=study.name)
        self._group: _Group | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let the workers leave; after an exception, such as Ctrl-C, they do so unattended."""
        if kind is None:
            self.give_back()

    def lease(self, spec: GenerationSpec, *, waiting: Waiting) -> AbstractContextManager[Claim | None]:
        """See `gentrain.running.chain.Lease`; the devices of the generation before are given back for a wait."""

        def wait_without_devices(who: str) -> None:
            self.give_back()
            waiting(who)

        return self._lease(spec, waiting=wait_without_devices)

    def run_generation(self, spec: GenerationSpec, *, claim: Claim, weights_done: bool = False) -> None:
        """Train `spec` until its DONE.json is written, in the group of the generation before where that is there.

        Raises:
            GentrainError: what a worker raised, for errors of the user's making.
            TrainingError: when the workers died too often.
        """
        job = Job(
            spec=spec,
            store=self.store,
            data=self.data,
            token=claim.token,
            evaluate_every=self.study.evaluate_every,
            memory_efficient=self.study.network.memory_efficient,
            auto_compile=self.study.compile == "auto",
            weights_done=weights_done,
        )
        group, self._group = self._group, None
        if group is not None and not group.train(job, self.observe):
            group.leave()
            group = None
        if group is None:
            group = self._start_group(job)
            if not group.train(job, self.observe):
                return  # the chain finds no valid result, and says so
        self._group = group

    def give_back(self) -> None:
        """Let workers that wait for a generation leave; their devices are free then."""
        group, self._group = self._group, None
        if group is not None:
            group.leave()

    @cached_property
    def _queue(self) -> Any:
        """The event queue of all generations.

        It ends with this process, but its name is free only some time later: hence the random part.
        """
        return start_event_queue(f"events of {self.chain}-{secrets.token_hex(3)}")

    def _start_group(self, job: Job) -> _Group:
        """Start workers whose first job this is."""
        spec, resources = job.spec, self.resources
        folder = self.store.generation(spec.key)
        name = f"{self.chain}-g{spec.generation}-{spec.key}-{job.token[:6]}"
        trainer = Trainer(
            train_worker,
            train_loop_config={
                "group": name,
                "queue": self._queue,
                "threads": resources.cpus,
                "cuda": resources.cuda,
                "folders": searched_folders(),
                "pin": self.study.pin_workers,
            },
            backend_config=backend(resources),
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=resources.cuda,
                resources_per_worker={"CPU": resources.cpus, **({"GPU": resources.gpus} if resources.cuda else {})},
            ),
            run_config=RunConfig(
                name=name,
                storage_path=folder.train.path,
                storage_filesystem=folder.train.filesystem,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        return _Group(name, self._queue, start=trainer.fit)


class _Group:
    """Workers of one run of Ray Train, which wait for a job, or train it."""

    def __init__(self, name: str, queue: Any, *, start: Callable[[], StartedRun]) -> None:
        self._name, self._queue = name, queue
        self._run = start()

    def train(self, job: Job, observe: Observer) -> bool:
        """Let the workers train a job, whose events `observe` gets; return False where they had left before.

        Raises:
            GentrainError: what a worker raised, for errors of the user's making.
            TrainingError: when the workers died too often.
        """
        if self._over(seconds=0):
            return False
        posted = PostedJob(job.token, ray.put(job))
        failure: GentrainError | None = None
        over = False
        while True:
            events, standing = self._offer(posted)
            for event in events:
                if isinstance(event, GentrainError):
                    failure = event
                else:
                    observe(event)
            if failure is None and standing != "open":
                return standing == "done"
            if over:
                break
            over = self._over(seconds=POLL_SECONDS)  # what the workers have posted by then is fetched once more
        if failure is not None:
            raise failure
        try:
            self._run.check()
        except ray.train.TrainingFailedError as error:
            raise TrainingError(
                f"generation {job.spec.generation} ({job.spec.key}): its workers failed {MAX_FAILURES + 1} times: "
                f"{str(error).strip().splitlines()[-1]}; the newest checkpoint stays, run the same command again"
            ) from error
        return False

    def _offer(self, posted: PostedJob) -> tuple[list[Event | GentrainError], Standing]:
        """See `EventQueue.offer`; a queue that is being started again answers the next time."""
        with contextlib.suppress(ray.exceptions.RayError):
            events, standing = ray.get(self._queue.offer.remote(self._name, posted), timeout=10)
            return events, standing
        return [], "open"

    def leave(self) -> None:
        """Let the workers leave, and wait until they have: devices of a controller that was dropped stay taken.

        Raises:
            RayError: when the controller has died, so that nothing frees its devices (see `trainer_class`).
        """
        with contextlib.suppress(ray.exceptions.RayError):  # without the message they leave some time later
            ray.get(self._queue.close.remote(self._name), timeout=10)
        self._over(seconds=None)
        with contextlib.suppress(ray.train.TrainingFailedError):  # of workers that had nothing to do
            self._run.check()

    def _over(self, *, seconds: float | None) -> bool:
        """Return whether the workers' run is over, in so many seconds at most."""
        over, _ = ray.wait([self._run.running], timeout=seconds)
        return bool(over)


def backend(resources: Resources) -> BackendConfig:
    """Return how the workers communicate: through torch's process group, or not at all for one worker on CPUs.

    Ray Train's controller imports torch for a process group, which takes seconds. NCCL refuses two ranks on one GPU, so
    workers that share a GPU communicate through gloo.
    """
    if resources.workers == 1 and not resources.cuda:
        return BackendConfig()
    from ray.train.torch import TorchConfig

    return TorchConfig(backend="nccl" if resources.cuda and resources.gpus == 1 else "gloo")
