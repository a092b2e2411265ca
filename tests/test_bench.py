"""The benchmarks: every module imports, a GPU's script says where there is no GPU, rows are the right way up."""

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import experiments.bench
from experiments.bench import bench, race
from experiments.bench.entry import Entry
from experiments.bench.gpu import race_rows
from experiments.bench.rows import BEGIN, END, OUTPUT, PAGE, TARGETS, heading, machine, read, table, target
from experiments.bench.start import with_bytecode
from gentrain.doctor import CPU_FEATURES

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


def field(task):
    """Return made-up blocks of a race's contenders, each with other seconds."""
    everyone = ["ideal", race.ONE, race.LOOP, race.TWO, "plain script", race.COMPILED_IDEAL, race.COMPILED]
    if task == "student":
        everyone += ["torchdistill", race.BARE, race.FOLDED, race.COMPILED_BARE, race.COMPILED_FOLDED]
    times = {"plain script": 33.0, "torchdistill": 20.0, "ideal": 11.0, race.COMPILED_IDEAL: 9.6, race.COMPILED: 10.0}
    facts = {
        "peak_bytes": 1,
        "evaluated": 1.0,
        "evaluated_images": 10,
        "saved": 0.1,
        "parts": dict.fromkeys(race.PARTS),
    }
    return {who: [{"seconds": times.get(who, 12.0), **facts}] * 3 for who in everyone}


def race_targets(task):
    rows = race._rows(field(task), name=f"ResNet-20 {task}", images=800)
    return {row["name"].partition(": ")[2]: (row["ratio"], target(row["name"])) for row in rows if target(row["name"])}


def test_one_race_of_a_student_holds_every_speed_that_has_a_target():
    rows = race_targets("student")
    ours = "gentrain, compiled"
    wanted = {f"{ours} / plain script": 3.3, f"{ours} / torchdistill": 2.0, f"{ours} / ideal": 1.1}
    wanted |= {f"{ours} / compiled ideal": 0.96, "gentrain / plain script": 2.75, "gentrain / torchdistill": 20 / 12}
    assert {name: rows[name][0] for name in wanted} == pytest.approx(wanted)
    assert [rows[name][1].limit for name in wanted] == [3.3, 2.5, 1.2, 0.97, 3.3, 2.5]
    assert [rows[name][1].met(rows[name][0]) for name in wanted] == [True, False, False, False, False, False]
    assert race_targets("patriarch")["gentrain / plain script"][1].limit == 3.0


def test_every_target_is_that_of_a_row_that_is_measured():
    measured = [row["name"] for part in read(OUTPUT) for row in part["rows"]]
    measured += [f"ResNet-20 {task}: {name}" for task in ("patriarch", "student") for name in race_targets(task)]
    measured.append("a sweep of 2 chains, a core each: on Ray / by hand")  # takes Ray
    aims = {id(target(name)) for name in measured}
    assert [pattern for pattern, aim in TARGETS.items() if id(aim) not in aims] == []
    assert target("gentrain plan of 1,000 chains, begun, CPU time") is None


@pytest.mark.parametrize("network", ["resnet20", "densenet100"])
def test_all_contenders_of_a_target_race_together(monkeypatch, network):
    heats = []
    monkeypatch.setattr(race, "prepared", lambda entry: None)
    monkeypatch.setattr(race, "run_field", lambda heat, rounds: heats.append(heat) or {})
    monkeypatch.setattr(race, "_rows", lambda blocks, name, images: [])
    race.race(network, "student", rounds=1, data="", runs="", teacher="t")
    together = {"ideal", race.COMPILED_IDEAL, race.ONE, race.COMPILED, "plain script", "torchdistill"}
    assert together <= set(heats[0])
    assert max(map(len, heats)) <= (race.MOST_OF_LARGE if network == "densenet100" else 10)
    entries = heats[0]
    assert entries[race.COMPILED_IDEAL].settings == entries[race.COMPILED].settings == {"compile": True}
    assert isinstance(entries["ideal"], Entry)
    assert entries["ideal"].settings == {}


def made_on(cpu, *flags):
    made = {"machine": f"x86_64, {cpu}, 2 CPUs", "cpu": cpu, "cpus": 2, "flags": list(flags), "load_before": 0.1}
    return made | {"versions": {"torch": "2"}, "commit": "abc", "date": "2026-01-01"}


def test_the_machine_is_recorded_with_the_flags_that_doctor_names():
    made = machine()
    assert set(made["flags"]) <= set(CPU_FEATURES)
    assert made["cpus"] == len(os.sched_getaffinity(0))
    assert made["cpu"] in made["machine"]
    assert heading(made_on("Xeon", "avx2", "amx_bf16")) == "x86_64, Xeon, 2 CPUs; avx2, amx_bf16"
    assert heading({"machine": "x86_64, AMD EPYC, 2 CPUs"}) == "x86_64, AMD EPYC, 2 CPUs; flags not recorded"


def test_each_machine_has_its_own_table_and_keeps_its_rows(tmp_path, monkeypatch):
    output = tmp_path / "results.json"

    def run(made, stage, median):
        row = {"name": "gentrain --help", "ratio": median, "low": median, "high": median, "unit": "s"}
        monkeypatch.setattr(bench, "machine", lambda: dict(made))
        monkeypatch.setattr(bench, "measure", lambda *_, **__: [row])
        bench.main(data=str(tmp_path), only=stage, rounds=1, output=output)
        return [(part["machine"], {r["stage"]: r["ratio"] for r in part["rows"]}) for part in read(output)]

    epyc, xeon = made_on("AMD EPYC", "avx2"), made_on("AMD EPYC", "avx2", "amx_bf16")
    old = {name: value for name, value in epyc.items() if name != "flags"}
    run(old, "start", 0.1)
    run(epyc, "start", 0.2)
    run(epyc, "loader", 0.25)
    assert run(xeon, "start", 0.4) == [
        ("x86_64, AMD EPYC, 2 CPUs; avx2, amx_bf16", {"start": 0.4}),
        ("x86_64, AMD EPYC, 2 CPUs; avx2", {"loader": 0.25, "start": 0.2}),
        ("x86_64, AMD EPYC, 2 CPUs; flags not recorded", {"start": 0.1}),
    ]
    again = run(epyc, "start", 0.3)
    assert [rows for _, rows in again] == [{"loader": 0.25, "start": 0.3}, {"start": 0.4}, {"start": 0.1}]
    first, second, third = table(read(output)).split("### ")[1:]
    assert "| gentrain --help | **0.3** | 0.3 – 0.3 | s | ≤ 0.3: met |" in first
    assert "| gentrain --help | **0.4** | 0.4 – 0.4 | s | ≤ 0.3: **missed** |" in second
    assert "Targets met by the median: 0 of 1." in second
    assert third.startswith("x86_64, AMD EPYC, 2 CPUs; flags not recorded\n")


def test_the_page_has_the_tables_of_the_results():
    assert PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip() == table(read(OUTPUT))


def test_commands_are_timed_with_their_bytecode(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    environment = with_bytecode(tmp_path)
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    subprocess.run([sys.executable, "-c", "import gentrain.errors"], env=environment, cwd=ROOT, check=True)
    assert list(tmp_path.rglob("errors*.pyc"))
