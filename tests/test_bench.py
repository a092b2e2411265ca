"""The benchmarks: every module imports, a GPU's script says where there is no GPU, rows are the right way up."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import experiments.bench
from experiments.bench.gpu import race_rows

ROOT = Path(__file__).parents[1]
MODULES = sorted(module.name for module in pkgutil.iter_modules(experiments.bench.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name):
    assert importlib.import_module(f"experiments.bench.{name}").__doc__


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("command", [["-m", "experiments.bench.gpu"], [str(ROOT / "experiments" / "bench" / "gpu.py")]])
def test_without_a_gpu_it_ends_with_one_line_and_status_2(tmp_path, command):
    process = subprocess.run(
        [sys.executable, *command, "--data", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert (process.stdout, process.stderr.count("\n")) == ("", 1)
    assert process.stderr.startswith("no GPU: ")


def test_a_faster_contender_has_more_than_one_time_the_speed():
    seconds = {"ideal": 1.0, "bf16": 2.0, "fp32": 8.0, "tf32": 4.0, "compiled": 1.6, "plain script": 16.0,
               "folded": 1.8, "compiled, folded": 1.2, "torchdistill": 12.0}  # fmt: skip
    rows = race_rows({who: [{"seconds": s}] * 3 for who, s in seconds.items()}, name="ResNet-20 student", images=800)
    ratios = {row["name"].removeprefix("ResNet-20 student: gentrain "): row["ratio"] for row in rows}
    assert ratios["bf16"] == 400
    assert ratios["bf16 / ideal"] == 0.5
    assert ratios["tf32 / fp32"] == 2
    assert ratios["compiled / plain script"] == 10
    assert ratios["bf16 / torchdistill"] == 6
    assert len(rows) == 6 + 11


def test_onednn_s_own_times_are_summed_by_kind_and_shape_after_the_warm_up():
    from experiments.bench.convolutions import STEPS, parse_profile

    convolution = "onednn_verbose,v1,primitive,exec,cpu,convolution,{},{},src:bf16:a:blocked:acdb::f0,,alg:direct,{},{}"
    lines = [
        convolution.format("brg", "forward_training", "mb128_ic16", 99.0),
        "warm",
        "onednn_verbose,v1,info,cpu,runtime:OpenMP,nthr:2",
        convolution.format("brg", "forward_training", "mb128_ic16", 2.5),
        convolution.format("brg", "forward_training", "mb128_ic16", 7.5),
        convolution.format("jit", "backward_weights", "mb128_ic16", 5.0),
        "onednn_verbose,v1,primitive,exec,cpu,reorder,jit:uni,undef,src:f32 dst:bf16,,,16x16x3x3,1.0",
    ]
    by_kind = parse_profile("\n".join(lines))
    assert by_kind["convolution"] == {
        ("forward", "brg", "mb128_ic16"): 10 / STEPS, ("of the weights", "jit", "mb128_ic16"): 5 / STEPS
    }  # fmt: skip
    assert sum(by_kind["reorder"].values()) == 1 / STEPS
