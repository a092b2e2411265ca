"""Say what happened when this process is ended from outside Python: Ray's C++ ends it where its GCS or raylet dies."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

_SCRIPT = r"""
if read -r line; then exit 0; fi
[ -t 2 ] && printf '\033[?25h' >&2
printf '%s\n' "$1" >&2
"""
"""Of the watching shell: a line comes when the block ends; the end of the pipe alone means that its writer died. The
cursor, which a live table hides, comes back."""


@contextlib.contextmanager
def sentinel(log: Path) -> Iterator[None]:
    """Print one line to standard error if this process ends inside the block without leaving it.

    Ray ends its driver with exit status 1 and without a word when the cluster's GCS has been away for a minute or the
    node's raylet dies; the kernel's SIGKILL for want of memory looks the same. A shell waits at a pipe for that. It has
    its own session, so that Ctrl-C doesn't reach it.

    Args:
        log: what the line names: the file with Ray's output.
    """
    line = (
        "gentrain: this process was ended from outside: Ray's GCS or raylet died, or it was killed (memory?); "
        f"details in {log}; run the same command again to resume from the last epoch"
    )
    reading, writing = os.pipe()  # no child inherits the writing end
    shell = subprocess.Popen(
        ["/bin/sh", "-c", _SCRIPT, "sh", line],
        stdin=reading,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    os.close(reading)
    try:
        yield
    finally:
        with contextlib.suppress(BrokenPipeError):  # the shell was killed
            os.write(writing, b"ended\n")
        os.close(writing)
        shell.wait()
