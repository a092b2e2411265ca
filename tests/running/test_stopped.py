"""A chain that the study's scheduler has stopped stays so."""

import pytest

from gentrain.running.executor import Outcome
from gentrain.running.local import LocalExecutor
from gentrain.running.study import run_study
from gentrain.store.run import RunStore
from gentrain.store.study_record import StudyRecord

GRID = "grid.process=[{f_a1: 0.6, lambda: 0.5}, {f_a1: 0.6, lambda: 0.6}, {f_a1: 0.6, lambda: 0.7}]"
SETTINGS = (
    "generations=1",
    "recipe.epochs=1",
    "recipe.milestones=[]",
    "dataset.validation=0.2",
    "scheduler.name=asha",
)


class Scheduling(LocalExecutor):
    """Takes studies with a scheduler, and counts the chains that it is given."""

    def __init__(self):
        self.names = []

    def check(self, study):
        pass

    def run(self, chains, **arguments):
        self.names += [chain.name for chain in chains]
        return super().run(chains, **arguments)


class Stopping(Scheduling):
    """Finishes the first chain, stops the second, and is interrupted before the third."""

    def run(self, chains, **arguments):
        super().run(chains[:1], **arguments)
        return Outcome({}, frozenset({chains[1].name}), interrupted=True)


def test_a_stopped_chain_is_stopped_after_later_runs_of_others_too(small, tmp_path):
    study = small(GRID, *SETTINGS)
    store = RunStore(str(tmp_path))

    def run(executor):
        run_study(study, store=store, executor=executor, observe=lambda _: None, on_change="refuse")
        return executor.names

    with pytest.raises(KeyboardInterrupt):
        run(Stopping())
    (stopped,) = StudyRecord(study, store=store).stopped()
    (other,) = run(Scheduling())
    assert other != stopped
    assert StudyRecord(study, store=store).stopped() == {stopped}
    assert run(Scheduling()) == []
