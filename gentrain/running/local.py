"""The local executor: chains one after the other in this process, without Ray, so that breakpoints work."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch

from gentrain.errors import GentrainError, ResourceError
from gentrain.events import CapacityChanged, Event, InChain, Observer
from gentrain.running.chain import attempt_chain, lease_by_claim
from gentrain.running.executor import Outcome
from gentrain.store.record import Claim
from gentrain.store.run import RunStore
from gentrain.study.lineage import Chain, GenerationSpec
from gentrain.study.schema import Study
from gentrain.train.allocator import keep_freed_memory
from gentrain.train.generation import train_generation
from gentrain.train.job import Job
from gentrain.train.workers import Workers


class LocalRunner:
    """Trains generations in this process; the same interface as `gentrain.cluster.trainer.RayRunner`."""

    def __init__(self, study: Study, *, store: RunStore, data: str, observe: Observer) -> None:
        keep_freed_memory()
        self.study, self.store, self.data, self.observe = study, store, data, observe
        self.lease = lease_by_claim(store, study=study.name)
        cuda = study.device != "cpu" and torch.cuda.is_available()
        self.device = torch.device("cuda:0" if cuda else "cpu")

    def run_generation(self, spec: GenerationSpec, *, claim: Claim, weights_done: bool = False) -> None:
        """Train `spec` to its DONE."""
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
        threads = self.study.cpus_per_worker or len(os.sched_getaffinity(0))
        train_generation(job, Workers(rank=0, world_size=1, device=self.device, threads=threads), self.observe)


class LocalExecutor:
    """Runs chains one after the other in this process."""

    here, concurrent = True, False

    def check(self, study: Study) -> None:
        """Raise ResourceError where one process on this machine can't run the study."""
        if study.workers != 1:
            raise ResourceError(f"workers: {study.workers}: --local has one process; set workers: 1 or use Ray")
        if study.device == "cuda" and not torch.cuda.is_available():
            raise ResourceError("device: cuda: torch finds no GPU here; set device: auto or cpu")
        if study.precision == "tf32" and not torch.cuda.is_available():
            raise ResourceError("precision: tf32 is for GPUs and torch finds none here; set precision: fp32 or bf16")
        if study.scheduler.name != "fifo":
            raise ResourceError(
                f"scheduler.name: {study.scheduler.name}: --local runs one chain after the other; set fifo or use Ray"
            )

    def run(
        self, chains: Sequence[Chain], *, store: RunStore, data: str, urgencies: Mapping[str, float], observe: Observer
    ) -> Outcome:
        """Run the chains in the order given; one that fails doesn't end the others."""
        observe(CapacityChanged(1))
        failed: dict[str, GentrainError] = {}
        for chain in chains:

            def observe_chain(event: Event, name: str = chain.name) -> None:
                observe(InChain(name, event))

            runner = LocalRunner(chain.settings, store=store, data=data, observe=observe_chain)
            error = attempt_chain(chain, store=store, runner=runner, observe=observe_chain)
            if error is not None:
                failed[chain.name] = error
        return Outcome(failed, stopped=frozenset(), interrupted=False)
