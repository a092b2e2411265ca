"""The lease table: leases, urgency, recovery; and the whole scheduling under a simulated clock."""

import contextlib
import os
from types import SimpleNamespace

import pytest

from gentrain.errors import DataError
from gentrain.running.leases import FRESH_SECONDS, LEASE_SECONDS, LeaseTable, acquire_lease, leased
from gentrain.store.generation import Inspection
from tests.running.simulation import simulate

SIMULATIONS = int(os.environ.get("GENTRAIN_SIMULATIONS", "300"))
FIRST_SEED = int(os.environ.get("GENTRAIN_SIMULATION_SEED", "0"))


def test_one_trains_and_the_others_wait_then_look():
    table = LeaseTable({}, slots=4)
    assert table.request("k", "a", 0) == "train"
    assert table.request("k", "b", 0) == "wait"
    assert table.request("k", "a", 1) == "train"
    table.release("k", "a", finished=True)
    assert table.request("k", "b", 2) == "look"
    table.reopen("k")
    assert table.request("k", "b", 2) == "train"


def test_the_next_chain_may_train_what_was_given_back_unfinished():
    table = LeaseTable({}, slots=1)
    table.request("k", "a", 0)
    table.release("k", "b", finished=False)  # b doesn't hold the lease
    assert table.request("k", "b", 0) == "wait"
    table.release("k", "a", finished=False)
    assert table.request("k", "b", 0) == "train"


def test_a_lease_lapses_when_it_is_not_renewed():
    table = LeaseTable({}, slots=1)
    table.request("k", "a", 0)
    assert table.renew("k", "a", LEASE_SECONDS)
    assert table.request("k", "b", 2 * LEASE_SECONDS) == "wait"
    assert table.request("k", "b", 2 * LEASE_SECONDS + 1) == "train"
    assert not table.renew("k", "a", 2 * LEASE_SECONDS + 1)


def test_devices_go_to_the_most_urgent_that_still_waits():
    table = LeaseTable({"long": 9, "short": 1}, slots=1)
    table.request("first", "a", 0)
    assert table.request("long", "l", 0) == "wait"
    assert table.request("short", "s", 0) == "wait"
    table.release("first", "a", finished=True)
    assert table.request("short", "s", 1) == "wait"
    assert table.request("long", "l", 1) == "train"
    table.release("long", "l", finished=True)
    assert table.request("long", "x", 1) == "look"
    table.reopen("long")
    table.request("short", "s", 2)
    table.release("short", "s", finished=False)
    table.request("filler", "f", 2)
    assert table.request("long", "l", 2) == "wait"
    table.release("filler", "f", finished=True)
    assert table.request("short", "s", 2 + FRESH_SECONDS + 1) == "train"  # the more urgent request has expired


def test_a_new_table_grants_nothing_until_holders_of_the_lost_one_have_renewed():
    table = LeaseTable({}, slots=2, recovering=True)
    assert table.request("k", "b", 100) == "wait"
    assert table.renew("k", "a", 101)
    assert table.request("other", "c", 100 + LEASE_SECONDS - 1) == "wait"
    assert table.request("k", "b", 100 + LEASE_SECONDS + 1) == "wait"
    assert table.request("other", "c", 100 + LEASE_SECONDS + 1) == "train"
    assert table.held == {"k": "a", "other": "c"}


@pytest.mark.timeout(3600)
def test_every_chain_ends_nothing_is_trained_twice_and_nobody_waits_with_a_device():
    killed = wasted = trained = 0
    for seed in range(FIRST_SEED, FIRST_SEED + SIMULATIONS):
        cluster = simulate(seed)
        trained += len(cluster.world.trained)
        wasted += cluster.world.wasted_epochs
        killed += sum(int(process.holder.split()[-1]) >= len(cluster.processes) for process in cluster.processes)
    assert trained > SIMULATIONS
    if SIMULATIONS >= 300:
        assert killed
        assert wasted


def test_the_same_seed_is_the_same_history():
    one, other = simulate(7), simulate(7)
    assert one.world.trained == other.world.trained
    assert one.world.now == other.world.now


def test_a_device_is_given_to_other_generations_while_another_sweep_has_the_claim():
    """The claim's holder is elsewhere for two requests; between them the only slot is free."""
    table, answers, free, reasons = LeaseTable({"k": 9}, slots=1), ["other", "other", "mine"], [], []

    class Claimant:
        def attempt(self, waiting):
            answer = answers.pop(0)
            if answer == "other":
                waiting("sweep b since noon")
            return answer if answer == "mine" else None

        kept = staticmethod(contextlib.nullcontext)

    def ask(question, key, *arguments):
        if question == "release":
            return table.release(key, "a", finished=arguments[0], error=arguments[1])
        return table.request(key, "a", 0)

    def sleep(_):
        free.append(table.request("other", "c", 0) == "train")
        table.release("other", "c", finished=False)

    folder = SimpleNamespace(key="k", claimant=lambda _: Claimant(), inspect=lambda: Inspection(None))
    renewing = contextlib.nullcontext
    with leased(ask, folder, holder="a", renewing=renewing, waiting=reasons.append, sleep=sleep) as claim:
        assert claim == "mine"
        assert table.held == {"k": "a"}
    assert table.held == {}
    assert free == [True, True]
    assert reasons == ["sweep b since noon"]


def test_every_chain_that_needs_a_failed_generation_gets_the_error_itself():
    table, failure = LeaseTable({}, slots=1), DataError("no such file")
    assert table.request("k", "a", 0) == "train"
    table.release("k", "a", finished=False, error=failure)
    ask = {"request": lambda key: table.request(key, "b", 1), "error": table.error}
    with pytest.raises(DataError) as error:
        acquire_lease(lambda name, key: ask[name](key), "k", valid=lambda: False, waiting=lambda: None)
    assert error.value is failure
