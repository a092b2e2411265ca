"""Eq. (3) with K by sample or by class: by hand, against the fixed K, finite differences, and its optimum."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.testing import assert_close

from gentrain.study.process import eta_for_primary
from gentrain.train.losses import adaptive_patriarch_loss, patriarch_loss

SCORES = torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.05, 0.05], [0.1, 0.6, 0.1, 0.1, 0.06, 0.04]])
LABELS = torch.tensor([0, 2])


def by_hand(scores, labels, ks, *, f_a1):
    """Return the loss from its definition, sample by sample."""
    losses = []
    for row, label, k in zip(scores.tolist(), labels.tolist(), ks, strict=True):
        top, eta = sorted(row, reverse=True)[:k], eta_for_primary(f_a1, k=k)
        losses.append((1 - eta) * -math.log(row[label]) + eta * (top[0] - sum(top[1:]) / (k - 1)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("top_p", "k_max", "ks"), [(0.65, 6, (2, 2)), (0.75, 6, (3, 3)), (0.85, 6, (4, 4)), (0.92, 6, (5, 5)),
                             (0.94, 6, (5, 5)), (0.955, 6, (6, 5)), (0.955, 3, (3, 3)), (0.3, 6, (2, 2))]
)  # fmt: skip
def test_by_sample_by_hand(top_p, k_max, ks):
    terms = adaptive_patriarch_loss(SCORES.log(), LABELS, f_a1=0.6, top_p=top_p, by="sample", k_max=k_max)
    assert terms.loss.item() == pytest.approx(by_hand(SCORES, LABELS, ks, f_a1=0.6), rel=1e-5)


def test_by_class_by_hand():
    scores = torch.tensor([[0.8, 0.1, 0.06, 0.04], [0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1]])
    labels = torch.tensor([1, 1, 0])
    # mean sorted scores of class 1: 0.6, 0.2, 0.13, 0.07: K = 3 for 0.85; alone: 2, 3 and 3
    loss = adaptive_patriarch_loss(scores.log(), labels, f_a1=0.7, top_p=0.85, by="class", k_max=4).loss.item()
    assert loss == pytest.approx(by_hand(scores, labels, (3, 3, 3), f_a1=0.7), rel=1e-5)
    loss = adaptive_patriarch_loss(scores.log(), labels, f_a1=0.7, top_p=0.85, by="sample", k_max=4).loss.item()
    assert loss == pytest.approx(by_hand(scores, labels, (2, 3, 3), f_a1=0.7), rel=1e-5)


@pytest.mark.parametrize("by", ["sample", "class"])
@settings(deadline=None)
@given(
    hnp.arrays(np.float64, (4, 7), elements=st.floats(-6, 6)),
    st.floats(0.51, 0.99),
    st.floats(0.01, 0.99),
    st.integers(2, 7),
)
def test_it_is_the_fixed_loss_of_each_samples_k(by, values, f_a1, top_p, k_max):
    z, labels = torch.tensor(values, dtype=torch.float32), torch.tensor([0, 1, 1, 3])
    terms = adaptive_patriarch_loss(z, labels, f_a1=f_a1, top_p=top_p, by=by, k_max=k_max)
    reached = z.softmax(1).sort(dim=1, descending=True).values[:, :k_max].cumsum(1)
    if by == "class":
        reached = torch.stack([reached[labels == label].mean(dim=0) for label in labels])
    if ((reached - top_p).abs() < 1e-5).any():
        return  # too close to call in other arithmetic
    ks = [min(k_max, max(2, next((k + 1 for k, sum_ in enumerate(row) if sum_ >= top_p), k_max))) for row in reached]
    singles = [
        patriarch_loss(z[i : i + 1], labels[i : i + 1], eta=eta_for_primary(f_a1, k=k), k=k) for i, k in enumerate(ks)
    ]
    for name in ("loss", "hard", "soft"):
        wanted = torch.stack([getattr(single, name) for single in singles]).mean()
        assert_close(getattr(terms, name), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("by", ["sample", "class"])
def test_gradients_are_those_of_the_fixed_loss_where_all_k_are_equal(by):
    z = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
    one, other = z.clone().requires_grad_(), z.clone().requires_grad_()
    labels = torch.arange(8) % 3
    adaptive_patriarch_loss(one, labels, f_a1=0.6, top_p=0.9999, by=by, k_max=5).loss.backward()
    patriarch_loss(other, labels, eta=4 / 7, k=5).loss.backward()
    assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("by", ["sample", "class"])
def test_gradients_are_those_of_finite_differences(by):
    """Each K is constant near a point where no sum is at top_p, so the loss is smooth there."""
    z, labels = 2 * torch.randn(4, 6, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 3, 3, 5])

    def value(logits):
        return adaptive_patriarch_loss(logits, labels, f_a1=0.7, top_p=0.9, by=by, k_max=6).loss

    own = z.clone().requires_grad_()
    value(own).backward()
    step = 1e-2
    for i in range(4):
        for j in range(6):
            shift = torch.zeros_like(z)
            shift[i, j] = step
            difference = (value(z + shift) - value(z - shift)).item() / (2 * step)
            assert own.grad[i, j].item() == pytest.approx(difference, abs=2e-3)


@pytest.mark.parametrize(("f_a1", "top_p", "k_max"), [(0.6, 0.95, 20), (0.8, 0.9, 20), (0.7, 0.99, 3), (0.55, 0.5, 20)])
def test_minimising_freely_lands_on_the_aim_whatever_the_k(f_a1, top_p, k_max):
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(1, 8, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(1500):
        optimizer.zero_grad()
        adaptive_patriarch_loss(
            z, torch.tensor([0]), f_a1=f_a1, top_p=top_p, by="sample", k_max=min(k_max, 8)
        ).loss.backward()
        optimizer.step()
    assert z.softmax(1)[0, 0].item() == pytest.approx(f_a1, abs=2e-2)


def test_float32_under_autocast_and_finite_at_extremes():
    z = torch.randn(4, 10, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
    settings = {"f_a1": 0.6, "top_p": 0.9, "by": "class", "k_max": 6}
    with torch.autocast("cpu", torch.bfloat16):
        loss = adaptive_patriarch_loss(z, torch.arange(4) // 2, **settings).loss
    assert loss.dtype == torch.float32
    assert loss.equal(adaptive_patriarch_loss(z.float(), torch.arange(4) // 2, **settings).loss)
    extreme = torch.tensor([[200.0, 0, 0, 0, 0, 0], [-200.0, 0, 0, 0, 0, 0]]).requires_grad_()
    loss = adaptive_patriarch_loss(extreme, torch.tensor([1, 0]), **settings).loss
    loss.backward()
    assert loss.isfinite()
    assert extreme.grad.isfinite().all()


def test_impossible_settings_are_refused():
    z, labels = torch.zeros(1, 5), torch.tensor([0])
    with pytest.raises(ValueError, match="k_max is 6; it must be at least 2 and at most the 5 classes"):
        adaptive_patriarch_loss(z, labels, f_a1=0.6, top_p=0.9, by="sample", k_max=6)
    with pytest.raises(ValueError, match=r"f_a1 is 0\.5; with a K from 2 on"):
        adaptive_patriarch_loss(z, labels, f_a1=0.5, top_p=0.9, by="sample", k_max=5)
