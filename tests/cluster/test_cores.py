"""CPU workers claim cores among themselves: disjoint, whole physical cores first, all or none, free after a kill."""

import contextlib
import multiprocessing as mp
import os
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentrain.cluster import cores, worker
from gentrain.cluster.cores import choose_cores, claim_cores, neighbours_seen, pinned, read_siblings
from gentrain.events import GenerationStarted

SECONDS = 60
THREADS = {core: {core % 4, core % 4 + 4} for core in range(8)}
"""Four physical cores of two hyper-threads, 0 and 4 to 3 and 7."""
PLAIN = {core: {core} for core in range(8)}


@pytest.fixture
def name():
    """Return a name for claims that no other test has."""
    return f"gentrain/test/{secrets.token_hex(8)}"


@pytest.fixture
def claim(name):
    """Return a function that claims cores of this test's machine; all are freed when it ends."""
    with contextlib.ExitStack() as held:

        def call(count, *, allowed=range(8), siblings=PLAIN, patience=SECONDS):
            claims = claim_cores(count, allowed=allowed, siblings=siblings, name=name, patience=patience)
            for each in claims.values():
                held.enter_context(each)
            return claims

        yield call


def close(claims):
    for each in claims.values():
        each.close()


@pytest.mark.parametrize(
    ("count", "free", "siblings", "wanted"),
    [
        (1, range(8), THREADS, [0]),
        (2, range(8), THREADS, [0, 1]),  # a physical core for each thread
        (1, {1, 2, 4, 5, 6}, THREADS, [1]),  # 4 is free, but its physical core isn't
        (1, {4, 5}, THREADS, [4]),
        (2, {1, 5, 6}, THREADS, [1, 5]),  # both threads of a core that is free, before a half
        (5, range(8), THREADS, [0, 1, 2, 3, 4]),
        (3, {0, 2, 5, 6, 7}, PLAIN, [5, 6, 7]),  # neighbours
        (2, {0, 1, 4, 5}, {**PLAIN, 0: {0, 1}, 1: {0, 1}, 4: {4, 5}, 5: {4, 5}}, [0, 4]),
        (3, {0, 1}, PLAIN, []),
        (1, (), PLAIN, []),
    ],
)
def test_whole_physical_cores_come_first_and_neighbours_go_together(count, free, siblings, wanted):
    assert list(choose_cores(count, free=free, allowed=range(8), siblings=siblings)) == wanted


def test_only_cores_of_the_cpuset_are_claimed_and_threads_beside_it_count(claim):
    assert list(claim(2, allowed={2, 3, 6, 7}, siblings=THREADS)) == [2, 3]
    assert list(claim(1, allowed={2, 3, 6, 7}, siblings=THREADS)) == [6]
    claim(1, allowed={4}, siblings=THREADS)
    assert list(claim(1, allowed={0, 1}, siblings=THREADS)) == [1]  # 0 shares its physical core with 4
    assert claim(3, allowed={0, 1, 5}, siblings=THREADS) == {}


def test_too_few_free_cores_leave_nothing_claimed(claim):
    first = claim(5)
    assert claim(4) == {}
    assert list(claim(3)) == [5, 6, 7]
    assert claim(1) == {}
    close(first)
    assert list(claim(5)) == [0, 1, 2, 3, 4]
    assert claim(9) == {}


def test_who_chooses_is_alone(claim, name):
    """Whoever chooses holds all free cores for a moment, in which another one would see none."""
    chooser = cores._claim(name)
    assert claim(1, patience=0) == {}
    waiting = threading.Thread(target=lambda: claim(2))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    chooser.close()
    waiting.join(SECONDS)
    assert list(claim(6)) == [2, 3, 4, 5, 6, 7]


@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=12),
    st.sets(st.integers(0, 15)),
    st.sampled_from([1, 2, 4]),
)
def test_what_workers_hold_is_disjoint_allowed_and_as_much_as_they_have_threads(steps, allowed, threads):
    """Each step is a worker that comes, and whether the oldest one leaves before."""
    name = f"gentrain/test/{secrets.token_hex(8)}"
    siblings = {
        core: {each for each in range(16) if each % (16 // threads) == core % (16 // threads)} for core in allowed
    }
    held = []
    try:
        for count, leaves in steps:
            if leaves and held:
                close(held.pop(0))
            free = len(allowed) - sum(map(len, held))
            claims = claim_cores(count, allowed=allowed, siblings=siblings, name=name)
            assert len(claims) == (count if count <= free else 0)
            held.append(claims)
            everything = [core for claims in held for core in claims]
            assert len(set(everything)) == len(everything)
            assert set(everything) <= allowed
    finally:
        for claims in held:
            close(claims)


def claim_two(name, together, claimed):
    """Claim two of five cores once all are there, say which, and keep them."""
    together.wait(SECONDS)
    claims = claim_cores(2, allowed=range(5), siblings=PLAIN, name=name, patience=SECONDS)
    claimed.put((os.getpid(), list(claims)))
    time.sleep(SECONDS)


def test_processes_that_claim_at_once_share_nothing_and_a_kill_frees_what_one_had(name, claim):
    context = mp.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    together, claimed = context.Barrier(3), context.Queue()
    workers = [context.Process(target=claim_two, args=(name, together, claimed)) for _ in range(3)]
    for each in workers:
        each.start()
    try:
        held = dict(claimed.get(timeout=SECONDS) for _ in workers)
        assert sorted(map(len, held.values())) == [0, 2, 2]  # five cores are too few for the third
        assert len(set().union(*held.values())) == 4
        assert claim(2, allowed=range(5)) == {}
        victim = next(each for each in workers if held[each.pid])
        victim.kill()
        victim.join(SECONDS)
        assert set(held[victim.pid]) <= set(claim(3, allowed=range(5)))
    finally:
        for each in workers:
            each.kill()


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [("3,67\n", {3, 67}), ("2-3\n", {2, 3}), ("0-1,3-4", {0, 1, 3, 4}), ("", {3}), ("none", {3}), (None, {3})],
)
def test_hyper_threads_are_read_where_the_kernel_lists_them(listed, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "_CPUS", tmp_path)
    if listed is not None:
        (tmp_path / "cpu3" / "topology").mkdir(parents=True)
        (tmp_path / "cpu3" / "topology" / "thread_siblings_list").write_text(listed)
    assert read_siblings([3]) == {3: wanted | {3}}


@pytest.fixture
def on_thread(name, monkeypatch):
    """Return a function that returns the cores of a thread inside `pinned`, and of the same one after it."""
    monkeypatch.setattr(cores, "claim_cores", lambda *args, **named: claim_cores(*args, **named, name=name))

    def run(pin, *, cuda=False, threads=1):
        seen = []

        def body():
            with pinned(pin, cuda=cuda, threads=threads):
                seen.append(started_thread())
            seen.append(os.sched_getaffinity(0))

        thread = threading.Thread(target=body)
        thread.start()
        thread.join(SECONDS)
        return seen

    return run


def started_thread():
    """Return the cores of a thread that is started now."""
    seen = []
    thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
    thread.start()
    thread.join(SECONDS)
    return seen[0]


def test_a_worker_is_pinned_with_the_threads_that_it_starts_and_the_others_are_left_alone(on_thread, claim):
    mine = os.sched_getaffinity(0)
    everything = {"allowed": mine, "siblings": read_siblings(mine)}
    (core,) = claim(1, **everything)
    if len(mine) > 1:
        inside, after = on_thread(True)
        assert len(inside) == 1
        assert inside <= mine - {core}
        assert after == mine
        assert len(claim(len(mine) - 1, **everything)) == len(mine) - 1  # what the block had is free again
    assert on_thread(True) == [mine, mine]  # no core is free
    assert os.sched_getaffinity(0) == mine


def test_auto_pins_outside_containers_and_never_on_a_gpu(on_thread, monkeypatch):
    asked = []
    monkeypatch.setattr(cores, "claim_cores", lambda count, **_: asked.append(count) or {})
    monkeypatch.setattr(cores, "pin_to_gpu", lambda: asked.append("gpu"))
    for seen in (True, False):
        monkeypatch.setattr(cores, "neighbours_seen", lambda seen=seen: seen)
        for pin, cuda in [("auto", False), (True, False), (False, False), ("auto", True), (True, True), (False, True)]:
            asked.append((pin, cuda))
            on_thread(pin, cuda=cuda, threads=3)
    ours, container = asked[: len(asked) // 2 + 1], asked[len(asked) // 2 + 1 :]
    common = [(False, False), ("auto", True), (True, True), "gpu", (False, True)]
    assert ours == [("auto", False), 3, (True, False), 3, *common]
    assert container == [("auto", False), (True, False), 3, *common]


def test_all_that_a_worker_does_for_its_group_it_does_pinned(monkeypatch):
    order = []

    @contextlib.contextmanager
    def noted(pin, *, cuda, threads):
        order.append((pin, cuda, threads))
        yield
        order.append("free")

    monkeypatch.setattr(worker, "pinned", noted)
    monkeypatch.setattr(worker, "_train_jobs", lambda config: order.append("jobs"))
    worker.train_worker({"pin": "auto", "cuda": False, "threads": 2})
    assert order == [("auto", False, 2), "jobs", "free"]


def test_a_container_is_known_by_its_processes_namespace(tmp_path, monkeypatch):
    assert isinstance(neighbours_seen(), bool)
    monkeypatch.setattr(cores, "_PIDS", tmp_path)
    assert not neighbours_seen()
    monkeypatch.setattr(cores, "_MACHINES_PIDS", tmp_path.stat().st_ino)
    assert neighbours_seen()
    monkeypatch.setattr(cores, "_PIDS", tmp_path / "none")
    assert not neighbours_seen()


def pinned_cores(pid):
    """Return the cores of a process's main thread, and those of threads that have others, each set once."""
    main = frozenset(os.sched_getaffinity(pid))
    threads = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            threads.add(frozenset(os.sched_getaffinity(int(task))))
    return main, threads - {main}


@pytest.mark.ray
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.skipif(not neighbours_seen(), reason="pin_workers: auto pins no worker in a container")
def test_chains_side_by_side_train_on_cores_of_their_own(small, tmp_path):
    from gentrain.cluster.session import ray_session
    from tests.cluster.test_worker_group import run, train_workers

    seen = []
    both = threading.Barrier(2, action=lambda: seen.extend(pinned_cores(pid) for pid in train_workers()), timeout=120)

    def observe(event):
        if isinstance(event, GenerationStarted):
            both.wait()

    studies = [small("generations=0", "recipe.epochs=60", "evaluate_every=60", f"seed={seed}") for seed in range(2)]
    with ray_session(address=None, log=tmp_path / "ray.log", cpus=2), ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda study: run(study, tmp_path / str(study.seed), observe), studies))
    (first_main, (first,)), (second_main, (second,)) = seen
    assert first_main == second_main == os.sched_getaffinity(0)  # Ray's threads are left alone
    assert len(first) == len(second) == 1
    assert first != second
