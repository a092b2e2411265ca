"""Walk a source's folder: the one list of files that names, counts and contents of a dataset come from.

Links are followed to files and folders, so a tree of links is what it points at. A name that starts with a dot
(`.ipynb_checkpoints`, `._0.png`) is neither a class nor an image; links below such a folder are not followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gentrain.errors import DataError


def walk_files(root: Path, *, hidden: bool = False) -> Iterator[Path]:
    """Yield every path below `root` that isn't a folder, links to nothing included, in no particular order.

    Args:
        root: the folder; it may be a link.
        hidden: also yield what has a name below `root` that starts with a dot.

    Raises:
        DataError: for a link to a folder that it lies in, or a folder that can't be read.
    """
    pending: list[tuple[Path, frozenset[tuple[int, int]], bool]] = [(root, frozenset(), True)]
    while pending:
        folder, above, visible = pending.pop()
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{folder}: can't be read ({error.strerror})") from error
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise DataError(f"{folder}: a link to a folder that it lies in; remove the link")
        for entry in entries:
            shown = visible and not entry.name.startswith(".")
            if not shown and not hidden:
                continue
            if entry.is_dir(follow_symlinks=shown):
                pending.append((folder / entry.name, above | {identity}, shown))
            else:
                yield folder / entry.name


def subfolders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in `folder`, links to folders included, dot names left out."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
