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

from gentrain.errors import ConfigError, cut, printable
from gentrain.store.folder import Folder
from gentrain.store.generation import GenerationFolder

CACHE = "GENTRAIN_CACHE"
"""Environment variable: a node's folder for datasets whose store is elsewhere; default ~/.cache/gentrain."""


class RunStore:
    """A run folder, opened by its path or URI; it travels between processes as its URI alone."""

    def __init__(self, uri: str) -> None:
        if printable(uri) != uri:
            raise ConfigError(f"--runs {cut(uri)}: its name isn't UTF-8 or holds a control character; choose another")
        self.uri = uri if "://" in uri else _absolute(uri)
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


def _absolute(path: str) -> str:
    try:
        return str(Path(path).expanduser().resolve())
    except (RuntimeError, ValueError, OSError) as error:  # ~ of a user whom this machine doesn't know, a NUL, a loop
        raise ConfigError(f"--runs {cut(path)}: no folder's path ({cut(str(error))})") from None


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem of a URI or path, and the path in it.

    Raises:
        ConfigError: for a URI that is none, or of no known filesystem.
    """
    if "://" not in uri:
        return pafs.LocalFileSystem(), uri
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (ValueError, OSError, NotImplementedError) as error:  # pyarrow's errors are these
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"--runs {cut(uri)}: no folder that can be opened ({cut(reason)}); give a folder, or s3://BUCKET/FOLDER"
        ) from None
    if not path.strip("/") and not isinstance(filesystem, pafs.LocalFileSystem):
        raise ConfigError(f"--runs {cut(uri)}: names no bucket; give s3://BUCKET/FOLDER")
    return filesystem, path
