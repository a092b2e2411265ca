"""What two workers do together, over gloo in two processes: every value and every failure reaches both."""

import queue
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from gentrain import train
from gentrain.data.loading.loader import Batch
from gentrain.errors import GentrainError, TrainingError
from gentrain.train.epoch import check_weights, train_epoch
from gentrain.train.losses import patriarch_loss
from gentrain.train.meter import Meter
from gentrain.train.seeds import epoch_seed
from gentrain.train.workers import Workers

SPEC = SimpleNamespace(generation=2, key="abc")
ALONE = Workers(rank=0, world_size=1, device=torch.device("cpu"), threads=1)


def batch(labels, *, of, filler=False):
    count = len(labels)
    images = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
    return Batch(images=images, labels=torch.tensor(labels), indices=torch.arange(count), global_size=of, filler=filler)


def fail(text):
    raise TrainingError(text)


def failure_of(action):
    try:
        action()
    except GentrainError as error:
        return type(error).__name__, str(error)
    return None


def together(rank, folder, results):
    """Call everything on one of two workers; put what it returns, by name, into the results."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    workers = Workers(rank=rank, world_size=2, device=torch.device("cpu"), threads=1)
    buffers = nn.BatchNorm1d(2)
    buffers.running_mean += rank + 1
    workers.share_buffers(buffers)
    meter = Meter(workers)
    logits = torch.tensor([[2.0, 0.0, 0.0]] * (2 - rank))
    own = batch([0] * (2 - rank), of=3)
    for step in range(4):
        terms = patriarch_loss(logits, own.labels, eta=0.0, k=2)
        loss = terms.loss * (float("nan") if step == 2 + rank else 1)
        meter.add(step, own, logits, terms._replace(loss=loss))
    meter.reduce()
    exploded = nn.BatchNorm1d(2)
    if rank == 1:
        exploded.running_var[1] = float("inf")  # of this worker alone
    acted = []
    results.put((rank, {
        "first": workers.first,
        "alone": workers.alone,
        "sum": workers.sum(torch.tensor([1 + rank])).tolist(),
        "minimum": workers.minimum(torch.tensor([5 - rank, 5 + rank])).tolist(),
        "gather": workers.gather({"rank": rank}),
        "broadcast": workers.broadcast(f"of {rank}"),
        "everywhere": workers.everywhere(lambda: f"own {rank}"),
        "from first": workers.from_first(lambda: acted.append("from first") or b"content"),
        "on first": workers.on_first(lambda: acted.append("on first")),
        "acted": acted,
        "buffers": buffers.running_mean.tolist(),
        "weigh": workers.weigh(torch.tensor(1.0), own).item(),
        "filler": workers.weigh(torch.tensor(1.0), batch([0], of=1, filler=True)).item(),
        "bad step": meter.first_bad_step(),
        "count": meter.means()["count"],
        "weights": failure_of(lambda: check_weights(exploded, SPEC, 4, workers=workers)),
        "finite weights": failure_of(lambda: check_weights(nn.BatchNorm1d(2), SPEC, 4, workers=workers)),
        "fails on the last": failure_of(lambda: workers.everywhere(lambda: fail("of 1") if rank == 1 else None)),
        "fails on both": failure_of(lambda: workers.everywhere(lambda: fail(f"of {rank}"))),
        "fails on the first": failure_of(lambda: workers.on_first(lambda: fail(f"of {rank}"))),
        "can't be read": failure_of(lambda: workers.from_first(lambda: fail(f"of {rank}"))),
        "CPUs": failure_of(lambda: workers.sync_batchnorm(buffers)),
    }))  # fmt: skip
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return what the two workers returned, by rank."""
    context = mp.get_context("spawn")
    results = context.Queue()
    folder: Path = tmp_path_factory.mktemp("group")
    processes = [context.Process(target=together, args=(rank, folder, results)) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        returned = dict(results.get(timeout=240) for _ in processes)
    except queue.Empty:
        pytest.fail("a worker waits for ever, or died")
    finally:
        for process in processes:
            process.join(timeout=30)
            process.kill()
    return [returned[rank] for rank in range(2)]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("sum", [3]),
        ("minimum", [4, 5]),
        ("gather", [{"rank": 0}, {"rank": 1}]),
        ("broadcast", "of 0"),
        ("from first", b"content"),
        ("on first", None),
        ("buffers", [1.0, 1.0]),
        ("bad step", 2),
        ("count", 12.0),
        (
            "weights",
            (
                "TrainingError",
                "generation 2 (abc), epoch 5, after its last step: running_var is not finite; the checkpoint after "
                "epoch 4 stays. Lower recipe.learning_rate, add recipe.warmup_epochs, or use precision: fp32",
            ),
        ),
        ("finite weights", None),
        ("alone", False),
        ("fails on the last", ("TrainingError", "of 1")),
        ("fails on both", ("TrainingError", "of 0")),
        ("fails on the first", ("TrainingError", "of 0")),
        ("can't be read", ("TrainingError", "of 0")),
        ("CPUs", ("GentrainError", "sync_batchnorm: true needs device: cuda; torch has it for GPUs only")),
    ],
)
def test_both_workers_get_the_same(both, name, wanted):
    assert [worker[name] for worker in both] == [wanted, wanted]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("first", [True, False]),
        ("everywhere", ["own 0", "own 1"]),
        ("acted", [["from first", "on first"], []]),
        ("weigh", pytest.approx([4 / 3, 2 / 3])),
        ("filler", [0, 0]),
    ],
)
def test_each_worker_gets_its_own(both, name, wanted):
    assert [worker[name] for worker in both] == wanted


def test_one_worker_needs_no_process_group():
    loss, values, network = torch.tensor(1.0), torch.tensor([3]), nn.BatchNorm1d(2)
    assert ALONE.alone
    assert ALONE.first
    assert ALONE.sum(values) is ALONE.minimum(values) is values
    assert ALONE.gather(1) == [1]
    assert ALONE.broadcast(1) == ALONE.from_first(lambda: 1) == ALONE.everywhere(lambda: 1) == 1
    assert ALONE.weigh(loss, batch([0, 1], of=2)) is loss
    assert ALONE.parallel(network, image=(3, 8, 8), count=2, precision="fp32") is network
    ALONE.share_buffers(network)
    ALONE.sync_batchnorm(network)
    with pytest.raises(TrainingError, match="of 0"):
        ALONE.on_first(lambda: fail("of 0"))


def test_nothing_else_in_training_asks_how_many_workers_there_are():
    modules = [path for path in Path(train.__file__).parent.glob("*.py") if path.name != "workers.py"]
    assert len(modules) > 10
    for path in modules:
        text = path.read_text()
        assert "torch.distributed" not in text, path
        assert not re.search(r"world_size\s*[=!<>]=?\s+\d|\bif [^\n]*world_size", text), path


class Three:
    """Three batches of an epoch, one after the other."""

    num_samples = 6

    def __len__(self):
        return 3

    def epoch(self, epoch):
        return iter([batch([0, 1], of=2) for _ in range(3)])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_epoch_needs_no_store(small, precision):
    """State and batches in, a row out: the rate of the last step, the mean of the losses, all samples counted."""
    from gentrain.study.lineage import build_chain

    study = small("recipe.warmup_epochs=2", "process.k=2", f"precision={precision}")
    spec = build_chain(study, data="0" * 16, num_classes=2).specs[0]
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2)).eval()
    before = network[1].weight.clone()
    losses, pixels_of, seeds, computed_in = [], [], [], []

    def task(logits, images, labels):
        terms = patriarch_loss(logits, labels, eta=0.5, k=2)
        losses.append(terms.loss.item())
        seeds.append(torch.initial_seed())
        computed_in.append((logits.dtype, torch.is_autocast_enabled("cpu")))  # a teacher computes in the task
        return terms

    def pixels(read, epoch):
        pixels_of.append(epoch)
        return read.images.float() + 1

    row = train_epoch(
        1,
        spec=spec,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        task=task,
        loader=Three(),
        pixels=pixels,
        workers=ALONE,
        post=lambda _: None,
    )
    assert network.training
    half = precision == "bf16"
    assert computed_in == [(torch.bfloat16 if half else torch.float32, half)] * 3
    assert seeds == [epoch_seed(spec.seed, spec.generation, epoch=1, rank=0)] * 3
    assert not network[1].weight.equal(before)
    assert pixels_of == [1, 1, 1]
    assert row["epoch"] == 2
    assert row["images"] == 6
    assert row["learning_rate"] == pytest.approx(study.recipe.learning_rate)  # the last step of the warm-up
    assert row["loss"] == pytest.approx(sum(losses) / 3)
    assert row["images_per_second"] == pytest.approx(6 / row["seconds"])
    assert row["test_error"] is row["validation_error"] is None
