"""Two workers that are stopped and go on end in the same bits: networks beside the model, images that are mixed."""

import pytest
import torch
import torch.distributed as dist

from gentrain.data.prepare.share import prepare_shared
from gentrain.store.done import AVERAGE, MODEL
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_chain
from gentrain.train import generation as engine
from gentrain.train.job import Job
from gentrain.train.workers import Workers
from tests.conftest import claim_token
from tests.train.processes import collect
from tests.train.stops import Stop

SETTINGS = (
    "generations=0", "recipe.epochs=3", "recipe.milestones=[]", "recipe.batch_size=28", "workers=2", "evaluate_every=9",
    "recipe.mixup=0.4", "recipe.cutmix=1", "recipe.ema={decay: 0.9, as: teacher}",
    "process={patriarch: {name: ps_kd}, lambda: 0}",
)  # fmt: skip


def work(rank, folder, job, stop, results):
    """Train as one of two workers; stop both before an epoch."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group-{stop}", rank=rank, world_size=2)
    train_epoch = engine.train_epoch

    def stopping(epoch, **rest):
        if epoch == stop:
            raise Stop
        return train_epoch(epoch, **rest)

    engine.train_epoch = stopping
    ended = "stopped"
    try:
        workers = Workers(rank=rank, world_size=2, device=torch.device("cpu"), threads=1)
        engine.train_generation(job, workers, lambda _: None)
        ended = "finished"
    except Stop:
        pass
    results.put(ended)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_workers_resume_in_the_same_bits(small, tmp_path):
    """Only the last epoch is evaluated, after which all have the first one's statistics: a teacher has them anyway."""
    study, ends = small(*SETTINGS), []
    for name, stops in (("whole", (None,)), ("parts", (2, None))):
        store = RunStore(str(tmp_path / name))
        data = prepare_shared(study.dataset, store)
        (spec,) = build_chain(study, data=data.manifest.fingerprint, num_classes=10).specs
        folder = store.generation(spec.key)
        job = Job(spec=spec, store=store, data=data.folder.name, token=claim_token(folder), evaluate_every=9)
        for stop in stops:
            wanted = "finished" if stop is None else "stopped"
            assert collect(work, 2, str(tmp_path / name), job, stop) == [wanted] * 2
        ends.append([folder.read_verified(file) for file in (MODEL, AVERAGE)])
    assert ends[0] == ends[1]
