"""Sweeps on one object store: simulated with all that goes wrong there; `make simulations` runs 100,000 histories."""

import os
from collections import Counter

import pytest

from tests.running.sweeps_simulation import simulate_sweeps

SIMULATIONS = int(os.environ.get("GENTRAIN_SIMULATIONS", "2000"))
FIRST_SEED = int(os.environ.get("GENTRAIN_SIMULATION_SEED", "0"))


@pytest.mark.timeout(3600)
def test_no_two_writers_win_in_any_of_many_histories():
    seen = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + SIMULATIONS):
        bucket = simulate_sweeps(seed)
        seen.update({name: getattr(bucket, name) for name in ("refused", "unanswered", "takeovers", "late")})
        seen["waited for others"] += len(bucket.waited_for)
        seen["rebuilt"] += len(bucket.rebuilt)
    if SIMULATIONS >= 1000:
        assert len(seen) == 6
        assert all(seen.values())


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_the_simulation_notices_a_store_that_ignores_a_condition(header):
    def simulate():
        for seed in range(100):
            simulate_sweeps(seed, ignored=header)

    with pytest.raises(AssertionError, match=r"^seed \d+: \w{16}: sweep \d, chain \d\.\d "):
        simulate()


def test_the_same_seed_is_the_same_history_of_sweeps():
    one, other = simulate_sweeps(7), simulate_sweeps(7)
    assert one.clock.now == other.clock.now
    assert one.changed == other.changed


@pytest.mark.parametrize("seed", [54641])
def test_histories_that_went_wrong_once(seed):
    """54641: a claim's write was done long after it, and again with the same token when another had had the claim."""
    simulate_sweeps(seed)
