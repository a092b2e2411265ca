"""Mid-training checkpoints: a name carries its content's checksum, so one rename makes a whole, verifiable file."""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Callable
from typing import Any

import pyarrow.fs as pafs

from gentrain.store.folder import Folder, digest

KEPT = 2
RECENT_SECONDS = 120.0
LONGEST_HEADER = 100 << 20
"""Bytes of a header that safetensors reads at most."""
_NAME = re.compile(r"epoch-(\d{5,})\.([0-9a-f]{16})\.safetensors")
"""Name of a checkpoint: its epoch and its content's checksum."""

Problem = Callable[[int, bytes], str | None]
"""Returns why the content of an epoch's checkpoint can't be used, None where it can."""


def no_problem(_epoch: int, _content: bytes) -> None:
    """Return that any content can be used."""


def save(folder: Folder, epoch: int, content: bytes) -> None:
    """Write the state after `epoch` finished epochs; delete all but the newest two.

    On an object store nothing refuses a writer that has lost its claim: its checkpoint is one more of the same
    generation, from which training may go on as well.
    """
    folder.write(f"epoch-{epoch:05d}.{digest(content)[:16]}.safetensors", content)
    for name in _names(folder)[:-KEPT]:
        folder.delete(name)


def newest(folder: Folder, *, warn: Callable[[str], None], problem: Problem = no_problem) -> tuple[int, bytes] | None:
    """Return the epoch and content of the newest valid checkpoint; name damaged ones to `warn` and delete them.

    Args:
        folder: of the training.
        warn: receives one line for each damaged checkpoint.
        problem: called with content whose checksum is the name's.
    """
    for name in reversed(_names(folder)):
        epoch, checksum = _parts(name)
        content = folder.read(name)
        intact = content is not None and digest(content)[:16] == checksum
        reason = problem(epoch, content) if content is not None and intact else "checksum differs"
        if content is not None and reason is None:
            return epoch, content
        warn(f"{folder}/{name}: damaged ({reason}); going back to the newest valid checkpoint")
        folder.delete(name)
    return None


def newest_epoch(folder: Folder) -> int:
    """Return the epoch of the newest checkpoint by its name, unverified; 0 where there is none."""
    return max((_parts(name)[0] for name in _names(folder)), default=0)


def newest_rows(folder: Folder) -> list[dict[str, Any]]:
    """Return the errors of each epoch so far, by the newest checkpoint's header, unverified; none where it has none.

    The tensors aren't read.
    """
    names = _names(folder)
    if not names:
        return []
    try:
        with folder.filesystem.open_input_stream(f"{folder}/{names[-1]}", compression=None) as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length)) if length < LONGEST_HEADER else {}
        rows = json.loads(header["__metadata__"]["gentrain"])["rows"]
        return [{"test_error": row["test_error"], "train_error": float(row["train_error"])} for row in rows]
    except (OSError, ValueError, KeyError, TypeError, struct.error):  # deleted meanwhile, or damaged
        return []


def recent(folder: Folder) -> bool:
    """Return whether the training's newest file is recent.

    It must be no older than thrice the time between the two newest files, two minutes at least.
    """
    selector = pafs.FileSelector(folder.path, allow_not_found=True)
    times = sorted(info.mtime.timestamp() for info in folder.filesystem.get_file_info(selector) if info.mtime)
    if not times:
        return False
    between = times[-1] - times[-2] if len(times) > 1 else 0.0
    return bool(time.time() - times[-1] < max(RECENT_SECONDS, 3 * between))


def _names(folder: Folder) -> list[str]:
    return sorted(filter(_NAME.fullmatch, folder.names()), key=_parts)


def _parts(name: str) -> tuple[int, str]:
    """Return the epoch and the checksum in a checkpoint's name."""
    match = _NAME.fullmatch(name)
    assert match is not None
    return int(match[1]), match[2]
