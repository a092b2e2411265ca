"""Run a function in several processes and collect what each returns."""

import multiprocessing as mp
import queue

import pytest


def collect(target, count, *arguments, seconds=240):
    """Call `target(rank, *arguments, results)` in `count` processes; return what they put in the queue, as it comes.

    A process that dies or waits for ever fails the test.
    """
    context = mp.get_context("forkserver")
    context.set_forkserver_preload([target.__module__])  # imported once, not by each
    results = context.Queue()
    processes = [context.Process(target=target, args=(rank, *arguments, results)) for rank in range(count)]
    for process in processes:
        process.start()
    try:
        return [results.get(timeout=seconds) for _ in processes]
    except queue.Empty:
        pytest.fail("a worker waits for ever, or died")
    finally:
        for process in processes:
            process.join(timeout=30)
            process.kill()
