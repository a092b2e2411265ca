"""Test `gentrain doctor`, and the warning about a slow precision at the start of a run."""

import json
from types import SimpleNamespace

import pytest
import torch

from gentrain import api, doctor
from gentrain.cli import run
from gentrain.data.prepare.share import prepare_shared
from gentrain.doctor import Diagnosis
from gentrain.errors import GentrainError
from gentrain.events import Note
from gentrain.store.run import RunStore
from gentrain.study.schema import Study
from gentrain.train import precision
from gentrain.train.compile_gain import MeasuredStep
from gentrain.train.compiler_cache import VARIABLE, step_mark
from gentrain.train.precision import quick_batch, slow_precision_note, time_compiled, time_precisions
from gentrain.view.doctor import doctor_tables
from tests.conftest import SMALL


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    """Replace the measurement of the compiled step, which takes a while."""
    step = MeasuredStep(eager=0.12, compiled=0.1, batch=32, threads=1)
    monkeypatch.setattr(doctor, "time_compiled", lambda network, **_: (step, 31.0))


def command(runs, *options):
    return ["doctor", *(part for setting in SMALL for part in ("--set", setting)), "--runs", str(runs), *options]


def test_the_doctor_as_json_and_as_text(capsys, tmp_path):
    assert run(command(tmp_path / "runs", "--json")) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["FFCV"]["found"] == "wrote and read two images"
    assert rows["torch"]["found"] == torch.__version__.split("+")[0]
    assert all(row["good"] for row in rows.values())
    assert rows["torch.compile"]["found"] == (
        "resnet8 in fp32: 1.20 × as fast, 100 ms a step instead of 120 ms, after 31 s; the study says compile: auto"
    )
    assert {float(rows[f"step of resnet8 in {p}"]["found"]) > 0 for p in ("bf16", "fp32")} == {True}
    assert not (tmp_path / "runs").exists()  # the doctor writes nothing


def test_a_failed_check_has_a_remedy_and_the_exit_status_is_1(capsys, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise OSError("libturbojpeg.so.0: cannot open shared object file")

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(doctor, "_write_and_read", broken)
    monkeypatch.setattr(doctor, "DISK_BYTES", 1e18)
    assert run(command(tmp_path)) == 1
    text = capsys.readouterr().out
    assert "libturbojpeg.so.0: cannot open shared object file: install libturbojpeg0" in text
    assert "choose another --runs" in text
    assert "not fit for this study" in text
    assert "is faster here" in text


@pytest.mark.parametrize(("setting", "status"), [("auto", 0), ("false", 0), ("true", 1)])
def test_a_machine_without_a_compiler_is_fit_unless_the_study_wants_one(capsys, tmp_path, monkeypatch, setting, status):
    def broken(*_, **__):
        raise GentrainError("node-7: g++ not found\nand more")

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(doctor, "time_compiled", broken)
    assert run(command(tmp_path, "--set", f"compile={setting}")) == status
    captured = capsys.readouterr()
    wanted = "node-7: g++ not found: apt-get install g++" if status else "trained without: node-7: g++ not found"
    assert wanted in captured.out
    assert "and more" not in captured.out
    assert "gentrain: compiling resnet8 to time it: up to a minute, once on this machine" in captured.err


def test_a_compiled_step_is_timed_and_noted_for_auto(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(precision, "compiler_problem", lambda _: None)
    monkeypatch.setattr(precision, "compile_network", lambda network, *_, **__: network)
    step, compiling = time_compiled(
        "resnet8", num_classes=10, height=8, width=8, batch=4, threads=1, device=torch.device("cpu"), precision="bf16"
    )
    assert min(step.eager, step.compiled, compiling) > 0
    noted = step_mark("resnet8", shape=(10, 8, 8), batch=4, precision="bf16", device="cpu").read()
    assert MeasuredStep.parse(noted) == step


def test_only_a_clearly_slow_precision_gets_a_warning():
    assert slow_precision_note("resnet20", "bf16", {"bf16": 1.4, "fp32": 1.0}) is None
    assert slow_precision_note("resnet20", "bf16", {"bf16": 0.4, "fp32": 1.0}) is None
    assert "bf16 takes 3.0 × the time of fp32 for resnet20" in slow_precision_note(
        "resnet20", "bf16", {"bf16": 3, "fp32": 1}
    )
    assert "--set precision=bf16 is faster here" in slow_precision_note("resnet20", "fp32", {"bf16": 1, "fp32": 2})
    three = {"bf16": 1, "fp32": 2, "tf32": 1.2}
    assert slow_precision_note("resnet20", "tf32", three) is None
    assert "fp32 takes 2.0 × the time of bf16" in slow_precision_note("resnet20", "fp32", three)
    assert "tf32 takes 2.4 × the time of bf16" in slow_precision_note("resnet20", "tf32", three | {"tf32": 2.4})


def test_rounds_that_disagree_give_no_advice(small, tmp_path, monkeypatch):
    """Other work on the machine slows one step more than another."""
    study, manifest = small(), prepare_shared(small().dataset, RunStore(str(tmp_path))).manifest

    def advice(*fp32):
        rounds = [{"bf16": 1.0, "fp32": seconds} for seconds in fp32]
        monkeypatch.setattr(precision, "time_rounds", lambda *_, **__: rounds)
        return precision.slow_precision(study, manifest)

    assert advice(0.9, 4.0, 4.0) is None
    assert "fp32 takes 4.0 × the time of bf16" in advice(2.0, 4.0, 9.0)  # the median


def test_timing_leaves_the_random_stream_and_the_threads_alone():
    torch.manual_seed(3)
    wanted, threads = torch.rand(4), torch.get_num_threads()
    torch.manual_seed(3)
    seconds = time_precisions(
        "resnet8", num_classes=10, height=8, width=8, batch=4, threads=1, device=torch.device("cpu")
    )
    assert seconds.keys() == {"bf16", "fp32"}  # a CPU has no TF32
    assert all(0 < step < 60 for step in seconds.values())
    assert torch.rand(4).equal(wanted)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("network", "side", "batch"),
    [("resnet8", 8, 128), ("resnet20", 32, 24), ("densenet100", 32, 3), ("densenet190", 32, 0)],
)
def test_a_quick_look_is_quick(network, side, batch):
    assert quick_batch(network, num_classes=100, height=side, width=side, batch=128) == pytest.approx(batch, abs=3)


def test_three_precisions_are_shown_the_fastest_first():
    seconds = {"resnet20": {"bf16": 0.01, "fp32": 0.03, "tf32": 0.015}}
    shown = doctor_tables(Diagnosis((), seconds, "tf32"))[1].plain
    assert "bf16 is faster here, 10 ms a step, tf32 15 ms (1.5 ×), fp32 30 ms (3.0 ×); the study says tf32" in shown


def test_tf32_without_a_gpu_fails_with_a_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check = doctor._devices(Study(precision="tf32"))
    assert not check.good
    assert "precision: fp32 or bf16" in check.remedy


def test_a_run_warns_at_its_start_and_trains_on(small, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "time_rounds", lambda *_, **__: [{"bf16": 1.0, "fp32": 4.0}] * 3)
    monkeypatch.setattr(precision, "worth_timing", lambda *_: True)  # of a training that isn't over in a moment
    events = []
    rows = api.run(small("generations=0", "recipe.epochs=1", "recipe.milestones=[]"), runs=str(tmp_path),
                        observe=events.append, local=True)  # fmt: skip
    assert len(rows) == 1
    warnings = [event.text for event in events if isinstance(event, Note) and event.level == "warning"]
    assert warnings == [
        "precision: fp32 takes 4.0 × the time of bf16 for resnet8 on this machine; --set precision=bf16 is faster here "
        "(another precision is another generation; see gentrain doctor)"
    ]


@pytest.mark.parametrize(("epochs", "images", "worth"), [(164, 50_000, True), (1, 1_438, False)])
def test_only_trainings_of_minutes_are_timed_at_their_start(epochs, images, worth):
    study = Study(network={"name": "resnet20"}, recipe={"epochs": epochs, "milestones": []})
    manifest = SimpleNamespace(
        classes=["a"] * 100, height=32, width=32, splits={"train": SimpleNamespace(count=images)}
    )
    assert precision.worth_timing(study, manifest) is worth
