"""Grids that are larger than the machine, and schedulers across chains: `make slow`."""

import pytest

from gentrain import api
from gentrain.cluster.capacity import reachable
from gentrain.events import CapacityChanged, GenerationStarted, InChain, Note
from gentrain.results.status import study_status
from gentrain.store.run import RunStore
from gentrain.store.study_record import StudyRecord
from gentrain.study.loading import load_study
from tests.conftest import SMALL


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_forty_chains_on_two_cpus_queue_and_all_finish(tmp_path):
    study = load_study(
        overrides=[*SMALL, "name=forty", "generations=0", "recipe.epochs=1", "recipe.milestones=[]",
                   f"grid.seed={list(range(40))}"]
    )  # fmt: skip
    events = []
    rows = api.run(study, runs=str(tmp_path), observe=events.append)
    assert len(rows) == len({row["key"] for row in rows}) == 40
    assert len(list(tmp_path.glob("generations/*/DONE.json"))) == 40
    assert [e.slots for e in events if isinstance(e, CapacityChanged)] == [2]
    assert any("40 chains to run, 4 side by side" in e.text for e in events if isinstance(e, Note))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_a_scheduler_stops_chains_and_a_second_run_leaves_them_stopped(tmp_path):
    study = load_study(
        overrides=[*SMALL, "name=asha", "dataset.validation=0.2", "generations=3", "scheduler.name=asha",
                   "grid.process=[{lambda: 0.3}, {lambda: 0.5}, {lambda: 0.6}, {lambda: 0.8}]"]
    )  # fmt: skip
    events = []
    rows = api.run(study, runs=str(tmp_path), observe=events.append)
    stopped = StudyRecord(study, store=RunStore(str(tmp_path))).stopped()
    finished = {row["chain"] for row in rows}
    assert stopped
    assert finished
    assert stopped.isdisjoint(finished)
    assert len(stopped | finished) == 4
    chains = study_status(RunStore(str(tmp_path)), "asha").chains
    assert all({cell.state for cell in chains[name]} == {"done", "stopped"} for name in stopped)
    again = []
    assert api.run(study, runs=str(tmp_path), observe=again.append) == rows
    assert not [e for e in again if isinstance(e, InChain) and isinstance(e.event, GenerationStarted)]


def test_what_an_autoscaler_can_reach_is_counted():
    config = """
    max_workers: 10
    head_node_type: head
    available_node_types:
      head: {resources: {CPU: 0, gentrain_driver: 12}}
      gpu: {max_workers: 4, resources: {CPU: 4, GPU: 1, gentrain_driver: 6}}
      more: {resources: {CPU: 8, GPU: 2}}
    """
    assert reachable(config) == {"CPU": 4 * 4 + 10 * 8, "GPU": 4 + 20, "gentrain_driver": 12 + 24}
    assert reachable("cluster_name: x") == {}
