"""The benchmark's GPU script: where there is no GPU it says so; its rows are the right way up."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[1] / "experiments" / "bench"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_ends_with_one_line_and_status_2(tmp_path):
    found = subprocess.run(
        [sys.executable, str(BENCH / "gpu.py"), "--data", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 2
    assert (found.stdout, found.stderr.count("\n")) == ("", 1)
    assert found.stderr.startswith("no GPU: ")


def test_a_faster_contender_has_more_than_one_time_the_speed(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    from gpu import race_rows

    took = {"ideal": 1.0, "bf16": 2.0, "fp32": 8.0, "tf32": 4.0, "compiled": 1.6, "plain script": 16.0,
            "folded": 1.8, "compiled, folded": 1.2, "torchdistill": 12.0}  # fmt: skip
    found = race_rows({who: [{"seconds": s}] * 3 for who, s in took.items()}, name="ResNet-20 student", images=800)
    ratios = {row["name"].removeprefix("ResNet-20 student: gentrain "): row["ratio"] for row in found}
    assert ratios["bf16"] == 400
    assert ratios["bf16 / ideal"] == 0.5
    assert ratios["tf32 / fp32"] == 2
    assert ratios["compiled / plain script"] == 10
    assert ratios["bf16 / torchdistill"] == 6
    assert len(found) == 6 + 11
