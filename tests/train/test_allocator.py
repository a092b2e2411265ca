"""The allocator's settings are felt: a step that frees and takes again what it took before faults no page."""

import os
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
from gentrain.train.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "kept" else True
import torch
torch.set_num_threads(1)
faults = []
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 << 20).add(1)  # two blocks of 64 MiB: 32,768 pages of 4 KiB
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, min(faults[3:]))  # the best of nine: the kernel may take pages back between two steps, on a busy machine
"""


def faults(mode, environment):
    process = subprocess.run(
        [sys.executable, "-c", STEPS, mode], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    kept, count = process.stdout.split()
    assert kept == "True"
    return int(count)


@pytest.fixture
def bare():
    """Return this process's environment without what was set for its own allocations."""
    return {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE" and not k.startswith("MALLOC_")}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_memory_that_is_freed_is_taken_again_without_the_kernel(bare):
    assert faults("plain", bare) > 10_000
    assert faults("kept", bare) < 2_000
    assert faults("kept", bare | {"THP_MEM_ALLOC_ENABLE": "0"}) < 2_000  # glibc's settings alone do it


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_what_the_user_set_stays(bare):
    theirs = bare | {"MALLOC_MMAP_THRESHOLD_": "131072", "THP_MEM_ALLOC_ENABLE": "0"}
    assert faults("kept", theirs) > 10_000
