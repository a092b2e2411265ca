"""The CUDA path, where there is a card: `pytest -m gpu`. Skips itself elsewhere."""

import pytest
import torch

from gentrain.data.augment import augment, normalise
from gentrain.data.loader import Batch
from gentrain.launch import launch_chain
from gentrain.losses import patriarch_loss, student_loss
from gentrain.meter import Meter
from gentrain.store import MODEL, PREDICTIONS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]


def test_augmentation_draws_are_those_of_the_cpu():
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    indices = torch.arange(1000, 1064)
    wanted = augment(images, indices, seed=7, epoch=3, pad=4, flip=True)
    found = augment(images.cuda(), indices.cuda(), seed=7, epoch=3, pad=4, flip=True)
    assert found.cpu().equal(wanted)


def test_losses_are_float32_and_those_of_the_cpu():
    logits, teacher, labels = torch.randn(32, 100), torch.randn(32, 100), torch.randint(0, 100, (32,))
    with torch.autocast("cuda", torch.bfloat16):
        found = [
            patriarch_loss(logits.cuda(), labels.cuda(), eta=4 / 7).loss,
            student_loss(logits.cuda(), teacher.cuda(), labels.cuda(), lam=0.6).loss,
        ]
    wanted = [patriarch_loss(logits, labels, eta=4 / 7).loss, student_loss(logits, teacher, labels, lam=0.6).loss]
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        assert one.item() == pytest.approx(other.item(), rel=1e-5)


def test_a_step_around_the_network_never_waits_for_the_card():
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, device="cuda")
    labels = indices = torch.arange(64, device="cuda")
    batch = Batch(images=images, labels=labels, indices=indices, global_size=64)
    meter = Meter(world_size=1, device=images.device)

    def step():
        pixels = augment(images, indices, seed=7, epoch=3, pad=4, flip=True)
        logits = normalise(pixels, mean=(0.5,) * 3, std=(0.2,) * 3).mean(dim=(2, 3))
        meter.add(0, batch, logits, patriarch_loss(logits, labels % 3, eta=4 / 7, k=2))

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_chain_on_the_card_repeats_to_the_bit(small, tmp_path, precision):
    study = small("device=cuda", f"precision={precision}")
    rows = [launch_chain(study, runs=str(tmp_path / name), observe=lambda _: None, local=True) for name in ("a", "b")]
    for row in rows[0]:
        for name in (MODEL, PREDICTIONS):
            one, other = (tmp_path / run / "generations" / row["key"] / name for run in ("a", "b"))
            assert one.read_bytes() == other.read_bytes()


@pytest.mark.ray
@pytest.mark.parametrize("share", [1, 0.25])
def test_a_chain_on_ray_takes_the_card_or_a_part_of_it(small, tmp_path, share):
    rows = launch_chain(small("device=cuda", f"gpus_per_worker={share}"), runs=str(tmp_path), observe=lambda _: None)
    assert [row["generation"] for row in rows] == [0, 1]
