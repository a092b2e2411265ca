"""The patriarchs by name: values by hand, free minimisation against the closed forms, limits and invariants."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gentrain.study.losses import PATRIARCHS, penalty_for_primary, smoothing_for_primary
from gentrain.train.tasks.build import PATRIARCHS as CLASSES_BY_NAME
from gentrain.train.tasks.confidence_penalty import ConfidencePenalty
from gentrain.train.tasks.label_smoothing import LabelSmoothing
from gentrain.train.tasks.mse import SquaredError
from tests.train.test_task_case import CLASSES, PatriarchCase


class TestLabelSmoothing(PatriarchCase):
    def build(self):
        return LabelSmoothing(epsilon=0.3)

    def by_hand(self, scores, label):
        wanted = [0.3 / CLASSES + 0.7 * (k == label) for k in range(CLASSES)]
        return -sum(q * math.log(f) for q, f in zip(wanted, scores, strict=True))

    def test_it_is_torchs(self):
        logits, images, labels = self.batch()
        torch.testing.assert_close(
            self.build()(logits, images, labels).loss, F.cross_entropy(logits, labels, label_smoothing=0.3)
        )


class TestConfidencePenalty(PatriarchCase):
    def build(self):
        return ConfidencePenalty(beta=0.4)

    def by_hand(self, scores, label):
        entropy = -sum(f * math.log(f) for f in scores)
        return -math.log(scores[label]) - 0.4 * entropy


class TestSquaredError(PatriarchCase):
    def build(self):
        return SquaredError(epsilon=0.25)

    def by_hand(self, scores, label):
        return sum((f - 0.25 / CLASSES - 0.75 * (k == label)) ** 2 for k, f in enumerate(scores))


SCORES = torch.tensor([[0.5, 0.25, 0.25]])
LABEL = torch.tensor([0])


def value(task):
    return task(SCORES.log(), None, LABEL).loss.item()


def test_by_hand():
    assert value(LabelSmoothing(epsilon=0.3)) == pytest.approx(0.8 * math.log(2) + 0.2 * math.log(4))  # q = .8, .1, .1
    assert value(ConfidencePenalty(beta=2.0)) == pytest.approx(math.log(2) - 2 * 1.5 * math.log(2))  # H is 1.5 bits
    assert value(SquaredError(epsilon=0.0)) == pytest.approx(0.25 + 2 * 0.0625)
    assert value(SquaredError(epsilon=0.3)) == pytest.approx(0.09 + 2 * 0.0225)


@pytest.mark.parametrize("task", [LabelSmoothing(epsilon=0.0), ConfidencePenalty(beta=0.0)])
def test_without_its_knob_it_is_cross_entropy_to_the_bit(task):
    logits = torch.randn(8, 10, generator=torch.Generator().manual_seed(1))
    assert task(logits, None, torch.arange(8)).loss.equal(F.cross_entropy(logits, torch.arange(8)))


def minimised(task, classes):
    """Return the scores (C,) of class 0's samples that minimise a task's loss."""
    logits = torch.zeros(1, classes).index_fill(1, LABEL, 0.5).requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = task(logits, None, LABEL).loss
        loss.backward()
        return loss

    optimizer.step(closure)
    return logits.detach().softmax(dim=1)[0]


@pytest.mark.parametrize("classes", [3, 20])
@pytest.mark.parametrize("f_a1", [0.4, 0.6, 0.9])
@pytest.mark.parametrize("name", sorted(CLASSES_BY_NAME))
def test_minimising_freely_lands_on_the_aim(name, f_a1, classes):
    knob = dict(PATRIARCHS[name]().knob(f_a1, num_classes=classes))
    scores = minimised(CLASSES_BY_NAME[name](**knob), classes)
    assert scores[0].item() == pytest.approx(f_a1, abs=1e-3)
    torch.testing.assert_close(scores[1:], torch.full((classes - 1,), (1 - f_a1) / (classes - 1)), atol=1e-3, rtol=0)


def test_closed_forms():
    assert smoothing_for_primary(1 - 0.1 + 0.1 / 100, num_classes=100) == pytest.approx(0.1)
    assert penalty_for_primary(0.5, num_classes=3) == pytest.approx(2 / math.log(2))
    assert smoothing_for_primary(1.0, num_classes=7) == penalty_for_primary(1.0, num_classes=7) == 0
    for closed_form in (smoothing_for_primary, penalty_for_primary):
        with pytest.raises(ValueError, match=r"f_a1 is 0\.25; it must lie above 1/C = 0\.25 \(4 classes\)"):
            closed_form(0.25, num_classes=4)


@given(st.integers(2, 50), st.floats(0.01, 0.98), st.floats(0.01, 0.98))
def test_more_tolerance_takes_more_of_the_knob(classes, one, other):
    one, other = (1 / classes + (1 - 1 / classes) * part for part in (one, other))
    if other - one > 1e-6:
        for closed_form in (smoothing_for_primary, penalty_for_primary):
            assert closed_form(one, num_classes=classes) > closed_form(other, num_classes=classes) > 0


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(float, (4, 7), elements=st.floats(-8, 8)), st.floats(0, 1))
def test_what_holds_for_any_scores(values, knob):
    z, labels = torch.tensor(values, dtype=torch.float32), torch.tensor([0, 1, 2, 3])
    for kind in CLASSES_BY_NAME.values():
        task = kind(**{"beta" if kind is ConfidencePenalty else "epsilon": knob})
        terms = task(z, None, labels)
        torch.testing.assert_close(task(z + 3, None, labels).loss, terms.loss, rtol=1e-4, atol=1e-4)
        order = torch.tensor([6, 5, 4, 3, 2, 1, 0])
        torch.testing.assert_close(task(z[:, order], None, 6 - labels).loss, terms.loss, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(terms.hard, F.cross_entropy(z, labels))
    assert -math.log(7) - 1e-5 <= ConfidencePenalty(beta=knob)(z, None, labels).soft <= 1e-5
    assert 0 <= SquaredError(epsilon=knob)(z, None, labels).loss <= 2 + 1e-5
