"""The debug runner: a generation in this process, without Ray, so that breakpoints work. One worker."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch

from gentrain.errors import GentrainError, ResourceError
from gentrain.events import Event, InChain, Observer
from gentrain.run.chain import lease_by_lock, run_chain
from gentrain.store.run import RunStore
from gentrain.study.lineage import Chain, GenerationSpec
from gentrain.study.schema import Study
from gentrain.train.allocator import keep_freed_memory
from gentrain.train.generation import Worker, train_generation
from gentrain.train.job import Job


class LocalRunner:
    """Trains generations here and now; the same interface as `gentrain.cluster.trainer.RayRunner`."""

    def __init__(self, study: Study, *, store: RunStore, data: str, observe: Observer) -> None:
        self.check(study)
        keep_freed_memory()
        self.study, self.store, self.data, self.observe = study, store, data, observe
        self.lease = lease_by_lock(store)
        cuda = study.device != "cpu" and torch.cuda.is_available()
        self.device = torch.device("cuda:0" if cuda else "cpu")

    @staticmethod
    def check(study: Study) -> None:
        """Raise ResourceError where this process can't run the study."""
        if study.workers != 1:
            raise ResourceError(
                f"workers: {study.workers}: the debug runner has one process; set workers: 1 or use Ray"
            )
        if study.device == "cuda" and not torch.cuda.is_available():
            raise ResourceError("device: cuda: torch finds no GPU here; set device: auto or cpu")
        if study.precision == "tf32" and not torch.cuda.is_available():
            raise ResourceError("precision: tf32 is for GPUs and torch finds none here; set precision: fp32 or bf16")
        if study.scheduler.name != "fifo":
            raise ResourceError(
                f"scheduler.name: {study.scheduler.name}: --local runs one chain after the other; set fifo or use Ray"
            )

    def run_generation(self, spec: GenerationSpec, *, weights_done: bool = False) -> None:
        """Train `spec` to its DONE."""
        job = Job(
            spec=spec,
            store=self.store,
            data=self.data,
            token=self.store.generation(spec.key).claim(),
            evaluate_every=self.study.evaluate_every,
            memory_efficient=self.study.network.memory_efficient,
            weights_done=weights_done,
        )
        threads = self.study.cpus_per_worker or len(os.sched_getaffinity(0))
        train_generation(job, Worker(rank=0, world_size=1, device=self.device, threads=threads), self.observe)


def run_chains(
    chains: Sequence[Chain], points: Mapping[str, Study], *, store: RunStore, data: str, observe: Observer
) -> dict[str, str]:
    """Run chains one after the other in this process; return why those that failed did, by their names."""
    failed: dict[str, str] = {}
    for chain in chains:

        def inside(event: Event, name: str = chain.name) -> None:
            observe(InChain(name, event))

        study = points[chain.name]
        runner = LocalRunner(study, store=store, data=data, observe=inside)
        try:
            run_chain(chain, study=study, store=store, runner=runner, observe=inside)
        except GentrainError as error:
            failed[chain.name] = str(error)
    return failed
