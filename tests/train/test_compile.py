"""`compile: true` on a CPU: killed and resumed it ends in the same bits; what can't be compiled is one line."""

import shutil

import pytest
import torch
from torch import nn

from gentrain import api
from gentrain.errors import GentrainError
from gentrain.events import EpochDone
from gentrain.store.done import MODEL, PREDICTIONS

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ here")

FEW = ("compile=true", "recipe.epochs=2", "recipe.milestones=[1]", "dataset.limit=7")
"""70 images: two batches of 32 and one of 6, so two graphs of every network."""


def tiny(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, num_classes)
    )


class ByValue(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.inner = tiny(num_classes)

    def forward(self, x):
        return self.inner(x) if x.sum() > 0 else self.inner(-x)


@pytest.fixture(scope="module", autouse=True)
def one_process():
    """Compile in this process, not in a pool of its own, and forget it all at the end."""
    from torch._inductor import config

    with config.patch(compile_threads=1):
        yield
    torch.compiler.reset()


def run(study, runs, observe=lambda _: None):
    return api.run(study, runs=str(runs), observe=observe, local=True)


def stored(runs, rows):
    return [(runs / "generations" / row["key"] / name).read_bytes() for row in rows for name in (MODEL, PREDICTIONS)]


class Killed(BaseException):
    pass


def test_a_run_that_was_killed_ends_in_the_same_bits(small, tmp_path):
    from torch._dynamo.utils import counters

    study = small("network.name=tests.train.test_compile:tiny", *FEW)
    counters.clear()
    wanted = run(study, tmp_path / "whole")
    looks, patriarch, student, teacher = 2, 2, 2, 2
    assert counters["stats"]["unique_graphs"] == looks + patriarch + student + teacher

    def killed_after(generation):
        def observe(event):
            if isinstance(event, EpochDone) and (event.generation, event.row["epoch"]) == (generation, 1):
                raise Killed

        return observe

    for generation in (0, 1):
        with pytest.raises(Killed):
            run(study, tmp_path / "killed", killed_after(generation))
    resumed = run(study, tmp_path / "killed")
    assert [row["key"] for row in resumed] == [row["key"] for row in wanted]
    assert stored(tmp_path / "killed", resumed) == stored(tmp_path / "whole", wanted)
    eager = run(small("network.name=tests.train.test_compile:tiny", *FEW, "compile=false"), tmp_path / "eager")
    assert {row["key"] for row in eager}.isdisjoint(row["key"] for row in wanted)
    for one, other in zip(eager, wanted, strict=True):
        assert one["nll"] == pytest.approx(other["nll"], rel=0.05)  # the same function but for rounding


def test_a_network_that_decides_by_values_is_named(small, tmp_path):
    study = small("network.name=tests.train.test_compile:ByValue", *FEW, "generations=0")
    with pytest.raises(
        GentrainError, match=r"compile: true: tests\.train\.test_compile:ByValue or its teacher: .*set compile: false"
    ) as e:
        run(study, tmp_path)
    assert "\n" not in str(e.value)


def test_a_missing_compiler_is_named(small, tmp_path):
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    study = small("network.name=tests.train.test_compile:tiny", *FEW, "generations=0")
    message = r"needs a C\+\+ compiler on every worker \(apt-get install g\+\+"
    with fresh_cache(), config.patch({"cpp.cxx": ("/nowhere/g++",)}), pytest.raises(GentrainError, match=message) as e:
        run(study, tmp_path)
    assert "or set compile: false" in str(e.value)
    assert "\n" not in str(e.value)
