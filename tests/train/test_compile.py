"""`compile` on a CPU: killed and resumed it ends in the same bits; what can't be compiled is one line, or eager.

How a training under `compile: auto` was begun is in its checkpoints and in DONE.json, not in its key.
"""

import os
import shutil
from functools import partial

import pytest
import torch
from torch import nn

from gentrain import api
from gentrain.errors import ConfigError, GentrainError
from gentrain.events import Compiling, EpochDone, GenerationStarted, Note
from gentrain.store.done import MODEL, PREDICTIONS
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_chain
from gentrain.train import compiler_cache, setup
from gentrain.train.compiler_cache import VARIABLE, Mark, step_mark, use_cache
from gentrain.train.compiling import ConstantNetwork, compile_network
from gentrain.train.tasks import build
from gentrain.train.tasks.build import build_task
from gentrain.train.workers import Workers

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ here")

CPU = torch.device("cpu")
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
def one_process(tmp_path_factory):
    """Compile in this process, not in a pool of its own, into a folder of the tests', and forget it all at the end."""
    from torch._inductor import config

    with config.patch(compile_threads=1), pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(tmp_path_factory.mktemp("compiler")))
        yield
    torch.compiler.reset()


def run(study, runs, observe=lambda _: None):
    return api.run(study, runs=str(runs), observe=observe, local=True)


def stored(runs, rows):
    return [(runs / "generations" / row["key"] / name).read_bytes() for row in rows for name in (MODEL, PREDICTIONS)]


class Killed(BaseException):
    pass


def killed_after(generation, epoch=1):
    def observe(event):
        if isinstance(event, EpochDone) and (event.generation, event.row["epoch"]) == (generation, epoch):
            raise Killed

    return observe


def compiled_epochs(runs, rows):
    return [RunStore(str(runs)).generation(row["key"]).done().compiled_epochs for row in rows]


def notes(events):
    return [event.text for event in events if isinstance(event, Note)]


def test_a_run_that_was_killed_ends_in_the_same_bits(small, tmp_path):
    from torch._dynamo.utils import counters

    study = small("network.name=tests.train.test_compile:tiny", *FEW)
    counters.clear()
    wanted = run(study, tmp_path / "whole")
    looks, patriarch, student, teacher = 2, 2, 2, 2
    assert counters["stats"]["unique_graphs"] == looks + patriarch + student + teacher

    for generation in (0, 1):
        with pytest.raises(Killed):
            run(study, tmp_path / "killed", killed_after(generation))
    resumed = run(study, tmp_path / "killed")
    assert [row["key"] for row in resumed] == [row["key"] for row in wanted]
    assert stored(tmp_path / "killed", resumed) == stored(tmp_path / "whole", wanted)
    eager = run(small("network.name=tests.train.test_compile:tiny", *FEW, "compile=false"), tmp_path / "eager")
    assert {row["key"] for row in eager}.isdisjoint(row["key"] for row in wanted)
    assert (compiled_epochs(tmp_path / "whole", wanted), compiled_epochs(tmp_path / "eager", eager)) == ([2, 2], [0, 0])
    for one, other in zip(eager, wanted, strict=True):
        assert one["nll"] == pytest.approx(other["nll"], rel=0.05)  # the same function but for rounding


def test_a_teacher_s_weights_are_constants_that_hold_its_batch_norms():
    torch.compiler.reset()
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    network = tiny(10).eval().requires_grad_(False)
    network[1].running_var.fill_(4.0)
    constant = ConstantNetwork(network, CPU, graphs=False)
    with torch.no_grad():
        wanted = network(images)
        assert torch.allclose(constant(images), wanted, atol=1e-5)
        network[1].running_var.fill_(1.0)
        assert torch.allclose(constant(images), wanted, atol=1e-5)
        assert not torch.allclose(network(images), wanted, atol=1e-2)
        variable = compile_network(network, CPU, graphs=False)
        for _ in range(2):
            assert torch.allclose(variable(images), network(images), atol=1e-5)
            assert torch.allclose(constant(images), wanted, atol=1e-5)  # neither takes the other's program


@pytest.mark.parametrize("folded", [False, True])
def test_only_a_teacher_whose_batch_norms_are_folded_is_a_constant(small, tmp_path, monkeypatch, folded):
    study = small("compile=true", f"fold_batchnorm={folded}")
    _, spec = build_chain(study, data="d" * 64, num_classes=10).specs
    monkeypatch.setattr(build, "load_teacher", lambda *_, **__: tiny(10))
    task = build_task(spec, store=None, image=(3, 8, 8), workers=Workers(0, 1, CPU, 1), compiled=True)
    assert any(isinstance(part, ConstantNetwork) for part in task.teacher.modules()) == folded


def test_a_network_that_teaches_itself_is_no_constant(small):
    study = small(
        "process.patriarch={name: ps_kd, trainings: 2}", "process.lambda=0", "compile=true", "fold_batchnorm=true"
    )
    (spec,) = build_chain(study, data="d" * 64, num_classes=10).specs
    itself = tiny(10)
    task = build_task(spec, store=None, image=(3, 8, 8), workers=Workers(0, 1, CPU, 1), compiled=True, itself=itself)
    assert not any(isinstance(part, ConstantNetwork) for part in task.teacher.modules())


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


@pytest.fixture
def auto(small, monkeypatch):
    """Return a function that builds the study of this file's tiny network, whose compilation pays."""
    monkeypatch.setattr(setup, "_pays", lambda job, evaluator: True)
    name = "network.name=tests.train.test_compile:tiny"
    return lambda *overrides, network=name: small(network, *FEW[1:], "compile=auto", *overrides)


def test_auto_compiles_under_the_keys_of_false_and_goes_on_as_it_was_begun(auto, tmp_path, monkeypatch):
    explicit = run(auto("compile=true"), tmp_path / "true")
    with pytest.raises(Killed):
        run(auto(), tmp_path / "auto", killed_after(1))
    monkeypatch.setattr(setup, "_pays", lambda job, evaluator: False)
    events = []
    rows = run(auto(), tmp_path / "auto", events.append)
    assert compiled_epochs(tmp_path / "auto", rows) == [2, 2]
    assert stored(tmp_path / "auto", rows) == stored(tmp_path / "true", explicit)
    eager = run(auto("compile=false"), tmp_path / "eager")
    assert [row["key"] for row in rows] == [row["key"] for row in eager]
    assert stored(tmp_path / "eager", eager) != stored(tmp_path / "auto", rows)
    assert not [event for event in events if isinstance(event, Compiling)]  # this machine has compiled it before
    assert compiled_epochs(tmp_path / "eager", run(auto(), tmp_path / "eager")) == [0, 0]  # finished: as it is


def test_auto_goes_on_eagerly_where_it_was_begun_so(auto, tmp_path, monkeypatch):
    with pytest.raises(Killed):
        run(auto("compile=false", "generations=0"), tmp_path, killed_after(0))
    rows = run(auto("generations=0"), tmp_path)
    assert compiled_epochs(tmp_path, rows) == [0]
    assert stored(tmp_path, rows) == stored(
        tmp_path / "whole", run(auto("compile=false", "generations=0"), tmp_path / "whole")
    )


def test_false_means_false_for_what_was_begun_compiled(auto, tmp_path):
    with pytest.raises(Killed):
        run(auto("generations=0"), tmp_path, killed_after(0))
    events = []
    rows = run(auto("compile=false", "generations=0"), tmp_path, events.append)
    assert compiled_epochs(tmp_path, rows) == [1]
    (line,) = [text for text in notes(events) if "torch.compile" in text]
    assert line.endswith(
        "was begun through torch.compile and goes on without (compile: false): it ends in other last bits"
    )


@pytest.mark.parametrize("broken", ["compiler", "network"])
def test_auto_trains_eagerly_where_compiling_fails_and_says_so_once(auto, tmp_path, broken):
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    network = f"network.name=tests.train.test_compile:{'tiny' if broken == 'compiler' else 'ByValue'}"
    events = []
    if broken == "compiler":
        with fresh_cache(), config.patch({"cpp.cxx": ("/nowhere/g++",)}):
            rows = run(auto(network=network), tmp_path / "auto", events.append)
    else:
        rows = run(auto(network=network), tmp_path / "auto", events.append)
    (line,) = [text for text in notes(events) if "torch.compile" in text]
    assert line.startswith("training without torch.compile, which doesn't work here: ")
    assert line.endswith("apt-get install g++ python3-dev where a compiler is missing, or set compile: false")
    assert "\n" not in line
    assert compiled_epochs(tmp_path / "auto", rows) == [0, 0]
    eager = run(auto("compile=false", network=network), tmp_path / "eager")
    assert stored(tmp_path / "auto", rows) == stored(tmp_path / "eager", eager)


def test_compiling_is_announced_where_this_machine_does_it_for_the_first_time(auto, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(setup, "compiler_problem", lambda device: None)
    monkeypatch.setattr(setup, "_build_compiled", partial(setup._build, compiled=False))
    events = []
    run(auto("generations=0"), tmp_path / "first", events.append)
    kinds = [type(event) for event in events if isinstance(event, Compiling | GenerationStarted | EpochDone)]
    assert kinds == [Compiling, GenerationStarted, EpochDone, EpochDone]
    run(auto("generations=0", "seed=1"), tmp_path / "second", events.append)
    assert sum(isinstance(event, Compiling) for event in events) == 1


def test_small_jobs_stay_eager_and_the_default_is_auto(small, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))

    def compiled(job, evaluator, state):
        raise Killed

    monkeypatch.setattr(setup, "_build_compiled", compiled)
    monkeypatch.setattr(setup, "amx", lambda: True)
    study = small("recipe.epochs=1", "recipe.milestones=[]")
    assert study.compile == "auto"
    rows = run(study, tmp_path / "small")
    assert compiled_epochs(tmp_path / "small", rows) == [0, 0]
    faster = {"eager": 99.0, "compiled": 1.0, "batch": 32, "threads": 1}
    step_mark("resnet8", shape=(10, 8, 8), batch=32, precision="fp32", device="cpu").write(faster)
    with pytest.raises(Killed):  # where it pays by what the doctor has measured here, it is compiled
        run(study, tmp_path / "pays")


def test_auto_in_place_of_false_is_no_change_of_a_study(small, tmp_path):
    one = ("generations=0", "recipe.epochs=1", "recipe.milestones=[]")
    run(small(*one, "compile=false"), tmp_path)
    assert api.run(small(*one, "seed=1"), runs=str(tmp_path), local=True, on_change="extend")
    with pytest.raises(ConfigError, match="compile: auto → True"):
        api.run(small(*one, "seed=2", "compile=true"), runs=str(tmp_path), local=True, on_change="extend")


def test_the_cache_is_gentrains_unless_the_user_has_one(tmp_path, monkeypatch):
    assert str(use_cache()) == os.environ[VARIABLE]  # the user's
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path))
    folder = use_cache()
    assert folder.parent == tmp_path / "compiler"
    assert folder.stat().st_mode & 0o777 == 0o700
    mark = Mark("compiled", network="a")
    assert mark.read() is None
    mark.write({"seconds": 1})
    assert Mark("compiled", network="a").read() == {"seconds": 1}
    assert Mark("compiled", network="b").read() is Mark("step", network="a").read() is None
    next((folder / "gentrain").iterdir()).write_text("[")
    assert mark.read() is None
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(compiler_cache, "_CPUINFO", tmp_path / "none")
    assert use_cache() != folder  # another processor's
    monkeypatch.delenv(VARIABLE)
    (tmp_path / "file").touch()
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "file"))
    assert use_cache() is None
    mark = Mark("compiled", network="a")
    mark.write({})
    assert mark.read() is None
