"""A sweep on a cluster of several nodes, its store on S3, that loses a node: `make slow`."""

import contextlib
import os
import subprocess

import psutil
import pytest

from gentrain import api
from gentrain.store.done import MODEL, PREDICTIONS
from gentrain.store.run import RunStore
from gentrain.study.loading import load_study
from tests.conftest import SMALL
from tests.s3 import s3_server
from tests.train.test_resume import GENTRAIN, kill_everything, wait_for

SETTINGS = (
    *SMALL, "name=nodes", "dataset.limit=60", "recipe.epochs=20", "recipe.milestones=[15]", "network.name=resnet14",
    "grid.process=[{lambda: 0.5}, {lambda: 0.7}]",
)  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1800)]


@pytest.fixture
def cluster(tmp_path):
    """A head that trains nothing and two nodes of one CPU, each with a separate cache."""
    from ray.cluster_utils import Cluster

    from gentrain.cluster import session  # noqa: F401  # sets what Ray reads when it is imported

    def node(name, **kwargs):
        return {"env_vars": {"GENTRAIN_CACHE": str(tmp_path / name)}, "resources": {"gentrain_driver": 2}, **kwargs}

    cluster = Cluster(initialize_head=True, head_node_args=node("head", num_cpus=0))
    try:
        cluster.nodes = {name: cluster.add_node(**node(name, num_cpus=1)) for name in ("one", "two")}
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


@contextlib.contextmanager
def sweep(url, address, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text("{}")
    changes = [part for setting in SETTINGS for part in ("--set", setting)]
    environment = os.environ | {"GENTRAIN_CACHE": str(tmp_path / "head")}
    with (tmp_path / "log.txt").open("a") as log:
        driver = psutil.Popen(
            [GENTRAIN, "sweep", str(study), *changes, "--runs", url, "--address", address],
            stdout=log, stderr=log, env=environment,
        )  # fmt: skip
    try:
        yield driver
    finally:
        kill_everything(driver)


def checkpoints(store, *, after):
    folders = (store.root / "generations").names()
    return any(store.generation(key).newest_epoch() > after for key in folders)


def test_an_event_queue_runs_on_the_node_of_its_reader(cluster):
    import ray
    from ray.util.state import list_actors

    from gentrain.cluster.queue import start_event_queue

    with ray.init(address=cluster.address):
        queues = [start_event_queue(f"events of {number}") for number in range(8)]
        ray.get([queue.drain.remote() for queue in queues])
        (head,) = {node["NodeID"] for node in ray.nodes() if node["Resources"].get("node:__internal_head__")}
        assert {actor.node_id for actor in list_actors(filters=[("class_name", "=", "EventQueue")])} == {head}


def test_a_node_is_lost_and_the_sweep_ends_in_the_same_bits(cluster, tmp_path, monkeypatch):
    reference = tmp_path / "reference"
    for lam in (0.5, 0.7):
        settings = [*SETTINGS[:-1], f"process.lambda={lam}"]
        api.run(load_study(overrides=settings), runs=str(reference), observe=lambda _: None, local=True)
    with s3_server(monkeypatch) as bucket:
        url = bucket("nodes")
        store = RunStore(url)
        with sweep(url, cluster.address, tmp_path) as driver:
            wait_for(lambda: checkpoints(store, after=2), driver, "a checkpoint")
            cluster.remove_node(cluster.nodes["two"], allow_graceful=False)
            assert driver.wait(timeout=900) == 0, (tmp_path / "log.txt").read_text()
        keys = (store.root / "generations").names()
        assert len(keys) == 3
        for key in keys:
            for name in (MODEL, PREDICTIONS):
                assert (
                    store.generation(key).read_verified(name) == (reference / "generations" / key / name).read_bytes()
                )
        for name in ("head", "one"):
            assert [path.name for path in (tmp_path / name / "data").glob("digits-*")], f"{name} fetched nothing"
        changes = [part for setting in SETTINGS for part in ("--set", setting)]
        again = subprocess.run(
            [GENTRAIN, "sweep", str(tmp_path / "study.yaml"), *changes, "--runs", url, "--address", cluster.address],
            capture_output=True, text=True, timeout=120, check=False,
            env=os.environ | {"GENTRAIN_CACHE": str(tmp_path / "head")},
        )  # fmt: skip
        assert again.returncode == 0, again.stderr
        assert "trainings to do" not in again.stdout
