"""Several processes that prepare the same images at once: one does; the others wait, say for whom, use its result."""

import multiprocessing
import os
import time

from gentrain.data.prepare import writing
from gentrain.data.prepare.dataset import prepare
from gentrain.study.sections import DatasetConfig
from tests.images import photographs, write_tree
from tests.prepared import left_in

PROCESSES = 3


def config(tree):
    return DatasetConfig(source="imagefolder", path=str(tree), storage="jpeg", image_size=32)


def _prepare(tree, folder, start, results):
    start.wait(60)
    messages = []
    try:
        fingerprint = prepare(config(tree), folder, notify=messages.append).manifest.fingerprint
    except Exception as error:
        fingerprint = repr(error)
    results.put((os.getpid(), fingerprint, messages))


def test_three_processes_that_prepare_jpegs_at_once_make_one_dataset(tmp_path):
    tree, folder = write_tree(tmp_path / "images", photographs()), tmp_path / "data"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gentrain.data.loading.beton", __name__])
    start, results = context.Barrier(PROCESSES), context.Queue()
    processes = [context.Process(target=_prepare, args=(tree, folder, start, results)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    ended = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    assert {process.exitcode for process in processes} == {0}
    assert {fingerprint for _, fingerprint, _ in ended} == {prepare(config(tree), folder).manifest.fingerprint}
    prepared = [pid for pid, _, messages in ended if any("(once)" in message for message in messages)]
    assert len(prepared) == 1
    others = {f"process {pid} on {os.uname().nodename}" for pid, _, _ in ended}
    for message in (m for _, _, messages in ended for m in messages if "waiting" in m):
        assert any(other in message for other in others), message
    assert left_in(folder) == [left_in(folder)[0]]


def test_who_waits_says_for_whom_since_when_and_for_what(tmp_path):
    target, messages = tmp_path / "digits-0123", []
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gentrain.data.loading.beton", __name__])
    holds, leave = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(target, holds, leave))
    holder.start()
    assert holds.wait(60)

    def notify(line):
        messages.append(line)
        leave.set()

    with writing.preparing(target, notify=notify):
        (line,) = messages
    holder.join(60)
    assert f"{target}: another process is preparing it (preparing digits-0123, process {holder.pid} on " in line
    assert f"since {time.strftime('%Y-%m-%d')}" in line
    assert "waiting for it" in line
    assert not list(tmp_path.glob(".preparing-*/.holder"))


def _hold(target, holds, leave):
    with writing.preparing(target, notify=print):
        holds.set()
        leave.wait(60)
