"""The run folder: on a disk, or at any URI that pyarrow.fs opens (s3://bucket/runs).

runs/data/<source>-<hash>/        prepared datasets (see gentrain.data.prepare)
runs/generations/<key>/           one trained network, shared by all studies
runs/studies/<study>/             what one study asked for, and its results
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Self

import pyarrow.fs as pafs

from gentrain.store.folder import Folder
from gentrain.store.generation import GenerationFolder

CACHE = "GENTRAIN_CACHE"
"""Environment variable: a node's folder for datasets whose store is elsewhere; default ~/.cache/gentrain."""


class RunStore:
    """A run folder, opened by its path or URI; it travels between processes as its URI alone."""

    def __init__(self, uri: str) -> None:
        self.uri = uri if "://" in uri else str(Path(uri).expanduser().resolve())
        self.root = Folder(*open_filesystem(self.uri))

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.uri,)  # reopened where it arrives: no filesystem handle, no credentials travel

    @property
    def data(self) -> Path:
        """Where prepared datasets lie (always a local disk: FFCV maps them into memory)."""
        return self._disk / "data"

    @property
    def local(self) -> bool:
        """Whether this is a folder of a disk, where locks work."""
        return self.root.local

    def check_writable(self) -> None:
        """Raise ResourceError or StoreError at once, in one line, where nothing can be written."""
        name = f".writable-{uuid.uuid4().hex}"  # runs that start at once don't delete each other's file
        self.root.write(name, b"")
        self.root.delete(name)

    def generation(self, key: str) -> GenerationFolder:
        """Return one generation's folder."""
        return GenerationFolder(self.root / "generations" / key, key)

    def study(self, name: str) -> Folder:
        """Return one study's folder."""
        return self.root / "studies" / name

    def log(self, study: str) -> Path:
        """Return the file on this node's disk for what Ray prints while it runs a study."""
        return self._disk / "studies" / study / "ray.log"

    @property
    def _disk(self) -> Path:
        return Path(self.root.path if self.local else os.environ.get(CACHE) or "~/.cache/gentrain").expanduser()


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem of a URI or path, and the path in it."""
    if "://" not in uri:
        return pafs.LocalFileSystem(), uri
    filesystem, path = pafs.FileSystem.from_uri(uri)
    return filesystem, path
