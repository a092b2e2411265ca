"""Preparing whole images takes the memory of a shard, however many there are: `make slow`."""

import subprocess
import sys

import pytest

from tests.images import photographs, write_tree

CODE = """
import resource, sys
from pathlib import Path
from gentrain.study.sections import DatasetConfig
from gentrain.data.prepare.dataset import prepare
prepare(DatasetConfig(source="imagefolder", path=sys.argv[1], storage="jpeg", image_size=32), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
MEGABYTE = 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path):
    """Of 3,000 and 12,000 images of 400 × 300 pixels; as JPEG the second are some 350 MB more."""
    peaks = []
    for count in (1000, 4000):
        root = tmp_path / str(count)
        large = ((name, photograph.resize((640, 480))) for name, photograph in photographs())
        write_tree(root, large, train=count, val=4, sizes=[(400, 300)])
        result = subprocess.run(
            [sys.executable, "-c", CODE, str(root), str(tmp_path / f"data-{count}")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(result.stdout) / MEGABYTE)
    assert peaks[1] - peaks[0] < 120, peaks
