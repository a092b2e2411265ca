import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentrain.study.process import (
    LambdaSchedule,
    Process,
    eta_for_primary,
    predicted_energies,
    predicted_primary,
    primary_for_eta,
    saturated,
)


def test_the_papers_numbers():
    assert eta_for_primary(0.6, k=5) == pytest.approx(4 / 7)
    assert primary_for_eta(4 / 7, k=5) == pytest.approx(0.6)
    assert predicted_primary(0.6, lam=0.6, generation=2) == pytest.approx(1 - 0.4 * 0.36)
    assert eta_for_primary(1.0, k=5) == 0.0
    assert primary_for_eta(4 / 9, k=5) == pytest.approx(1.0)
    assert primary_for_eta(0.0) == primary_for_eta(0.2) == 1.0


@given(st.integers(2, 50), st.floats(0.001, 1))
def test_eta_and_primary_are_inverse(k, fraction):
    f = 1 / k + (1 - 1 / k) * fraction
    if 1 / k < f < 1:
        assert primary_for_eta(eta_for_primary(f, k=k), k=k) == pytest.approx(f)


@given(st.floats(0.21, 0.99), st.floats(0.21, 0.99))
def test_more_tolerance_takes_more_eta(one, other):
    if one < other:
        assert eta_for_primary(one) >= eta_for_primary(other)


@pytest.mark.parametrize("f_a1", [0.2, 0.0, -1.0, 1.0001, math.nan, math.inf])
def test_primaries_out_of_range_are_refused(f_a1):
    with pytest.raises(ValueError, match=r"it must lie above 1/K = 0\.2"):
        eta_for_primary(f_a1)


@pytest.mark.parametrize("eta", [-0.1, 1.0, math.nan])
def test_etas_out_of_range_are_refused(eta):
    with pytest.raises(ValueError, match="eta is"):
        primary_for_eta(eta)


@pytest.mark.parametrize("k", [1, 0, -3])
def test_k_below_two_is_refused(k):
    with pytest.raises(ValueError, match="k is"):
        eta_for_primary(0.6, k=k)
    with pytest.raises(ValueError, match="k is"):
        primary_for_eta(0.6, k=k)


def test_lambda_by_generation_multiplies():
    assert predicted_primary(0.6, lam=[0.5, 0.8], generation=2) == pytest.approx(1 - 0.4 * 0.5 * 0.8)
    assert predicted_primary(0.6, lam=[0.5, 0.8], generation=0) == pytest.approx(0.6)
    with pytest.raises(ValueError, match="generation is -1"):
        predicted_primary(0.6, lam=0.5, generation=-1)


def test_a_process_names_itself_as_the_paper_does():
    assert Process(f_a1=0.6, lam=0.5).label == "D(0.6,0.5)"
    assert Process(f_a1=1.0, lam=0.0).label == "D(1.0,0.0)"
    assert Process(f_a1=1.0, lam=0.0).eta == 0.0


@pytest.mark.parametrize(
    ("errors", "patience", "ended"),
    [([0.3], 1, False), ([0.3, 0.3], 1, True), ([0.3, 0.2], 1, False), ([0.3, 0.2, 0.25], 2, False),
     ([0.3, 0.2, 0.25, 0.2], 2, True), ([0.3, 0.2, 0.25, 0.19], 2, False), ([0.3, 0.4, 0.5], None, False)],
)  # fmt: skip
def test_a_chain_has_saturated_after_so_many_generations_that_beat_nothing(errors, patience, ended):
    assert saturated(errors, patience=patience) is ended


@given(st.sampled_from(["linear", "cosine"]), st.floats(0.01, 1), st.floats(0.01, 1), st.integers(1, 9))
def test_schedules_go_from_one_end_to_the_other(shape, start, end, students):
    weights = LambdaSchedule(shape=shape, start=start, end=end).weights(students)
    assert len(weights) == students
    assert weights[0] == pytest.approx(start)
    assert weights[-1] == pytest.approx(end if students > 1 else start)
    assert list(weights) == sorted(weights, reverse=start > end)
    assert weights[students // 2] == pytest.approx((start + end) / 2) or students % 2 == 0 or students == 1


def test_a_cosine_by_hand():
    weights = LambdaSchedule(shape="cosine", start=0.8, end=0.4).weights(4)
    assert weights == pytest.approx([0.8, 0.7, 0.5, 0.4])  # cos 60° = 1/2
    assert LambdaSchedule(shape="linear", start=0.8, end=0.4).weights(0) == ()


@given(st.floats(0, 1), st.lists(st.floats(0, 1), max_size=6))
def test_an_ensemble_is_a_more_tolerant_teacher_than_its_last_member(start, weights):
    one, all_of_them = (predicted_energies([start], weights, teacher=t) for t in ("previous", "ensemble"))
    assert one[:2] == all_of_them[:2]
    assert all(w >= e - 1e-12 for w, e in zip(one, all_of_them, strict=True))
    for generation in range(len(one)):
        assert one[generation] == pytest.approx(predicted_primary(start, lam=weights, generation=generation))


def test_energies_after_several_given_networks():
    assert predicted_energies([0.6, 0.8], [0.5], teacher="previous") == pytest.approx([0.6, 0.8, 0.9])
    assert predicted_energies([0.6, 0.8], [0.5], teacher="ensemble") == pytest.approx([0.6, 0.8, 0.85])
