"""What two workers do together, over gloo in two processes: every value and every failure reaches both."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn

from gentrain import train
from gentrain.data.loading.loader import Batch
from gentrain.data.prepare.share import prepare_shared
from gentrain.errors import GentrainError, TrainingError
from gentrain.events import Note
from gentrain.store.done import MODEL
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_chain
from gentrain.study.loading import load_study
from gentrain.study.sections import RecipeConfig
from gentrain.train import epoch as epoch_module
from gentrain.train import optimizer as optimizer_module
from gentrain.train.divergence import check_weights
from gentrain.train.epoch import train_epoch
from gentrain.train.generation import train_generation
from gentrain.train.job import Job
from gentrain.train.losses import patriarch_loss
from gentrain.train.meter import Meter
from gentrain.train.optimizer import SGD
from gentrain.train.seeds import epoch_seed
from gentrain.train.workers import Workers
from tests.conftest import SMALL, claim_token
from tests.train.processes import collect

SPEC = SimpleNamespace(generation=2, key="abc", recipe=RecipeConfig(), precision="bf16")
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


class Once:
    """A worker's part of one global batch of three images: two for rank 0, one for rank 1; or all for one worker."""

    num_samples = 3

    def __init__(self, workers):
        part = slice(None) if workers.alone else slice(2 * workers.rank, 2 + workers.rank)
        self.part = Batch(
            images=torch.arange(3 * 12, dtype=torch.uint8).view(3, 3, 2, 2)[part],
            labels=torch.arange(3)[part],
            indices=torch.arange(3)[part],
            global_size=3,
        )

    def __len__(self):
        return 1

    def epoch(self, epoch):
        return iter([self.part])


def clipped_step(workers):
    """Return the weights after one step whose gradients are scaled down to a norm far below theirs."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    settings = ("recipe.learning_rate=1", "recipe.clip_gradients=0.01", "process.k=2", "process.f_a1=0.9")
    train_epoch(
        0,
        spec=build_chain(load_study(overrides=[*SMALL, *settings]), data="0" * 16, num_classes=3).specs[0],
        network=workers.parallel(network, image=(3, 2, 2), count=2, precision="fp32"),
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        task=lambda logits, images, labels: patriarch_loss(logits, labels, eta=0.5, k=2),
        loader=Once(workers),
        pixels=lambda read, _: read.images.float(),
        workers=workers,
        post=lambda _: None,
    )
    return network[1].weight.flatten().tolist()


def roll_back_together(workers, jobs):
    """Train with weights that explode on rank 1 alone above a rate, then at half the rate; return both's weights."""
    original = epoch_module.learning_rate

    class FragileSGD(SGD):
        def step(self, closure=None):
            super().step(closure)
            if self.param_groups[0]["lr"] > 0.06 and workers.rank == 1:
                self.param_groups[0]["params"][0].data[0] = float("nan")

    def halved_rate(*, step, **of):
        return original(step=step, **of) * (0.5 if step >= 7 else 1)

    events, weights = [], []
    for job, name, module, replaced in zip(
        jobs, ("SGD", "learning_rate"), (optimizer_module, epoch_module), (FragileSGD, halved_rate), strict=True
    ):
        before = getattr(module, name)
        setattr(module, name, replaced)
        train_generation(job, workers, events.append)
        setattr(module, name, before)
        weights.append(job.store.generation(job.spec.key).read_verified(MODEL))
    return [event.text for event in events if isinstance(event, Note)], weights[0] == weights[1]


def together(rank, folder, jobs, results):
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
        "bad step": meter.first_bad_step(),
        "count": meter.means()["count"],
        "weights": failure_of(lambda: check_weights(exploded, SPEC, 4, workers=workers)),
        "finite weights": failure_of(lambda: check_weights(nn.BatchNorm1d(2), SPEC, 4, workers=workers)),
        "fails on the last": failure_of(lambda: workers.everywhere(lambda: fail("of 1") if rank == 1 else None)),
        "fails on both": failure_of(lambda: workers.everywhere(lambda: fail(f"of {rank}"))),
        "fails on the first": failure_of(lambda: workers.on_first(lambda: fail(f"of {rank}"))),
        "can't be read": failure_of(lambda: workers.from_first(lambda: fail(f"of {rank}"))),
        "clipped": clipped_step(workers),
        "rolled back": roll_back_together(workers, jobs),
        "CPUs": failure_of(lambda: workers.sync_batchnorm(buffers)),
    }))  # fmt: skip
    dist.barrier()
    dist.destroy_process_group()


def build_job(runs):
    study = load_study(
        overrides=[*SMALL, "workers=2", "generations=0", "recipe.warmup_epochs=2", "recipe.on_divergence=rollback"]
    )
    store = RunStore(str(runs))
    data = prepare_shared(study.dataset, store)
    (spec,) = build_chain(study, data=data.manifest.fingerprint, num_classes=data.num_classes).specs
    token = claim_token(store.generation(spec.key))
    return Job(spec=spec, store=store, data=data.folder.name, token=token, evaluate_every=1)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return what the two workers returned, by rank."""
    folder: Path = tmp_path_factory.mktemp("group")
    jobs = [build_job(folder / name) for name in ("rolled back", "halved")]
    returned = dict(collect(together, 2, folder, jobs))
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
                "DivergedError",
                "generation 2 (abc), epoch 5, after its last step: running_var is not finite; the checkpoint after "
                "epoch 4 stays. Remedies: lower recipe.learning_rate, add recipe.warmup_epochs, set "
                "recipe.clip_gradients: 1, set recipe.on_divergence: rollback, or use precision: fp32",
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
    ],
)
def test_each_worker_gets_its_own(both, name, wanted):
    assert [worker[name] for worker in both] == wanted


def test_gradients_are_clipped_to_the_norm_of_the_means_over_all_workers(both):
    wanted = clipped_step(ALONE)
    assert both[0]["clipped"] == both[1]["clipped"] == pytest.approx(wanted, abs=1e-7)
    torch.manual_seed(0)
    before = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))[1].weight.flatten().tolist()
    assert 0.009 < torch.tensor([one - other for one, other in zip(wanted, before, strict=True)]).norm() <= 0.01


def test_where_one_worker_diverges_all_roll_back_together(both):
    (line, *more), same = both[0]["rolled back"]
    assert "epoch 2, step 3: the loss is not finite; going back to the checkpoint after epoch 1" in line
    assert not more
    assert same
    assert both[1]["rolled back"] == ([], True)


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
