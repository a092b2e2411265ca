import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gentrain.scores.ensembles import running_ensemble
from gentrain.scores.metrics import calibration_error, nll, primary_score, score, top_k_error

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
