"""The CUDA path, where there is a card: `pytest -m gpu`. Skips itself elsewhere."""

import numpy as np
import pytest
import torch

from gentrain import api
from gentrain.data.loading.augment import augment, normalise
from gentrain.data.loading.beton import write_beton
from gentrain.data.loading.loader import Batch, Loader
from gentrain.events import EpochDone
from gentrain.models.registry import build_model
from gentrain.store.done import MODEL, PREDICTIONS
from gentrain.train.compiling import compile_network, prepare_compiler
from gentrain.train.device import configure, set_tf32, to_device
from gentrain.train.losses import patriarch_loss, student_loss
from gentrain.train.meter import Meter
from gentrain.train.workers import Workers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),  # Inductor's advice, where fp32 is to be exact
]
CUDA = torch.device("cuda:0")


def stored(runs, rows):
    return [(runs / "generations" / row["key"] / name).read_bytes() for row in rows for name in (MODEL, PREDICTIONS)]


@pytest.fixture
def beton(tmp_path):
    """500 random pictures; the last of four batches of 128 is smaller."""
    path = tmp_path / "train.beton"
    images = np.random.default_rng(0).integers(0, 256, (500, 32, 32, 3), dtype=np.uint8)
    write_beton(path, images, np.arange(500) % 10)
    return path


def test_augmentation_draws_are_those_of_the_cpu():
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    indices = torch.arange(1000, 1064)
    wanted = augment(images, indices, seed=7, epoch=3, padding=4, flip=True)
    on_card = augment(images.cuda(), indices.cuda(), seed=7, epoch=3, padding=4, flip=True)
    assert on_card.cpu().equal(wanted)


def test_losses_are_float32_and_those_of_the_cpu():
    logits, teacher, labels = torch.randn(32, 100), torch.randn(32, 100), torch.randint(0, 100, (32,))
    with torch.autocast("cuda", torch.bfloat16):
        on_card = [
            patriarch_loss(logits.cuda(), labels.cuda(), eta=4 / 7).loss,
            student_loss(logits.cuda(), teacher.cuda(), labels.cuda(), lam=0.6).loss,
        ]
    wanted = [patriarch_loss(logits, labels, eta=4 / 7).loss, student_loss(logits, teacher, labels, lam=0.6).loss]
    for one, other in zip(on_card, wanted, strict=True):
        assert one.dtype == torch.float32
        assert one.item() == pytest.approx(other.item(), rel=1e-5)


def test_a_step_around_the_network_never_waits_for_the_card():
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, device="cuda")
    labels = indices = torch.arange(64, device="cuda")
    batch = Batch(images=images, labels=labels, indices=indices, global_size=64)
    meter = Meter(Workers(rank=0, world_size=1, device=images.device, threads=1))

    def step():
        pixels = augment(images, indices, seed=7, epoch=3, padding=4, flip=True)
        logits = normalise(pixels, mean=(0.5,) * 3, std=(0.2,) * 3).mean(dim=(2, 3))
        meter.add(0, batch, logits, patriarch_loss(logits, labels % 3, eta=4 / 7, k=2))

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("busy", [False, True])
def test_batches_on_the_card_are_those_of_the_cpu(beton, busy):
    """While the card is busy too, when every copy is still under way as its batch is asked for."""
    settings = {"batch_size": 128, "seed": 5, "shuffle": True}
    wanted = list(Loader(beton, **settings).epoch(2))
    work, on_card = torch.randn(4096, 4096, device="cuda"), []
    for batch in Loader(beton, **settings, device=CUDA).epoch(2):
        for _ in range(20 * busy):
            work = (work @ work).clamp(-1, 1)
        on_card.append([tensor.clone() for tensor in (batch.images, batch.labels, batch.indices)])
    assert len(on_card) == len(wanted) == 4
    for tensors, batch in zip(on_card, wanted, strict=True):
        for one, other in zip(tensors, (batch.images, batch.labels, batch.indices), strict=True):
            assert one.cpu().equal(other)


def test_the_loader_never_waits_for_the_card(beton):
    loader = Loader(beton, batch_size=128, shuffle=True, device=CUDA)
    list(loader.epoch(0))  # pinned memory is there from here on
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(loader.epoch(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0), reason="the card has no TF32"
)
def test_tf32_rounds_products_and_fp32_does_not():
    one, other = torch.randn(512, 512, device="cuda"), torch.randn(512, 512, device="cuda")
    exact = (one.double() @ other.double()).float()
    away = {}
    for allowed in (True, False):
        set_tf32(allowed)
        away[allowed] = (one @ other - exact).abs().max().item()
    assert away[False] < 1e-3 < away[True]


@pytest.mark.parametrize("settings", ["precision=bf16", "precision=fp32", "precision=tf32", "compile=true"])
def test_a_chain_on_the_card_repeats_to_the_bit(small, tmp_path, settings):
    study = small("device=cuda", settings)
    rows = [api.run(study, runs=str(tmp_path / name), observe=lambda _: None, local=True) for name in ("a", "b")]
    assert stored(tmp_path / "a", rows[0]) == stored(tmp_path / "b", rows[0])


class Killed(BaseException):
    pass


def test_a_compiled_chain_that_was_killed_ends_in_the_same_bits(small, tmp_path):
    from torch._dynamo.utils import counters

    study = small("device=cuda", "compile=true", "precision=bf16")

    def killed(event):
        if isinstance(event, EpochDone) and (event.generation, event.row["epoch"]) == (1, 1):
            raise Killed

    counters.clear()
    wanted = api.run(study, runs=str(tmp_path / "whole"), observe=lambda _: None, local=True)
    assert not counters["inductor"]["cudagraph_skips"]
    with pytest.raises(Killed):
        api.run(study, runs=str(tmp_path / "killed"), observe=killed, local=True)
    resumed = api.run(study, runs=str(tmp_path / "killed"), observe=lambda _: None, local=True)
    assert stored(tmp_path / "killed", resumed) == stored(tmp_path / "whole", wanted)


def test_steps_as_cuda_graphs_follow_those_without():
    """Student and teacher as the engine calls them; an output that was overwritten too early would lead elsewhere."""
    configure(CUDA, threads=1, precision="fp32")
    prepare_compiler(CUDA)
    losses = {}
    for graphs in (False, True):
        torch.manual_seed(0)
        student = to_device(build_model("resnet8", num_classes=10), CUDA).train()
        teacher = to_device(build_model("resnet8", num_classes=10), CUDA).eval().requires_grad_(False)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, fused=True)
        train, teach = (compile_network(n, CUDA, graphs=True) if graphs else n for n in (student, teacher))
        losses[graphs] = []
        for count in (32,) * 8 + (20,) * 4:
            images = to_device(torch.randn(count, 3, 32, 32), CUDA)
            labels = torch.randint(0, 10, (count,), device="cuda")
            optimizer.zero_grad(set_to_none=True)
            torch.compiler.cudagraph_mark_step_begin()
            logits = train(images)
            with torch.no_grad():
                soft = teach(images)
            loss = student_loss(logits, soft, labels, lam=0.6).loss
            loss.backward()
            optimizer.step()
            losses[graphs].append(loss.detach())
    one, other = (torch.stack(losses[graphs]).cpu() for graphs in (False, True))
    torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


@pytest.mark.ray
@pytest.mark.parametrize("share", [1, 0.25])
def test_a_chain_on_ray_takes_the_card_or_a_part_of_it(small, tmp_path, share):
    study = small("device=cuda", f"gpus_per_worker={share}", "pin_workers=true")
    rows = api.run(study, runs=str(tmp_path), observe=lambda _: None)
    assert [row["generation"] for row in rows] == [0, 1]
