"""The allocator's settings hold: a step's large blocks come from the process's heap and stay there when freed.

glibc's own count says so (mallinfo2), not the kernel's page faults, which a busy kernel adds to as it likes.
"""

import ctypes
import os
import subprocess
import sys

import pytest

STEPS = """
import ctypes, resource, sys
from gentrain.train.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "kept" else True
import torch
class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
        ("arena", "ordblks", "smblks", "hblks", "mapped", "usmblks", "fsmblks", "used", "free", "keepcost")]
mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Counts
before = mallinfo()
block = torch.ones(64 << 20)  # 256 MiB, more than the heap grows by
held = mallinfo()
huge = block.data_ptr() % resource.getpagesize() == 0  # torch aligns so what it asks huge pages for
del block
torch.ones(128 << 20)  # the heap's top, which is trimmed where that isn't forbidden
freed = mallinfo()
print(kept, (held.mapped - before.mapped) >> 20, (freed.arena - before.arena) >> 20, huge)
"""

linux = pytest.mark.skipif(
    not (sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "mallinfo2")), reason="glibc 2.33's count"
)


def memory(mode, environment):
    """Return the MiB mapped for a 256 MiB tensor, those the heap keeps of 512, and if torch asked for huge pages."""
    command = [sys.executable, "-c", STEPS, mode]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    accepted, mapped, kept, huge = process.stdout.split()
    assert accepted == "True"
    return int(mapped), int(kept), huge == "True"


@pytest.fixture
def bare():
    """Return this process's environment without what was set for its own allocations."""
    return {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE" and not k.startswith("MALLOC_")}


@linux
def test_a_freed_block_stays_with_the_process(bare):
    mapped, kept, huge = memory("plain", bare)
    assert (mapped, huge) == (256, False)
    assert kept < 512
    mapped, kept, huge = memory("kept", bare)
    assert (mapped, huge) == (0, True)
    assert kept >= 512
    mapped, kept, _ = memory("kept", bare | {"THP_MEM_ALLOC_ENABLE": "0"})  # glibc's settings alone do it
    assert mapped == 0
    assert kept >= 512


@linux
def test_what_the_user_set_stays(bare):
    theirs = bare | {"MALLOC_MMAP_THRESHOLD_": "131072", "THP_MEM_ALLOC_ENABLE": "0"}
    assert memory("kept", theirs)[0] == 256
