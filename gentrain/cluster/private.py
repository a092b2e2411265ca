"""Prepare a private Ray instance: sockets that fit, servers on loopback only, a token that only its user can read."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from gentrain.cluster._compat import PREEMPTION_WATCHER, REACHABLE, set_reachable
from gentrain.errors import ResourceError

TOKEN, TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"

_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_SOCKET_BYTES = 107
"""Of a Unix socket's path on Linux, which Ray's longest one must not exceed."""


def check_sockets(environment: Mapping[str, str] = os.environ) -> None:
    """Raise ResourceError where Ray can't put its sockets: the folder's name is too long, or it can't be written."""
    name = next((n for n in ("RAY_TMPDIR", "TMPDIR") if n in environment), "")
    folder = environment.get(name, "/tmp")
    remedy = "set RAY_TMPDIR to a short folder that can be written, /tmp for example"
    room = _SOCKET_BYTES - len(_SOCKET)
    if (size := len(os.fsencode(folder))) > room:
        raise ResourceError(f"{name}: {folder}: {size} bytes; Ray's sockets need a folder of at most {room}; {remedy}")
    if not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):
        raise ResourceError(f"{name or 'Ray'}: {folder}: no folder that can be written, for Ray's sockets; {remedy}")


@contextlib.contextmanager
def loopback_only() -> Iterator[None]:
    """Have all servers of the instance that is started in the block listen on loopback only.

    That are Ray's GCS, raylet, workers, agents and metrics, and gloo's sockets between workers. What a user set in the
    environment stays. Torch's rendezvous store listens on all interfaces while two or more workers train: torch has no
    setting for it. Ray Train's watch for machines that are taken away has nothing to watch here, and is off.
    """
    ours = {REACHABLE: "0", PREEMPTION_WATCHER: "0", "GLOO_SOCKET_IFNAME": "lo"}
    ours = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(ours)
    imported = "ray" in sys.modules  # else it reads the variable
    before = set_reachable(reachable=False) if imported and REACHABLE in ours else True
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
        if REACHABLE in ours and "ray" in sys.modules:
            set_reachable(reachable=before)


def provide_token(fallback: Path) -> None:
    """Provide the token of a private instance in a file that only its user can read.

    It is the one that Ray's tools use, ~/.ray/auth_token, which Ray itself would write for everybody to read. Where the
    home folder is missing or can't be written, it is `fallback`, which RAY_AUTH_TOKEN_PATH then names.

    Raises:
        ResourceError: when neither can be written.
    """
    if TOKEN in os.environ or TOKEN_PATH in os.environ:
        return
    with contextlib.suppress(OSError, RuntimeError):  # no home: RuntimeError
        _token_file(Path.home() / ".ray" / "auth_token")
        return
    try:
        _token_file(fallback)
    except OSError as error:
        raise ResourceError(f"{fallback}: Ray's token can't be written: {error.strerror}; set {TOKEN}") from error
    os.environ[TOKEN_PATH] = str(fallback)


def _token_file(path: Path) -> None:
    """Make sure that the file has a token and that only its owner can read it."""
    if path.is_file() and path.stat().st_size:
        if path.stat().st_mode & 0o077 and path.stat().st_uid == os.getuid():
            path.chmod(0o600)
        path.read_bytes()  # raises where it can't be read
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(descriptor)
    temporary.rename(path)
