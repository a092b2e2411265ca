"""Files of a local disk: written whole, listed, kinds of files distinguished, what killed writes left behind."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import shutil
import stat
import time
import uuid
from pathlib import Path

LITTER_SECONDS = 3600.0
"""A temporary file that is older belongs to no write any more, wherever its writer ran."""
_TEMPORARY = ".tmp"


def write_whole(folder: Path, name: str, content: bytes, *, durable: bool = True) -> None:
    """Write a file under a temporary name, then rename it; `durable`: it survives a loss of power.

    Raises:
        OSError: as the disk does; the file that was there stays, and no temporary file is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{_TEMPORARY}"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, folder / name)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if not durable:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def problem_of(path: str) -> str | None:
    """Return why a path can't be read as a file: it is a folder, a pipe, a link in a loop; None where it may be."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return "a link that leads to itself" if error.errno == errno.ELOOP else None
    if stat.S_ISREG(mode):
        return None
    return "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"


def list_names(path: str) -> list[str]:
    """Return the names in a folder that aren't hidden; those that aren't UTF-8 are nobody's here and left out.

    Raises:
        OSError: when it is no folder, or can't be read; one that is missing has no names.
    """
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return []
    return [name for name in names if not name.startswith(".") and _encodable(name)]


def delete_tree(path: str) -> None:
    """Delete a folder and what is in it; of a link, the link alone.

    Raises:
        OSError: as the disk does; nothing when it isn't there.
    """
    if os.path.islink(path):
        os.unlink(path)
        return
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def sweep(path: str) -> None:
    """Delete temporary files of killed writes: those of a dead process of this host, and those older than an hour."""
    for name in litter(path):
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(path, name))


def litter(path: str) -> list[str]:
    """Return the names in a folder of what `sweep` deletes."""
    names = []
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            temporary = entry.name.startswith(".") and entry.name.endswith(_TEMPORARY)
            if (temporary or entry.name.startswith(".writable-")) and _is_litter(entry):
                names.append(entry.name)
    return names


def _is_litter(entry: os.DirEntry[str]) -> bool:
    if not entry.is_file(follow_symlinks=False):
        return False
    if time.time() - entry.stat(follow_symlinks=False).st_mtime > LITTER_SECONDS:
        return True
    host, _, rest = entry.name[1:].partition("-")
    pid = rest.partition("-")[0]
    return host == _host() and pid.isdecimal() and not Path(f"/proc/{pid}").exists()


@functools.cache
def _host() -> str:
    """Return eight hex digits for this machine, boot and process namespace: where a process number means something."""
    parts = [os.uname().nodename]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with contextlib.suppress(OSError):
            parts.append(read())
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:8]


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
