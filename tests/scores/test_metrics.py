import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gentrain.scores.ensembles import running_ensemble
from gentrain.scores.metrics import calibration_error, nll, primary_score, reliability, score, top_k_error

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.1, 0.3, 0.6]])
LABELS = np.array([0, 2, 1])


def softmax(values):
    exponents = np.exp(values - values.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def test_by_hand():
    assert top_k_error(PROBABILITIES, LABELS, k=1) == pytest.approx(2 / 3)
    assert top_k_error(PROBABILITIES, LABELS, k=2) == pytest.approx(1 / 3)  # of two equals the lower class is first
    assert top_k_error(PROBABILITIES, LABELS, k=3) == 0
    assert nll(PROBABILITIES, LABELS) == pytest.approx(-(math.log(0.7) + 2 * math.log(0.3)) / 3)
    assert primary_score(PROBABILITIES) == pytest.approx((0.7 + 0.4 + 0.6) / 3)
    assert calibration_error(PROBABILITIES, LABELS) == pytest.approx((abs(1 - 0.7) + 0.4 + 0.6) / 3)


def test_calibration_weighs_bins_by_samples():
    confident = np.tile([0.75, 0.25], (4, 1))
    assert calibration_error(confident, np.array([0, 0, 0, 1])) == pytest.approx(0)
    assert calibration_error(confident, np.array([1, 1, 1, 1])) == pytest.approx(0.75)


def test_calibration_in_fifteen_bins_by_hand():
    """Bins are 1/15 wide: 0.55 and 0.59 share the one from 8/15; 0.61 and 0.69 have one each, 1.0 is in the last."""
    confidence, right = np.array([0.55, 0.59, 0.61, 0.69, 0.95, 1.0]), np.array([True, False, True, False, True, False])
    rows = np.stack([confidence, 1 - confidence], axis=1)
    gaps = (abs(1 - 0.55 - 0.59), 1 - 0.61, 0.69, abs(1 - 0.95 - 1.0))
    assert calibration_error(rows, np.where(right, 0, 1)) == pytest.approx(sum(gaps) / 6)
    count, confident, hits = reliability(rows, np.where(right, 0, 1))
    assert {place: value for place, value in enumerate(count.tolist()) if value} == {8: 2, 9: 1, 10: 1, 14: 2}
    assert (confident[8], hits[8]) == (pytest.approx(1.14), 1)


def test_top_5_by_hand():
    """Of seven classes, whose scores fall with the class: labels of the first five ranks are hits, the others not."""
    rows = np.tile([0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02], (7, 1))
    scores = score(rows, np.arange(7))
    assert scores.top5_error == pytest.approx(2 / 7)
    assert scores.top1_error == pytest.approx(6 / 7)


def test_a_certain_mistake_costs_much_but_not_infinity():
    assert 80 < nll(np.array([[1.0, 0.0]]), np.array([1])) < 90


@given(hnp.arrays(np.float64, (6, 5), elements=st.floats(-5, 5)), st.lists(st.integers(0, 4), min_size=6, max_size=6))
def test_errors_fall_with_k_and_lie_in_range(values, labels):
    probabilities, labels = softmax(values), np.array(labels)
    errors = [top_k_error(probabilities, labels, k=k) for k in range(1, 6)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx((probabilities.argmax(1) != labels).mean())
    assert errors[-1] == 0
    scores = score(probabilities, labels)
    assert scores.top1_error == errors[0]
    assert 0 <= scores.ece <= 1


@given(hnp.arrays(np.float64, (4, 6, 5), elements=st.floats(-5, 5)))
def test_running_ensemble_is_the_mean_of_all_so_far(values):
    members = softmax(values)
    ensembles = running_ensemble(members)
    assert ensembles.shape == members.shape
    for g in range(4):
        np.testing.assert_allclose(ensembles[g], members[: g + 1].mean(axis=0))
    np.testing.assert_allclose(ensembles.sum(axis=2), 1)
    labels = np.zeros(6, dtype=int)
    singles = [nll(member, labels) for member in members]
    assert nll(ensembles[-1], labels) <= np.mean(singles) + 1e-9  # Jensen: no ensemble is worse than its members' mean
