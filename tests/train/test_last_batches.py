"""The last batch of an epoch, which may have no image for a worker: over gloo in two processes."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from gentrain.data.loading.loader import Batch
from gentrain.study.lineage import build_chain
from gentrain.study.loading import load_study
from gentrain.train.epoch import train_epoch
from gentrain.train.losses import patriarch_loss
from gentrain.train.workers import Workers
from tests.conftest import SMALL
from tests.train import sync_on_cpu
from tests.train.processes import collect
from tests.train.test_workers import ALONE

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Tail:
    """Two global batches: two images for each worker, then two for rank 0 and none for rank 1; or all for one."""

    num_samples = 6

    def __init__(self, workers):
        self.workers = workers

    def __len__(self):
        return 2

    def epoch(self, epoch):
        images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)).mul(255).to(torch.uint8)
        rank = self.workers.rank
        first = slice(0, 4) if self.workers.alone else slice(2 * rank, 2 * rank + 2)
        for size, part, filler in ((4, first, False), (2, slice(4 + rank, 6), rank == 1)):
            labels, indices = torch.arange(6)[part] % 3, torch.arange(6)[part]
            yield Batch(images=images[part], labels=labels, indices=indices, global_size=size, filler=filler)


def tail_epoch(workers, *, sync):
    """Train an epoch whose last batch has no image for rank 1; return weights and buffers."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*body, nn.BatchNorm1d(4), nn.Linear(4, 3))
    if sync:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    study = load_study(overrides=[*SMALL, "recipe.learning_rate=0.5"])
    train_epoch(
        0,
        spec=build_chain(study, data="0" * 16, num_classes=10).specs[0],
        network=workers.parallel(network, image=(3, 4, 4), count=2, precision="fp32"),
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9),
        task=lambda logits, images, labels: patriarch_loss(logits, labels, eta=0.5, k=2),
        loader=Tail(workers),
        pixels=lambda read, _: read.images.float() / 255,
        workers=workers,
        post=lambda _: None,
    )
    return {name: value.double().tolist() for name, value in network.state_dict().items()}


def work(rank, folder, results):
    torch.set_num_threads(1)
    sync_on_cpu.install()
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    workers = Workers(rank=rank, world_size=2, device=torch.device("cpu"), threads=1)
    try:
        results.put((rank, tail_epoch(workers, sync=False), tail_epoch(workers, sync=True)))
    except Exception as error:
        results.put((rank, repr(error), repr(error)))
        raise
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return what two workers have after the epoch, by rank: with BatchNorm, with SyncBatchNorm."""
    returned = collect(work, 2, tmp_path_factory.mktemp("group"), seconds=120)
    return [values[1:] for values in sorted(returned)]


def test_a_worker_without_images_computes_nothing_and_takes_the_others_step(both):
    """With a BatchNorm at 1 × 1, which can't take statistics of one image."""
    states = [dict(plain) for plain, _ in both]
    counts = [state[f"{layer}.num_batches_tracked"] for state in states for layer in (1, 5)]
    assert counts == [2, 2, 1, 1]
    weights = [{name: value for name, value in state.items() if not name.endswith(STATISTICS)} for state in states]
    assert weights[0] == weights[1]


def test_synchronised_statistics_are_those_of_all_images_and_of_no_filler(both):
    wanted = tail_epoch(ALONE, sync=False)
    for _, synchronised in both:
        assert synchronised.keys() == wanted.keys()
        for name, values in synchronised.items():
            torch.testing.assert_close(torch.tensor(values), torch.tensor(wanted[name]), rtol=1e-4, atol=1e-5)
