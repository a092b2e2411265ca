"""Write a prepared dataset's folder alone: one process at a time, under another name until it is whole."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from pyarrow.fs import LocalFileSystem

from gentrain.store import disk
from gentrain.store.folder import Folder
from gentrain.store.locks import name_holder


@contextlib.contextmanager
def preparing(target: Path, *, notify: Callable[[str], None]) -> Iterator[None]:
    """Hold the right to write a prepared dataset's folder for the block; while another has it, wait and say for whom.

    What killed preparations of this dataset have left unfinished is removed; their shards stay, to go on from.
    """
    lock = Folder(LocalFileSystem(), str(target.parent / f".preparing-{target.name}"))
    about = f"{target}: another process is preparing it"

    def waiting() -> None:
        holder = lock.lock_holder()
        notify(f"{about} ({holder}); waiting for it" if holder else f"{about}; waiting for it")

    with lock.locked(waiting=waiting, holder=name_holder(f"preparing {target.name}")):
        _remove_leftovers(target)
        lock.sweep()
        yield


def building_folder(target: Path) -> Path:
    """Make and return a folder beside a prepared dataset's, to be renamed when it is whole."""
    building = target.parent / f".building-{target.name}-{uuid.uuid4().hex[:8]}"
    building.mkdir(parents=True)
    return building


def _remove_leftovers(target: Path) -> None:
    """Remove the unfinished folders that killed preparations of this dataset left; hold its lock.

    Versions before didn't name the dataset in them, but their process; those are removed when it is gone.
    """
    for left in target.parent.glob(".building-*"):
        pid = left.name.split("-")[1]
        ended = pid.isdecimal() and not Path(f"/proc/{pid}").exists()
        if left.name.startswith(f".building-{target.name}-") or ended:
            discard(left)


def discard(path: Path) -> None:
    """Remove a folder with what is in it, or a file, or a link, if it is there."""
    with contextlib.suppress(OSError):
        disk.delete_tree(str(path)) if path.is_dir() else path.unlink()
