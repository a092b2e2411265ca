"""Test statistics over seeds against values computed by hand and the quantiles of printed tables."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gentrain.scores.spread import Spread, paired_difference, unpaired_seeds

T_TABLE = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 11: 2.228, 31: 2.042}
"""Two-sided 95 % quantiles of Student's t by n, from printed tables (n - 1 degrees of freedom)."""
by_seed = st.dictionaries(st.integers(0, 20), st.floats(-1, 1), min_size=1, max_size=8)


def test_by_hand():
    """Of 1, 2, 3: mean 2, deviation 1, so the interval is 2 ± 4.303/√3 = 2 ± 2.484."""
    spread = Spread({0: 1.0, 1: 2.0, 2: 3.0})
    assert (spread.n, spread.mean, spread.std) == (3, 2.0, 1.0)
    assert spread.interval == (pytest.approx(-0.484, abs=1e-3), pytest.approx(4.484, abs=1e-3))


@pytest.mark.parametrize(("n", "t"), T_TABLE.items())
def test_the_quantile_is_that_of_printed_tables(n, t):
    spread = Spread(dict(enumerate(range(n))))
    low, high = spread.interval
    assert (high - low) / 2 * math.sqrt(n) / spread.std == pytest.approx(t, abs=6e-4)
    assert (low + high) / 2 == pytest.approx(spread.mean)


def test_one_seed_has_no_deviation_and_no_interval():
    assert Spread({4: 0.3}).std is None
    assert Spread({4: 0.3}).interval is None


def test_a_difference_is_paired_over_the_seeds_that_both_have():
    """Seeds move both sides by up to 10, and cancel: the differences are -1, -2, -3."""
    first, other = Spread({0: 9.0, 1: 3.0, 2: -1.0, 7: 50.0}), Spread({2: 2.0, 0: 10.0, 1: 5.0, 5: -50.0})
    difference = paired_difference(first, other)
    assert difference.values == {0: -1.0, 1: -2.0, 2: -3.0}
    assert difference.interval == (pytest.approx(-4.484, abs=1e-3), pytest.approx(0.484, abs=1e-3))
    assert unpaired_seeds(first, other) == (5, 7)
    assert paired_difference(first, Spread({9: 1.0})) is None
    assert paired_difference(None, other) is paired_difference(first, None) is None
    assert unpaired_seeds(first, None) == (0, 1, 2, 7)


@given(by_seed, by_seed)
def test_the_interval_is_that_of_the_paired_t_test(first, other):
    difference = paired_difference(Spread(first), Spread(other))
    common = sorted(first.keys() & other.keys())
    assert (difference.values.keys() if difference else set()) == set(common)
    if len(common) < 2 or len(set(difference.values.values())) == 1:
        return
    wanted = stats.ttest_rel([first[s] for s in common], [other[s] for s in common]).confidence_interval(0.95)
    assert difference.interval == (pytest.approx(wanted.low), pytest.approx(wanted.high))


@given(by_seed, st.randoms())
def test_the_order_of_seeds_changes_no_bit(values, random):
    shuffled = list(values.items())
    random.shuffle(shuffled)
    one, other = Spread(values), Spread(dict(shuffled))
    assert (one.mean, one.std, one.interval) == (other.mean, other.std, other.interval)
