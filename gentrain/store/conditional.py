"""Conditional writes: replace an object only if nobody else has changed it since it was read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gentrain.errors import StoreError

PAUSES = (0.2, 1.0, 5.0)
"""Seconds before a write that wasn't answered is tried again; after the last one it is an error."""


class UnansweredError(StoreError):
    """A write was sent and no answer came: it may be done, now or later, or not."""


@dataclass(frozen=True)
class Versioned:
    """An object's content with the tag that the store gave this version of it."""

    content: bytes
    etag: str


class ConditionalObjects(Protocol):
    """An object store that itself refuses writes whose condition doesn't hold; paths begin with the bucket."""

    def read(self, path: str) -> Versioned | None:
        """Return an object, None where there is none."""

    def write(self, path: str, content: bytes, etag: str | None) -> Versioned | None:
        """Write an object if it still is the version of `etag`, or if there is none where `etag` is None.

        Returns:
            The new version; None where the store refused: another version is there.

        Raises:
            UnansweredError: when it isn't known whether the object was written.
        """


def compare_and_swap(
    objects: ConditionalObjects,
    path: str,
    change: Callable[[Versioned | None], bytes | None],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Versioned | None:
    """Replace an object by what `change` makes of it, without losing what others write meanwhile.

    Where another writer was faster, or a write wasn't answered, the object is read and `change` called again. So
    `change` decides by what is there, and must see that an unanswered write of its own was done after all.

    Args:
        objects: the store.
        path: of the object.
        change: returns the new content for the version that is there (None: no object); None to leave it.
        sleep: waits for some seconds.

    Returns:
        The version that was written, or that `change` left.

    Raises:
        StoreError: when the store doesn't answer; what `change` raises.
    """
    pauses = iter(PAUSES)
    while True:
        before = objects.read(path)
        content = change(before)
        if content is None:
            return before
        try:
            after = objects.write(path, content, before.etag if before else None)
        except UnansweredError:
            pause = next(pauses, None)
            if pause is None:
                raise
            sleep(pause)
            continue
        if after is not None:
            return after
