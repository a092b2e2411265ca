"""Mixup and CutMix by hand; whom and how an image is mixed with is a function of (seed, epoch, sample)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gentrain.data.loading.beton import write_beton
from gentrain.data.loading.loader import Loader
from gentrain.data.loading.mix import MixDraws, draw_mixes, mix
from gentrain.data.loading.order import PAIR, epoch_order, worker_order, worker_parts

CPU = torch.device("cpu")


def draws(seed=3, epoch=1, mixup=0.4, cutmix=1.0, count=53):
    return draw_mixes(count, seed=seed, epoch=epoch, mixup=mixup, cutmix=cutmix, device=CPU)


def by_hand(weight, cut, row=0.5, column=0.5, count=2):
    """Mix images of 4 × 6 pixels of the values 0 and 8 whose classes are 0 and 2."""
    images = torch.tensor([0.0, 8.0])[:count].view(-1, 1, 1, 1).expand(count, 3, 4, 6)
    values = (torch.full((2,), weight), torch.full((2,), cut), torch.full((2,), row), torch.full((2,), column))
    return mix(images, torch.tensor([0, 2])[:count], torch.arange(count), draws=MixDraws(*values), num_classes=3)


def test_mixup_by_hand():
    images, labels = by_hand(0.75, False)
    assert (images[0] == 2).all()  # 0.75 · 0 + 0.25 · 8
    assert (images[1] == 6).all()
    assert labels.tolist() == [[0.75, 0, 0.25], [0.25, 0, 0.75]]


def test_cutmix_by_hand():
    """λ = 0.75 is a box of 4·√0.25 = 2 times 6·√0.25 = 3 pixels; its halves are whole pixels, 1 and 1."""
    images, labels = by_hand(0.75, True)
    wanted = torch.zeros(4, 6)
    wanted[1:3, 2:4] = 8
    assert images[0].equal(wanted.expand(3, 4, 6))
    assert images[1].equal(8 - wanted.expand(3, 4, 6))
    torch.testing.assert_close(labels, torch.tensor([[20 / 24, 0, 4 / 24], [4 / 24, 0, 20 / 24]]))


def test_a_box_is_cut_at_the_border_and_so_is_the_label():
    images, labels = by_hand(0.75, True, row=0.0, column=0.99)
    assert images[0, 0].nonzero().tolist() == [[0, 4], [0, 5]]
    torch.testing.assert_close(labels[0], torch.tensor([22 / 24, 0, 2 / 24]))


def test_without_a_partner_an_image_stays_as_it_is():
    for cut in (False, True):
        images, labels = by_hand(0.75, cut, count=1)
        assert images.equal(torch.zeros(1, 3, 4, 6))
        assert labels.tolist() == [[1, 0, 0]]


def test_draws_are_those_of_the_beta_distribution_for_either_way():
    many = draws(count=20_000)
    assert many.cut.float().mean() == pytest.approx(0.5, abs=0.02)
    for alpha, weight in ((0.4, many.weight[~many.cut]), (1.0, many.weight[many.cut])):
        assert weight.mean() == pytest.approx(0.5, abs=0.02)
        assert weight.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    assert not draws(cutmix=0.0).cut.any()
    assert draws(mixup=0.0).cut.all()


def test_draws_depend_on_seed_epoch_and_sample_alone():
    one = draws()
    assert all(part.equal(other[:53]) for part, other in zip(one, draws(count=99), strict=True))
    assert not one.weight.equal(draws(seed=4).weight)
    assert not one.weight.equal(draws(epoch=2).weight)
    assert len(one.weight.unique()) == len(one.row.unique()) == 53


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 6), st.integers(0, 99))
def test_no_two_workers_share_a_pair(samples, world, pairs, seed):
    batch, order = world * pairs * PAIR, epoch_order(samples, seed=seed, epoch=0)
    parts = [worker_order(order, batch_size=batch, rank=r, world_size=world, together=PAIR) for r in range(world)]
    seen, sizes = [], set()
    for step in range(-(-samples // batch)):
        for own, filler in parts:
            last = step == -(-samples // batch) - 1
            part = [] if filler and last else own[step * pairs * PAIR : (step + 1) * pairs * PAIR].tolist()
            sizes.add(len(part))
            assert len(seen) % PAIR == 0 or not part  # only the very last pair may lack a sample
            seen += part
    assert seen == order.tolist()
    assert sizes == worker_parts(samples, batch_size=batch, world_size=world, together=PAIR)


@pytest.fixture(scope="module")
def beton(tmp_path_factory):
    """53 images of random pixels, labels index mod 7."""
    path = tmp_path_factory.mktemp("beton") / "train.beton"
    write_beton(path, np.random.default_rng(0).integers(0, 256, (53, 6, 6, 3), np.uint8), np.arange(53) % 7)
    return path


def mixed_epoch(beton, *, batch, world):
    """Return every sample's mixed image and label by index, of all workers."""
    seen = {}
    for rank in range(world):
        loader = Loader(beton, batch_size=batch, rank=rank, world_size=world, seed=5, shuffle=True, together=PAIR)
        for part in loader.epoch(1):
            if not part.filler:
                mixed = mix(part.images.float(), part.labels, part.indices, draws=draws(), num_classes=7)
                seen |= {index: pair for index, *pair in zip(part.indices.tolist(), *mixed, strict=True)}
        own = [0 if part.filler else len(part.labels) for part in loader.epoch(0)]
        assert loader.sizes in (list(dict.fromkeys(own)), own[-2:])
    return seen


def test_an_image_is_mixed_alike_whatever_the_workers_and_the_batches(beton):
    alone = mixed_epoch(beton, batch=12, world=1)
    assert sorted(alone) == list(range(53))
    assert sum(label.count_nonzero() == 2 for _, label in alone.values()) > 30
    for batch, world in ((12, 2), (12, 3), (20, 2), (48, 4), (53 + 1, 1)):
        other = mixed_epoch(beton, batch=batch, world=world)
        assert sorted(other) == sorted(alone)
        for index, (image, label) in alone.items():
            assert image.equal(other[index][0])
            assert label.equal(other[index][1])
