"""Train generations with Ray Train: n data-parallel workers, restarted by Ray when one of them dies."""

from __future__ import annotations

import secrets
from functools import cached_property
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import BackendConfig

from gentrain.cluster._compat import trainer_class
from gentrain.cluster.queue import Listener, start_event_queue
from gentrain.cluster.session import Resources, fit_resources
from gentrain.cluster.worker import train_worker
from gentrain.errors import TrainingError
from gentrain.events import Observer
from gentrain.running.chain import Lease, lease_by_claim
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

    Checkpoints are gentrain's own, in the generation's folder, verified by checksum. Ray Train knows of none of them,
    and every attempt has a new run name: Ray Train would resume a run whose name it has seen before.
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
        self.lease = lease or lease_by_claim(store, study=study.name)

    @cached_property
    def _queue(self) -> Any:
        """The event queue of all generations.

        It ends with this process, but its name is free only some time later: hence the random part.
        """
        return start_event_queue(f"events of {self.chain}-{secrets.token_hex(3)}")

    def run_generation(self, spec: GenerationSpec, *, claim: Claim, weights_done: bool = False) -> None:
        """Train `spec` until its DONE.json is written.

        Raises:
            GentrainError: what a worker raised, for errors of the user's making.
            TrainingError: when the workers died too often.
        """
        folder, token = self.store.generation(spec.key), claim.token
        job = Job(
            spec=spec,
            store=self.store,
            data=self.data,
            token=token,
            evaluate_every=self.study.evaluate_every,
            memory_efficient=self.study.network.memory_efficient,
            auto_compile=self.study.compile == "auto",
            weights_done=weights_done,
        )
        run = f"{self.chain}-g{spec.generation}-{spec.key}-{token[:6]}"
        resources = self.resources
        trainer = Trainer(
            train_worker,
            train_loop_config={
                "job": job,
                "queue": self._queue,
                "threads": resources.cpus,
                "cuda": resources.cuda,
                "pinned": self.study.pin_workers and resources.cuda,
            },
            backend_config=backend(resources),
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=resources.cuda,
                resources_per_worker={"CPU": resources.cpus, **({"GPU": resources.gpus} if resources.cuda else {})},
            ),
            run_config=RunConfig(
                name=run,
                storage_path=folder.train.path,
                storage_filesystem=folder.train.filesystem,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        failure: Exception | None = None
        with Listener(self._queue, self.observe, attempt=token) as listener:
            try:
                trainer.fit()
            except ray.train.TrainingFailedError as error:
                failure = error
        if listener.error is not None:
            raise listener.error
        if failure is not None:
            raise TrainingError(
                f"generation {spec.generation} ({spec.key}): its workers failed {MAX_FAILURES + 1} times: "
                f"{str(failure).strip().splitlines()[-1]}; the newest checkpoint stays, run the same command again"
            ) from failure


def backend(resources: Resources) -> BackendConfig:
    """Return how the workers communicate: through torch's process group, or not at all for one worker on CPUs.

    Ray Train's controller imports torch for a process group, which takes seconds. NCCL refuses two ranks on one GPU, so
    workers that share a GPU communicate through gloo.
    """
    if resources.workers == 1 and not resources.cuda:
        return BackendConfig()
    from ray.train.torch import TorchConfig

    return TorchConfig(backend="nccl" if resources.cuda and resources.gpus == 1 else "gloo")
