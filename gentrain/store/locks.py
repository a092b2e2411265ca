"""The lock of a folder on a local disk, which the kernel frees when its holder dies, and who holds it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from gentrain.store import disk

LOCK = ".lock"
HOLDER = ".holder"
"""File beside a lock: who holds it, for people. It is only read while the lock is held."""


def acquire(folder: Path, *, waiting: Callable[[], None], holder: str) -> FileLock:
    """Take a folder's lock, which is made; `waiting` is called once where another process has it.

    Raises:
        OSError: when it can't be taken: the lock's file is a link, which isn't followed, or a folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    if not _acquired_soon(lock, folder / HOLDER):
        waiting()
        lock.acquire()
    _write_holder(folder, holder or name_holder("gentrain"))
    return lock


def release(lock: FileLock) -> None:
    """Give a lock back."""
    with contextlib.suppress(OSError):
        Path(lock.lock_file).with_name(HOLDER).unlink()
    lock.release()


def held(folder: Path) -> bool:
    """Return whether a process holds the folder's lock; a link or a folder in its place is held by nobody."""
    if not os.path.lexists(folder / LOCK):
        return False
    lock = FileLock(folder / LOCK)
    try:
        free = _acquired(lock)
    except OSError:
        return False
    lock.release()
    return not free


def _acquired_soon(lock: FileLock, holder: Path) -> bool:
    """Try to take a lock until its holder, who has just taken it, has said who it is."""
    for _ in range(10):
        if _acquired(lock):
            return True
        if holder.exists():
            return False
        time.sleep(0.02)
    return False


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def name_holder(what: str) -> str:
    """Return the name of this process as a holder of locks and claims, for people; `what` it does."""
    return f"{what}, process {os.getpid()} on {os.uname().nodename},"


def _write_holder(folder: Path, holder: str) -> None:
    """Record beside a lock who holds it, and since when; best effort."""
    content = json.dumps({"holder": holder, "since": time.time()}).encode()
    with contextlib.suppress(OSError):
        disk.write_whole(folder, HOLDER, content, durable=False)


def read_holder(folder: Path) -> str:
    """Return who holds a folder's lock, and since when, in words; empty where that isn't known."""
    path = folder / HOLDER
    try:
        if disk.problem_of(str(path)) is not None:
            return ""
        content = json.loads(path.read_bytes())
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(content["since"])))
        return f"{str(content['holder'])[:200]} since {since}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return ""
