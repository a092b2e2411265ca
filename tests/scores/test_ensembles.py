"""Ensembles weighted and selected on held-out data: by hand, and what must hold for any members."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gentrain.scores.ensembles import (
    GAP,
    label_scores,
    member_weights,
    mixture_weights,
    running_ensemble,
    select_members,
    weighted_ensemble,
)

members = hnp.arrays(np.float64, (4, 12), elements=st.floats(1e-6, 1))


def nll(weights, scores):
    return -np.log(weights @ scores).mean()


def test_weights_by_hand():
    """EM of two members: samples that only one knows share the weight by their number."""
    assert mixture_weights(np.array([[0.9, 0.1], [0.1, 0.9]])) == pytest.approx([0.5, 0.5])
    certain = np.array([[1.0, 1.0, 1.0, 1e-9], [1e-9, 1e-9, 1e-9, 1.0]])
    assert mixture_weights(certain) == pytest.approx([0.75, 0.25], abs=1e-3)
    assert mixture_weights(np.array([[0.9, 0.8], [0.5, 0.4], [0.1, 0.2]])) == pytest.approx([1, 0, 0], abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(members)
def test_weights_are_the_best_mixture(scores):
    weights = mixture_weights(scores)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert np.array_equal(weights, mixture_weights(scores))
    gap = (scores / (weights @ scores)).mean(axis=1).max() - 1
    loss = nll(weights, scores)
    for other in (*np.eye(4), np.full(4, 0.25), *np.random.default_rng(0).dirichlet(np.ones(4), 20)):
        assert loss <= nll(other, scores) + max(gap, GAP) + 1e-9
    assert gap < 1e-2


@given(members)
def test_the_selected_are_no_worse_than_the_best_one(scores):
    chosen = select_members(scores)
    weights = member_weights("selected", scores)
    assert list(chosen) == sorted(set(chosen))
    assert np.flatnonzero(weights).tolist() == list(chosen)
    assert weights.sum() == pytest.approx(1)
    assert nll(weights, scores) <= min(nll(one, scores) for one in np.eye(4)) + 1e-12


def test_selection_by_hand():
    scores = np.array([[0.5, 0.5, 0.5], [0.9, 0.9, 0.1], [0.1, 0.1, 0.99], [0.01, 0.01, 0.01]])
    # alone: 0.69, 0.84, 1.54, 4.61; with the first: 0.1 (second) … the third then lowers it further
    assert select_members(scores[[3, 0]]) == (1,)
    assert select_members(scores) == (0, 1)
    assert select_members(np.tile(scores[:1], (3, 1))) == (0,)  # of equals the earliest, and no more than needed


def test_equal_weights_are_the_running_mean():
    probabilities = np.random.default_rng(1).dirichlet(np.ones(5), (3, 7))
    mean = weighted_ensemble(probabilities, member_weights("mean", np.ones((3, 7))))
    np.testing.assert_allclose(mean, running_ensemble(probabilities)[-1])
    mean = weighted_ensemble(probabilities, [0.5, 0.5, 0])
    np.testing.assert_allclose(mean, probabilities[:2].mean(axis=0))


def test_label_scores_pick_the_labels_and_are_never_zero():
    scores = label_scores(np.array([[0.25, 0.75], [1.0, 0.0]], dtype=np.float32), np.array([1, 1]))
    assert scores[0] == 0.75
    assert 0 < scores[1] < 1e-30
