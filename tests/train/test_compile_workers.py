"""Compiled trainings over processes: two workers that were killed end in the same bits, the cache bears two at once."""

import os
import shutil
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from gentrain.data.prepare.share import prepare_shared
from gentrain.events import EpochDone
from gentrain.store.done import MODEL, PREDICTIONS
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_chain
from gentrain.study.loading import load_study
from gentrain.train import setup
from gentrain.train.compiler_cache import VARIABLE
from gentrain.train.compiling import compile_network, prepare_compiler
from gentrain.train.generation import train_generation
from gentrain.train.job import Job
from gentrain.train.workers import Workers
from tests.conftest import SMALL, claim_token
from tests.train.test_compile import FEW, tiny

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ here"),
    pytest.mark.slow,
]
CPU = torch.device("cpu")
KILLED = 9


def build_job(runs, *, network="tiny", auto=True):
    """Return a patriarch's job for two workers."""
    name = f"network.name=tests.train.test_compile:{network}"
    study = load_study(overrides=[*SMALL, *FEW[1:], name, "workers=2", "generations=0"])
    store = RunStore(str(runs))
    data = prepare_shared(study.dataset, store)
    (spec,) = build_chain(study, data=data.manifest.fingerprint, num_classes=data.num_classes).specs
    token = claim_token(store.generation(spec.key))
    return Job(spec=spec, store=store, data=data.folder.name, token=token, evaluate_every=1, auto_compile=auto)


def train(rank, folder, cache, jobs, pays, killed):
    """Train the jobs on one of two workers; with `killed`, die after the first epoch of the last one."""
    from torch._inductor import config

    os.environ[VARIABLE] = str(cache)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}", rank=rank, world_size=2)
    workers = Workers(rank=rank, world_size=2, device=CPU, threads=1)
    setup._pays = lambda job, evaluator: pays

    def post(event):
        if killed and job is jobs[-1] and isinstance(event, EpochDone):
            os._exit(KILLED)

    with config.patch(compile_threads=1):
        for job in jobs:
            train_generation(job, workers, post)
    dist.barrier()
    dist.destroy_process_group()


def run(target, *arguments, count=2):
    """Run a function in processes of its own, which get their rank first; return their exit codes."""
    context = mp.get_context("spawn")
    processes = [context.Process(target=target, args=(rank, *arguments)) for rank in range(count)]
    for process in processes:
        process.start()
    processes[0].join(timeout=280)
    for process in processes[1:]:
        if processes[0].exitcode:
            process.kill()
        process.join(timeout=60)
    return [process.exitcode for process in processes]


def contents(job):
    folder = job.store.generation(job.spec.key)
    return [folder.read_verified(name) for name in (MODEL, PREDICTIONS)], folder.done().compiled_epochs


@pytest.mark.timeout(900)
def test_two_workers_that_were_killed_end_in_the_same_bits(tmp_path):
    jobs = {name: build_job(tmp_path / name) for name in ("whole", "killed")}
    eager = build_job(tmp_path / "eager", auto=False)
    begun = [eager, *jobs.values()]
    assert run(train, tmp_path / "group", tmp_path / "cache", begun, True, True)[0] == KILLED
    assert not jobs["killed"].store.generation(eager.spec.key).done()
    resumed = replace(jobs["killed"], token=claim_token(jobs["killed"].store.generation(eager.spec.key)))
    assert run(train, tmp_path / "again", tmp_path / "cache", [resumed], False, False) == [0, 0]
    assert contents(resumed) == contents(jobs["whole"])
    assert contents(resumed)[1] == 2
    assert contents(eager)[1] == 0
    assert contents(eager)[0] != contents(resumed)[0]


@pytest.mark.timeout(600)
def test_two_workers_train_eagerly_what_cannot_be_compiled(tmp_path):
    tried = build_job(tmp_path / "tried", network="ByValue")
    eager = build_job(tmp_path / "eager", network="ByValue", auto=False)
    assert run(train, tmp_path / "group", tmp_path / "cache", [tried, eager], True, False) == [0, 0]
    assert contents(tried) == contents(eager)
    assert contents(tried)[1] == 0


def compile_once(rank, cache, results):
    """Compile and run the tiny network; put its output and what the cache gave."""
    from torch._dynamo.utils import counters

    os.environ[VARIABLE] = str(cache)
    torch.set_num_threads(1)
    prepare_compiler(CPU)
    torch.manual_seed(0)
    network = compile_network(tiny(10), CPU, graphs=False)
    logits = network(torch.ones(4, 3, 8, 8))
    logits.sum().backward()
    results.put((logits.tolist(), counters["inductor"]["fxgraph_cache_miss"]))


@pytest.mark.timeout(600)
def test_processes_may_fill_the_cache_at_once(tmp_path):
    results = mp.get_context("spawn").Queue()
    assert run(compile_once, tmp_path, results) == [0, 0]
    first, second = (results.get(timeout=60) for _ in range(2))
    assert run(compile_once, tmp_path, results, count=1) == [0]
    third = results.get(timeout=60)
    assert first[0] == second[0] == third[0]
    assert (first[1] > 0, third[1]) == (True, 0)  # the third found all of it compiled
