"""Pin workers to cores: a GPU worker to its GPU's share of the node's, a CPU worker to cores that no other has claimed.

Ray gives out numbers of CPUs, not cores, so CPU workers claim cores among themselves: those of all sweeps, users and
versions of gentrain on a machine. To claim a core is to bind the name of an abstract Unix socket, which one process at
a time can do. The kernel frees the name when the process dies, so no file has to be cleaned up, found or writable.

A cgroup's cpuset is in the affinity that is asked here. Its CPU quota (cpu.max) plays no part: it limits time, not
cores, and n threads on n cores get as much of it as anywhere else.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from gentrain.errors import ResourceError

CLAIMS = "gentrain/cores"
"""What claims' names begin with: the same in every version, because workers of several may share a machine."""
PATIENCE = 5.0
"""Seconds that a worker waits while another one chooses its cores, which takes milliseconds unless it is stopped."""
_POLL_SECONDS = 0.005
_CPUS = Path("/sys/devices/system/cpu")
_PIDS, _MACHINES_PIDS = Path("/proc/self/ns/pid"), 0xEFFFFFFC
"""This process's PID namespace, and the inode of the machine's own (Linux: PROC_PID_INIT_INO)."""


@contextlib.contextmanager
def pinned(pin: Literal["auto"] | bool, *, cuda: bool, threads: int) -> Iterator[None]:
    """Pin the calling thread, and threads that it starts later, for the block, as a study's `pin_workers` says.

    Call it before the first parallel computation: threads that exist already stay where they are. On Ray these are
    Ray's own (gRPC, heartbeats, reports) and gloo's. They are left free on purpose: each time one of them woke up on
    the worker's cores, it would stop a training step, which can't move away.

    Raises:
        ResourceError: where a GPU worker is to be pinned and can't be (see `core_slice`).
    """
    before = os.sched_getaffinity(0)
    claims: Mapping[int, socket.socket] = {}
    if cuda and pin is True:
        pin_to_gpu()
    elif not cuda and (pin is True or (pin == "auto" and neighbours_seen())):
        claims = claim_cores(threads, allowed=before, siblings=read_siblings(before))
    try:
        if claims:
            with contextlib.suppress(OSError):  # the cpuset has changed since
                os.sched_setaffinity(0, claims)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)
        _release(claims)


def neighbours_seen() -> bool:
    """Return whether this worker sees the claims of all workers on the machine, so that it is safe to be pinned.

    Containers don't see each other's: those side by side without cpusets would all choose the same cores.
    """
    try:
        return _PIDS.stat().st_ino == _MACHINES_PIDS
    except OSError:
        return False


def claim_cores(
    count: int,
    *,
    allowed: Collection[int],
    siblings: Mapping[int, Collection[int]],
    name: str = CLAIMS,
    patience: float = PATIENCE,
) -> dict[int, socket.socket]:
    """Claim `count` of the allowed cores, until the sockets that are returned by core are closed or the process dies.

    Where fewer are free, none is claimed: {}.

    Args:
        count: of cores.
        allowed: numbers of the cores that this process may use.
        siblings: of each allowed core, the numbers of its hyper-threads, itself included.
        name: what the claims' names begin with.
        patience: seconds to wait while another process chooses.
    """
    turn = _wait_for_turn(name, patience)
    if turn is None:
        return {}
    with turn:  # one process at a time, as all free cores are claimed for a moment to see which they are
        cores = sorted(set(allowed).union(*(siblings[core] for core in allowed)))
        claims = {core: claim for core in cores if (claim := _claim(f"{name}/{core}")) is not None}
        chosen = choose_cores(count, free=claims, allowed=allowed, siblings=siblings)
        _release({core: claim for core, claim in claims.items() if core not in chosen})
        return {core: claims[core] for core in chosen}


def choose_cores(
    count: int, *, free: Collection[int], allowed: Collection[int], siblings: Mapping[int, Collection[int]]
) -> Sequence[int]:
    """Return `count` of the cores that are free and allowed, or none where there are fewer.

    One hyper-thread of each physical core that is free as a whole comes first, as close together as they are; then the
    other threads of these, then what others have left of theirs.
    """
    usable = sorted(set(free) & set(allowed))
    if len(usable) < count:
        return ()
    whole = [core for core in usable if set(siblings[core]) <= set(free)]
    first = [core for core in whole if core == min(set(siblings[core]) & set(allowed))]
    if len(first) >= count:
        runs = [first[i : i + count] for i in range(len(first) - count + 1)]
        return min(runs, key=lambda run: run[-1] - run[0])
    return [*first, *sorted(set(usable) - set(first), key=lambda core: (core not in whole, core))][:count]


def read_siblings(cores: Iterable[int]) -> dict[int, frozenset[int]]:
    """Return the hyper-threads of each core, itself included, as the kernel lists them; alone where it doesn't."""
    siblings = {}
    for core in cores:
        try:
            listed = (_CPUS / f"cpu{core}" / "topology" / "thread_siblings_list").read_text()
            ranges = [part.partition("-") for part in listed.strip().split(",")]
            siblings[core] = frozenset(n for a, _, b in ranges for n in range(int(a), int(b or a) + 1)) | {core}
        except (OSError, ValueError):
            siblings[core] = frozenset({core})
    return siblings


def _wait_for_turn(name: str, patience: float) -> socket.socket | None:
    """Wait until no other process chooses its cores, and let none do so until the socket is closed; None: too long."""
    deadline = time.monotonic() + patience
    while (turn := _claim(name)) is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return turn


def _claim(name: str) -> socket.socket | None:
    """Bind a name until the socket is closed; return None where another has it, or none can be had."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        claim = stack.enter_context(socket.socket(socket.AF_UNIX))
        claim.bind(f"\0{name}")
        stack.pop_all()
        return claim
    return None


def _release(claims: Mapping[int, socket.socket]) -> None:
    for claim in claims.values():
        claim.close()


def core_slice(cores: Iterable[int], *, gpu: int, gpus: int) -> list[int]:
    """Return the share of `cores` for GPU `gpu` of `gpus`: neighbouring cores, disjoint from other GPUs' shares.

    Raises:
        ResourceError: when there is no such GPU, or there are fewer cores than GPUs.
    """
    ordered = sorted(cores)
    if not 0 <= gpu < gpus or len(ordered) < gpus:
        raise ResourceError(
            f"pin_workers: true: can't share {len(ordered)} cores among {gpus} GPUs for GPU {gpu}; start Ray without "
            "CUDA_VISIBLE_DEVICES and with at least one core per GPU, or set pin_workers: false"
        )
    return ordered[gpu * len(ordered) // gpus : (gpu + 1) * len(ordered) // gpus]


def pin_to_gpu() -> None:
    """Pin the calling thread, and threads that it starts later, to the cores of the GPU that Ray gave this worker.

    Workers that share a GPU share its cores.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    gpus = next(int(each["Resources"]["GPU"]) for each in ray.nodes() if each["NodeID"] == node)
    (gpu,) = ray.get_gpu_ids()
    os.sched_setaffinity(0, core_slice(os.sched_getaffinity(0), gpu=int(gpu), gpus=gpus))
