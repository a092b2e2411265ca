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

from gentrain.errors import ConfigError, StoreError, cut, printable, shown_path
from gentrain.store.conditional import ConditionalObjects
from gentrain.store.folder import Folder
from gentrain.store.generation import GenerationFolder
from gentrain.store.s3 import SCHEME, S3Settings

CACHE = "GENTRAIN_CACHE"
"""Environment variable: a node's folder for datasets whose store is elsewhere, and for what torch.compile has compiled;
default ~/.cache/gentrain."""


class RunStore:
    """A run folder, opened by its path or URI; it travels between processes as its URI alone."""

    def __init__(self, uri: str) -> None:
        if printable(uri) != uri:
            raise ConfigError(
                f"--runs {shown_path(uri)}: its name isn't UTF-8 or holds a control character; choose another"
            )
        self.uri = uri if "://" in uri else _absolute(uri)
        self.root = Folder(*open_filesystem(self.uri), open_objects(self.uri))

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

    @property
    def keeps_claims(self) -> bool:
        """Whether two runs on this store are kept apart (see `gentrain.store.claims`): not on gs:// and abfs://."""
        return self.root.local or self.root.objects is not None

    def check_writable(self) -> None:
        """Raise ResourceError or StoreError at once, in one line, where nothing can be written."""
        name = f".writable-{uuid.uuid4().hex}"  # runs that start at once don't delete each other's file
        self.root.write(name, b"")
        try:
            if self.root.objects is not None:
                self._check_conditional(self.root.objects, f"{self.root}/{name}")
        finally:
            self.root.delete(name)
        self.root.sweep()

    def generation(self, key: str) -> GenerationFolder:
        """Return one generation's folder."""
        return GenerationFolder(self.root / "generations" / key, key)

    def study(self, name: str) -> Folder:
        """Return one study's folder."""
        return self.root / "studies" / name

    def log(self, study: str) -> Path:
        """Return the file on this node's disk for what Ray prints while it runs a study."""
        return self._disk / "studies" / study / "ray.log"

    def _check_conditional(self, objects: ConditionalObjects, path: str) -> None:
        """Raise StoreError where an object that exists is created again, or replaced as the version that it isn't."""
        there = objects.read(path)
        created = objects.write(path, b"1", None)
        replaced = objects.write(path, b"2", _other_etag(there.etag) if there else None)
        if there is None or created is not None or replaced is not None:
            raise StoreError(
                f"{SCHEME}://{self.root}: this store does writes whose condition (If-None-Match, If-Match) doesn't "
                "hold, so two runs at once could overwrite each other; use a store that refuses them, as AWS S3 does"
            )

    @property
    def _disk(self) -> Path:
        return Path(self.root.path) if self.local else node_cache()


def node_cache() -> Path:
    """Return gentrain's cache folder on this node; it need not exist.

    Raises:
        RuntimeError: when the user has no home folder and the environment names none.
    """
    return Path(os.environ.get(CACHE) or "~/.cache/gentrain").expanduser()


def _absolute(path: str) -> str:
    try:
        return str(Path(path).expanduser().resolve())
    except (RuntimeError, ValueError, OSError) as error:  # ~ of a user whom this machine doesn't know, a NUL, a loop
        raise ConfigError(f"--runs {shown_path(path)}: no folder's path ({cut(str(error))})") from None


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem of a URI or path, and the path in it.

    Raises:
        ConfigError: for a URI that is none, or of no known filesystem.
    """
    if "://" not in uri:
        return pafs.LocalFileSystem(), uri
    try:
        if uri.startswith(f"{SCHEME}://"):
            filesystem, path = S3Settings.resolve(uri).filesystem(uri)
        else:
            filesystem, path = pafs.FileSystem.from_uri(uri)
    except (ValueError, OSError, NotImplementedError) as error:  # pyarrow's errors are these
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"--runs {shown_path(uri)}: no folder that can be opened ({cut(reason)}); give a folder, or s3://BUCKET/FOLDER"
        ) from None
    if not path.strip("/") and not isinstance(filesystem, pafs.LocalFileSystem):
        raise ConfigError(f"--runs {shown_path(uri)}: names no bucket; give s3://BUCKET/FOLDER")
    return filesystem, path


def open_objects(uri: str) -> ConditionalObjects | None:
    """Return the conditional writes of a URI's store: S3 alone has them here."""
    return S3Settings.resolve(uri).objects() if uri.startswith(f"{SCHEME}://") else None


def _other_etag(etag: str) -> str:
    """Return a tag of the same form that no version has."""
    return etag.translate(str.maketrans("0123456789abcdef", "123456789abcdef0"))
