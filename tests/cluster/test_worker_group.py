"""Generations of a chain that share a worker group: how a job passes, who leaves when, and the bits."""

import contextlib
import time

import psutil
import pytest
import torch
import torch.distributed as dist

from gentrain.cluster import trainer
from gentrain.cluster.queue import EventQueue, PostedJob
from gentrain.cluster.session import Resources
from gentrain.cluster.trainer import RayRunner
from gentrain.cluster.worker import IDLE_SECONDS, next_job
from gentrain.data.prepare.share import prepare_shared
from gentrain.errors import TrainingError
from gentrain.events import EpochDone, GenerationStarted, Note
from gentrain.running.chain import lease_by_claim, run_chain
from gentrain.store.done import MODEL, PREDICTIONS
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_chain
from gentrain.train.generation import train_generation
from gentrain.train.job import Job
from gentrain.train.workers import Workers
from tests.conftest import claim_token
from tests.train.processes import collect

FIRST, SECOND = PostedJob("first", "reference 1"), PostedJob("second", "reference 2")


def take(queue, group, done="", *, last=False):
    return queue.take(group, done, last=last)


def test_a_group_gets_one_job_after_the_other():
    queue = EventQueue()
    assert queue.offer("group", FIRST) == ([], "open")
    assert take(queue, "group") == FIRST
    queue.post(Note("epoch"), "first")
    assert queue.offer("group", FIRST) == ([Note("epoch")], "open")
    queue.post(Note("last epoch"), "first")
    assert take(queue, "group", "first") == "wait"
    assert queue.offer("group", FIRST) == ([Note("last epoch")], "done")
    queue.post(Note("late"), "first")
    assert queue.offer("group", SECOND) == ([], "open")
    assert take(queue, "group", "first") == SECOND


def test_a_group_that_was_started_again_does_the_job_it_was_in_and_then_leaves():
    queue = EventQueue()
    queue.offer("group", FIRST)
    take(queue, "group")
    take(queue, "group", "first")
    queue.offer("group", SECOND)
    assert take(queue, "group", "first") == SECOND
    assert take(queue, "group") == SECOND
    assert take(queue, "group", "second") == "leave"
    assert queue.offer("group", SECOND) == ([], "done")
    assert queue.offer("group", FIRST) == ([], "left")  # the next generation has all restarts again, in a new group


def test_a_group_that_dies_while_it_waits_is_not_used_again():
    queue = EventQueue()
    queue.offer("group", FIRST)
    take(queue, "group")
    assert take(queue, "group", "first") == "wait"
    assert take(queue, "group") == "leave"
    assert queue.offer("group", SECOND) == ([], "left")


@pytest.mark.parametrize("how", ["last", "close"])
def test_a_job_that_comes_too_late_goes_to_another_group(how):
    queue = EventQueue()
    queue.offer("group", FIRST)
    take(queue, "group")
    take(queue, "group", "first")
    if how == "close":
        queue.close("group")
    assert take(queue, "group", "first", last=how == "last") == "leave"
    assert queue.offer("group", SECOND) == ([], "left")
    assert queue.offer("new group", SECOND) == ([], "open")
    assert take(queue, "group", "first") == "leave"
    assert take(queue, "group") == "leave"
    queue.close("group")
    assert take(queue, "new group") == SECOND


def test_a_job_that_is_offered_at_the_last_moment_is_done():
    queue = EventQueue()
    queue.offer("group", FIRST)
    take(queue, "group")
    queue.offer("group", SECOND)
    assert take(queue, "group", "first", last=True) == SECOND


def test_a_queue_that_was_started_again_learns_from_both_sides_what_it_has_forgotten():
    for chain_first in (True, False):
        queue = EventQueue()
        if chain_first:
            assert queue.offer("group", FIRST) == ([], "open")
        assert take(queue, "group", "first") == "wait"
        assert queue.offer("group", FIRST) == ([], "done")
        queue.offer("group", SECOND)
        assert take(queue, "group", "first") == SECOND
    queue = EventQueue()
    assert take(queue, "group") == "wait"  # started again with its queue: the chain says what it was in
    queue.offer("group", SECOND)
    assert take(queue, "group") == SECOND
    queue = EventQueue()
    queue.close("group")
    assert take(queue, "group", "first") == "leave"
    queue = EventQueue()
    assert take(queue, "group", "first", last=True) == "leave"
    assert queue.offer("group", SECOND) == ([], "left")


def test_a_group_waits_two_seconds_for_its_next_job_and_a_new_one_as_long_as_it_takes():
    now, asked = [0.0], []

    def ask(done, *, last):
        asked.append(last)
        return "leave" if last else "wait" if now[0] < 100 else FIRST

    def sleep(seconds):
        now[0] += seconds

    assert next_job(ask, "first", clock=lambda: now[0], sleep=sleep) is None
    assert 2.0 <= IDLE_SECONDS <= now[0] < 2.2
    assert asked.count(True) == 1
    assert next_job(ask, "", clock=lambda: now[0], sleep=sleep) is FIRST
    assert asked.count(True) == 1


class FakeGroup:
    """Says what its workers do with a job, and notes what is asked of it."""

    def __init__(self, *outcomes):
        self.outcomes, self.asked = list(outcomes), []

    def train(self, job, observe):
        self.asked.append(job.spec.generation)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def leave(self):
        self.asked.append("leave")


@pytest.fixture
def scene(small, tmp_path, monkeypatch):
    """Return a function from groups, as they are started, to a runner, its chain's specs, and its store."""

    def build(*groups):
        study, store = small("generations=2"), RunStore(str(tmp_path))
        left = list(groups)
        monkeypatch.setattr(trainer.RayRunner, "_start_group", lambda *_: left.pop(0))
        runner = RayRunner(
            study, store=store, data="none", chain="chain", observe=lambda _: None, resources=Resources(1, 1, 0)
        )
        return runner, build_chain(study, data="none", num_classes=10).specs, store

    return build


def train(runner, spec):
    with runner.lease(spec, waiting=pytest.fail) as claim:
        runner.run_generation(spec, claim=claim)


def test_generations_share_a_group_that_leaves_with_the_chain(scene):
    group = FakeGroup(True, True, True)
    runner, specs, _ = scene(group)
    with runner:
        for spec in specs:
            train(runner, spec)
    assert group.asked == [0, 1, 2, "leave"]


def test_a_group_that_has_left_is_replaced_and_one_that_failed_is_not_used_again(scene):
    groups = FakeGroup(True, False), FakeGroup(TrainingError("diverged")), FakeGroup(True)
    runner, specs, _ = scene(*groups)
    with runner:
        train(runner, specs[0])
        with pytest.raises(TrainingError, match="diverged"):
            train(runner, specs[1])
        train(runner, specs[2])
    assert [group.asked for group in groups] == [[0, 1, "leave"], [1], [2, "leave"]]


def test_a_chain_that_is_interrupted_does_not_wait_for_its_workers(scene):
    group = FakeGroup(True)
    runner, specs, _ = scene(group)

    def interrupted():
        with runner:
            train(runner, specs[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert group.asked == [0]


def test_who_waits_for_a_lease_has_given_the_devices_back(scene):
    group = FakeGroup(True)
    runner, specs, store = scene(group)
    train(runner, specs[0])
    asked = []
    with store.generation(specs[1].key).claimed("another", waiting=pytest.fail):

        def waiting(who):
            asked.append((who, list(group.asked)))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), runner.lease(specs[1], waiting=waiting):
            pytest.fail("both hold it")
    ((who, before),) = asked
    assert who.startswith("another")
    assert before == [0, "leave"]


def run(study, runs, observe, lease=None):
    """Run a chain on the connected Ray."""
    store = RunStore(str(runs))
    data = prepare_shared(study.dataset, store)
    chain = build_chain(study, data=data.manifest.fingerprint, num_classes=data.num_classes)
    options = {"store": store, "data": data.folder.name, "chain": chain.name, "lease": lease and lease(store)}
    with RayRunner(study, observe=observe, **options) as runner:
        run_chain(chain, store=store, runner=runner, observe=observe)
    return contents(store, chain.keys)


def contents(store, keys):
    return [store.generation(key).read_verified(name) for key in keys for name in (MODEL, PREDICTIONS)]


def train_workers():
    """Return the processes of the worker group that is there."""
    family = psutil.Process().children(recursive=True)
    with contextlib.suppress(psutil.NoSuchProcess):
        return sorted(p.pid for p in family if "RayTrainWorker" in " ".join(p.cmdline()))
    return train_workers()


def train_apart(rank, folder, jobs, results):
    """Train each job on one of two workers, in a process group of its own."""
    torch.set_num_threads(1)
    for number, job in enumerate(jobs):
        dist.init_process_group("gloo", init_method=f"file://{folder}/{number}", rank=rank, world_size=2)
        train_generation(job, Workers(rank=rank, world_size=2, device=torch.device("cpu"), threads=1), lambda _: None)
        dist.barrier()
        dist.destroy_process_group()
    results.put(rank)


def trained_apart(study, runs, folder):
    """Return what two workers without Ray make of the chain."""
    store = RunStore(str(runs))
    data = prepare_shared(study.dataset, store)
    specs = build_chain(study, data=data.manifest.fingerprint, num_classes=data.num_classes).specs
    jobs = [
        Job(
            spec=spec, store=store, data=data.folder.name, evaluate_every=1,
            token=claim_token(store.generation(spec.key)),
        )
        for spec in specs
    ]  # fmt: skip
    folder.mkdir()
    assert sorted(collect(train_apart, 2, folder, jobs)) == [0, 1]
    return contents(store, [spec.key for spec in specs])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    from gentrain.cluster.session import ray_session

    with ray_session(address=None, log=tmp_path_factory.mktemp("log") / "ray.log", cpus=2):
        yield


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_two_generations_in_one_group_and_a_worker_killed_in_the_second_end_in_the_same_bits(small, tmp_path):
    study = small("workers=2", "dataset.limit=60", "recipe.epochs=20", "recipe.milestones=[15]", "evaluate_every=20")
    pids, started, killed = {0: [], 1: []}, [], []

    def observe(event):
        if isinstance(event, GenerationStarted):
            started.append(event.generation)
        if isinstance(event, GenerationStarted | EpochDone) and not killed:
            pids[event.generation] = train_workers()
        if isinstance(event, EpochDone) and event.generation == 1 and not killed:
            killed.append(pids[1][-1])
            psutil.Process(killed[0]).kill()

    assert run(study, tmp_path / "shared", observe) == trained_apart(study, tmp_path / "apart", tmp_path / "group")
    assert len(pids[0]) == 2
    assert pids[0] == pids[1]
    assert started == [0, 1, 1]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_devices_are_free_again_where_the_next_lease_does_not_come(small, tmp_path):
    import ray

    free = []

    def slow(store):
        lease = lease_by_claim(store)

        def acquire(spec, *, waiting):
            if spec.generation == 1:
                free.append(ray.available_resources().get("CPU", 0))
                deadline = time.monotonic() + 60
                while free[-1] < 2 and time.monotonic() < deadline:
                    time.sleep(0.1)
                    free.append(ray.available_resources().get("CPU", 0))
            return lease(spec, waiting=waiting)

        return acquire

    pids = {}

    def observe(event):
        if isinstance(event, GenerationStarted):
            pids[event.generation] = train_workers()

    run(small(), tmp_path, observe, slow)
    assert free[0] == 1
    assert free[-1] == 2
    assert pids[0] != pids[1]
