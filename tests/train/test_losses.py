"""Equations (3) and (4) against hand-computed values, finite differences, and what must hold for any scores."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.testing import assert_close

from gentrain.study.process import eta_for_primary, primary_for_eta
from gentrain.train.losses import patriarch_loss, student_loss

SCORES = torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.05, 0.05], [0.1, 0.6, 0.1, 0.1, 0.06, 0.04]])
LABELS = torch.tensor([0, 2])
logits = hnp.arrays(np.float64, (4, 7), elements=st.floats(-8, 8))


def test_patriarch_by_hand():
    terms = patriarch_loss(SCORES.log(), LABELS, eta=0.25, k=3)
    hard = (-math.log(0.5) - math.log(0.1)) / 2
    soft = ((0.5 - (0.2 + 0.1) / 2) + (0.6 - (0.1 + 0.1) / 2)) / 2  # a_1 of the second sample is not its label
    assert_close(terms.hard.item(), hard, rtol=1e-6, atol=0)
    assert_close(terms.soft.item(), soft, rtol=1e-6, atol=0)
    assert_close(terms.loss.item(), 0.75 * hard + 0.25 * soft, rtol=1e-6, atol=0)


def test_student_by_hand_sums_over_classes_and_averages_over_samples():
    teacher = torch.tensor([[0.4, 0.3, 0.1, 0.1, 0.05, 0.05], [0.2, 0.2, 0.3, 0.1, 0.1, 0.1]])
    terms = student_loss(SCORES.log(), teacher.log(), LABELS, lam=0.3)
    rows = [
        sum(t * math.log(t / s) for t, s in zip(ts, ss, strict=True))
        for ts, ss in zip(teacher.tolist(), SCORES.tolist(), strict=True)
    ]
    hard = (-math.log(0.5) - math.log(0.1)) / 2
    assert_close(terms.soft.item(), sum(rows) / 2, rtol=1e-5, atol=0)
    assert_close(terms.loss.item(), 0.7 * hard + 0.3 * sum(rows) / 2, rtol=1e-5, atol=0)
    swapped = student_loss(teacher.log(), SCORES.log(), LABELS, lam=0.3)
    assert abs(swapped.soft / terms.soft - 1) > 0.02


def test_temperature_by_hand():
    student, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    terms = student_loss(student, teacher, torch.tensor([0]), lam=0.5, temperature=2.0)
    t, s = 1 / (1 + math.e**2), 1 / (1 + math.e**-1)
    kl = t * math.log(t / s) + (1 - t) * math.log((1 - t) / (1 - s))
    assert_close(terms.soft.item(), 4 * kl, rtol=1e-5, atol=0)


@pytest.mark.parametrize("loss", ["patriarch", "student"])
def test_gradients_are_those_of_finite_differences(loss):
    generator = torch.Generator().manual_seed(0)
    x, teacher = (2 * torch.randn(3, 6, generator=generator) for _ in range(2))
    labels = torch.tensor([0, 3, 5])

    def value(z):
        if loss == "patriarch":
            return patriarch_loss(z, labels, eta=0.5, k=4).loss
        return student_loss(z, teacher, labels, lam=0.6, temperature=1.5).loss

    z = x.clone().requires_grad_()
    value(z).backward()
    step = 1e-2
    for i in range(3):
        for j in range(6):
            shift = torch.zeros_like(x)
            shift[i, j] = step
            difference = (value(x + shift) - value(x - shift)).item() / (2 * step)
            assert z.grad[i, j].item() == pytest.approx(difference, abs=2e-3)


@settings(deadline=None)
@given(logits, st.floats(0, 1), st.integers(2, 7))
def test_patriarch_invariants(values, eta, k):
    z, labels = torch.tensor(values, dtype=torch.float32), torch.tensor([0, 1, 2, 3])
    terms = patriarch_loss(z, labels, eta=eta, k=k)
    assert -1e-6 <= terms.soft <= 1 + 1e-6
    assert terms.hard >= 0
    shifted = patriarch_loss(z + 3.0, labels, eta=eta, k=k)
    assert_close(shifted.loss, terms.loss, rtol=1e-4, atol=1e-4)
    twice = patriarch_loss(z.repeat(2, 1), labels.repeat(2), eta=eta, k=k)  # a mean over the batch, not a sum
    assert_close(twice.loss, terms.loss, rtol=1e-4, atol=1e-5)


@settings(deadline=None)
@given(logits, logits, st.floats(0, 1), st.floats(0.5, 4))
def test_student_invariants(values, others, lam, temperature):
    z, teacher = (torch.tensor(v, dtype=torch.float32) for v in (values, others))
    labels = torch.tensor([0, 1, 2, 3])
    terms = student_loss(z, teacher, labels, lam=lam, temperature=temperature)
    assert terms.soft >= -1e-4
    assert student_loss(z, z, labels, lam=lam, temperature=temperature).soft.abs() < 1e-5
    twice = student_loss(z.repeat(2, 1), teacher.repeat(2, 1), labels.repeat(2), lam=lam, temperature=temperature)
    assert_close(twice.loss, terms.loss, rtol=1e-4, atol=1e-4)
    order = torch.tensor([6, 5, 4, 3, 2, 1, 0])
    permuted = student_loss(z[:, order], teacher[:, order], 6 - labels, lam=lam, temperature=temperature)
    assert_close(permuted.loss, terms.loss, rtol=1e-4, atol=1e-4)


def test_zero_weights_are_cross_entropy_to_the_bit():
    z = torch.randn(8, 10, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(8)
    plain = torch.nn.functional.cross_entropy(z, labels)
    assert patriarch_loss(z, labels, eta=0.0).loss.equal(plain)
    assert student_loss(z, z.flip(0), labels, lam=0.0).loss.equal(plain)


@pytest.mark.parametrize("f_a1", [0.4, 0.6, 0.8])
def test_minimising_freely_lands_on_u_of_eta(f_a1):
    """Eq. (3) over a free score vector, the secondaries holding what the primary leaves: the optimum is u(η)."""
    eta, k = eta_for_primary(f_a1, k=5), 5
    z = torch.zeros(1, k).index_fill(1, torch.tensor([0]), 0.1).requires_grad_()
    optimizer = torch.optim.LBFGS([z], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-12)

    def closure():
        optimizer.zero_grad()
        loss = patriarch_loss(z, torch.tensor([0]), eta=eta, k=k).loss
        loss.backward()
        return loss

    optimizer.step(closure)
    scores = z.softmax(1)[0]
    assert scores[0].item() == pytest.approx(primary_for_eta(eta, k=k), abs=1e-3)
    assert scores[0].item() == pytest.approx(f_a1, abs=1e-3)


def test_the_students_optimum_mixes_label_and_teacher():
    teacher, lam = torch.tensor([[0.5, 0.3, 0.2]]), 0.6
    z = torch.zeros(1, 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-12)

    def closure():
        optimizer.zero_grad()
        loss = student_loss(z, teacher.log(), torch.tensor([0]), lam=lam).loss
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = (1 - lam) * torch.tensor([[1.0, 0, 0]]) + lam * teacher
    assert_close(z.softmax(1).detach(), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_softmaxes_are_float32_under_autocast(dtype):
    z = torch.randn(4, 10, generator=torch.Generator().manual_seed(2)).to(dtype)
    teacher = z.flip(0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = [
            patriarch_loss(z, torch.arange(4), eta=0.5).loss,
            student_loss(z, teacher, torch.arange(4), lam=0.5).loss,
        ]
    wanted = [
        patriarch_loss(z.float(), torch.arange(4), eta=0.5).loss,
        student_loss(z.float(), teacher.float(), torch.arange(4), lam=0.5).loss,
    ]
    for one, other in zip(losses, wanted, strict=True):
        assert one.dtype == torch.float32
        assert one.equal(other)


def test_no_gradient_reaches_the_teacher():
    z, teacher = torch.randn(2, 5, requires_grad=True), torch.randn(2, 5, requires_grad=True)
    student_loss(z, teacher, torch.tensor([0, 1]), lam=0.5).loss.backward()
    assert teacher.grad is None
    assert z.grad is not None


def test_impossible_shapes_are_refused():
    with pytest.raises(ValueError, match="k is 6; it must be at least 2 and at most the 5 classes"):
        patriarch_loss(torch.zeros(1, 5), torch.tensor([0]), eta=0.5, k=6)
    with pytest.raises(ValueError, match="differ in shape"):
        student_loss(torch.zeros(1, 5), torch.zeros(1, 6), torch.tensor([0]), lam=0.5)


@settings(max_examples=20, deadline=None)
@given(st.floats(-200, 200))
def test_extreme_scores_stay_finite(top):
    z = torch.tensor([[top, 0.0, 0.0, 0.0, 0.0]])
    assert patriarch_loss(z, torch.tensor([1]), eta=0.5).loss.isfinite()
    assert student_loss(z, -z, torch.tensor([1]), lam=0.5).loss.isfinite()
