"""A process that is ended from outside leaves one line, on its terminal, and none when it ends by itself."""

import subprocess
import sys

import pytest

ENDS = {
    "_exit": "os._exit(1)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "aborted": "os.abort()",
    "returns": "pass",
    "raises": "raise SystemExit(3)",
    "interrupted": "os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
    "the shell is killed": "psutil.Process().children()[0].kill()",
}


def last_words(end):
    """Return what a process writes to standard error, by which time its sentinel has ended too, and its exit status."""
    code = f"""
import os, pathlib, psutil, resource, signal, time
from gentrain.cluster.sentinel import sentinel
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"") and None or exit(4))
with sentinel(pathlib.Path("/runs/ray.log")):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # as when output is redirected to Ray's log
    {end}
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return process.stderr, process.returncode


@pytest.mark.parametrize("end", ["_exit", "killed", "aborted"])
def test_a_sudden_end_is_one_line_with_the_log_and_the_remedy(end):
    (line,) = last_words(ENDS[end])[0].splitlines()
    assert line.startswith("gentrain: this process was ended from outside")
    assert "details in /runs/ray.log; run the same command again" in line


@pytest.mark.parametrize(
    ("end", "status"), [("returns", 0), ("raises", 3), ("interrupted", 4), ("the shell is killed", 0)]
)
def test_an_end_of_ones_own_leaves_none(end, status):
    assert last_words(ENDS[end]) == ("", status)
