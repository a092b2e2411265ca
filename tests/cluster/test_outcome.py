"""How a sweep ended, from Tune's results and what the chains said themselves."""

import pickle
from types import SimpleNamespace

import pytest

from gentrain.cluster.sweep import _outcome
from gentrain.errors import DataError, TrainingError


def trial(name, *, error=None, **metrics):
    return SimpleNamespace(config={"chain": name}, error=error, metrics=metrics)


def test_finished_failed_and_stopped_chains_are_told_apart():
    broken = DataError("no such file")
    results = [
        trial("finished", done=True, chain_done=True),
        trial("saturated", done=True, chain_done=False),
        trial("failed", done=True),
        trial("stopped", done=True, chain_done=False),
        trial("killed", error=RuntimeError("a\nworker died\n")),
    ]
    outcome = _outcome(results, {"finished": None, "saturated": None, "failed": broken}, scheduled=True)
    assert outcome.failed.keys() == {"failed", "killed"}
    assert outcome.failed["failed"] is broken
    assert (type(outcome.failed["killed"]), str(outcome.failed["killed"])) == (TrainingError, "worker died")
    assert outcome.stopped == {"stopped"}
    assert not outcome.interrupted


@pytest.mark.parametrize("metrics", [{}, {"done": False, "chain_done": False}])
def test_a_trial_that_never_ended_was_interrupted(metrics):
    outcome = _outcome([trial("a", done=True, chain_done=True), trial("b", **metrics)], {"a": None}, scheduled=True)
    assert outcome.interrupted
    assert not outcome.failed
    assert not outcome.stopped


def test_without_a_scheduler_nothing_counts_as_stopped():
    outcome = _outcome([trial("a", done=True, chain_done=False)], {}, scheduled=False)
    assert not outcome.stopped
    assert outcome.interrupted


def test_an_error_keeps_its_exit_status_on_its_way_to_the_driver():
    error = pickle.loads(pickle.dumps(DataError("no such file")))
    assert (type(error), error.exit_status, str(error)) == (DataError, 2, "no such file")
