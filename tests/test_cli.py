"""What a person types and reads: options, refusals in one line, JSON for programs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from gentrain import cli
from gentrain.cli import _results, app, run
from gentrain.errors import StoreError
from gentrain.store.done import MODEL
from tests.conftest import SMALL

GENTRAIN = str(Path(sys.executable).with_name("gentrain"))
OPTIONS = {
    "chain": ["STUDY.yaml", "--f-a1", "--lambda", "--generations", "--workers", "--data", "--runs", "--set", "--json",
              "--extend", "--track", "--address", "--local", "--smoke", "--teacher", "--teacher-network", "--quiet",
              "--force"],
    "plan": ["STUDY.yaml", "--gpus", "--price", "--card", "--data", "--runs", "--set", "--json", "--measure",
             "--smoke"],
    "sweep": ["STUDY.yaml", "--data", "--runs", "--set", "--json", "--extend", "--track", "--address", "--local",
              "--smoke", "--quiet", "--force"],
    "status": ["STUDY", "--watch", "--runs", "--json"],
    "networks": ["NAME", "--classes", "--size", "--json"],
    "prepare": ["STUDY.yaml|SOURCE", "--data", "--runs", "--skip-broken", "--size", "--max-side", "--quality", "--set",
                "--json", "--smoke", "--quiet"],
    "evaluate": ["STUDY", "--chain", "--generation", "--ensemble", "--ensemble-kind", "--split", "--runs", "--json"],
    "export": ["STUDY", "--to", "--chain", "--generation", "--ensemble", "--ensemble-kind", "--no-preprocessing",
               "--runs", "--json", "--quiet"],
    "predict": ["MODEL", "IMAGE", "--top", "--csv", "--json"],
    "push": ["MODEL", "OWNER/NAME", "--public"],
    "report": ["STUDY", "--format", "--no-training-scores", "--from", "--runs", "--json", "--quiet"],
    "archive": ["STUDY", "--to", "--runs", "--json", "--quiet"],
    "doctor": ["STUDY.yaml", "--data", "--runs", "--set", "--json", "--quiet"],
    "schema": ["--output"],
    "clean": ["--runs", "--older-than", "--yes", "--json", "--quiet"],
    "init": ["DIR", "--output", "--force", "--json"],
}  # fmt: skip


def chain(*options, settings=SMALL):
    changes = [part for setting in settings for part in ("--set", setting)]
    return ["chain", *changes, *map(str, options)]


def refused(capsys, arguments, *, progress=""):
    """Return the one line of a refusal, after lines that begin with `progress`; the exit status is 2."""
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out.startswith(progress) if progress else out == ""
    assert err.startswith("gentrain: ")
    lines = err.splitlines()
    assert len(lines) == 1, err
    return lines[0]


def test_the_options_are_frozen():
    commands = typer.main.get_command(app).commands
    arguments = {
        name: [p.metavar.strip("[].") if p.param_type_name == "argument" else p.opts[0] for p in command.params]
        for name, command in commands.items()
    }
    assert {name: sorted(options) for name, options in arguments.items()} == {
        name: sorted(options) for name, options in OPTIONS.items()
    }


def test_the_process_ends_by_python_s_functions_and_not_by_destructors_of_libraries():
    """A destructor that aborts stands for pyarrow's threads, which do so now and then."""
    code = (
        "import atexit, ctypes; libc = ctypes.CDLL(None); atexit.register(print, 'the end'); "
        "libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None); "
        "from gentrain.cli import main; main({arguments})"
    )
    for arguments, status in ((["--version"], 0), (["status", "nosuch", "--runs", "/nowhere"], 2)):
        process = subprocess.run(
            [sys.executable, "-c", code.format(arguments=arguments)], capture_output=True, text=True, check=False
        )
        assert process.returncode == status, process.stderr
        assert process.stdout.endswith("the end\n")


@pytest.mark.parametrize(
    ("arguments", "expected"), [("chain --help", "--f-a1"), ("plan", "to train"), ("status", "no study in")]
)
def test_what_should_be_instant_imports_no_torch_and_no_ray(tmp_path, arguments, expected):
    arguments = [*arguments.split(), "--runs", str(tmp_path)]
    code = (
        "import sys; from gentrain.cli import run; run(sys.argv[1:]); sys.exit(bool({'torch', 'ray'} & {*sys.modules}))"
    )
    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert expected in process.stdout
    assert list(tmp_path.iterdir()) == []  # asking writes nothing


def test_networks_tell_what_they_cost(capsys):
    assert run(["networks", "resnet20", "densenet100", "--json"]) == 0
    rows = {row["network"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert (rows["resnet20"]["parameters"], rows["densenet100"]["parameters"]) == (275_572, 800_032)
    assert rows["densenet100"]["multiply_adds"] == 287_960_472
    assert "unknown network 'resnet21'; did you mean" in refused(capsys, ["networks", "resnet21"])


def test_minus_h_is_help_everywhere_and_so_is_python_minus_m(capsys):
    for arguments in (["-h"], ["chain", "-h"]):
        assert run(arguments) == 0
        assert re.search(r"--help +-h ", capsys.readouterr().out)
    command = [sys.executable, "-m", "gentrain", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("gentrain 0.")


def test_version_and_no_arguments(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("gentrain 0.")
    assert run([]) == 0
    assert "chain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--set", "dataset.source=cifar11"], "dataset.source: input should be 'digits', 'cifar10', 'cifar100'"),
        (["--set", "recipe.epoch=1"], "recipe.epoch: unknown key; did you mean"),
        (["--set", "recipe.lr=0.1"], "recipe.lr: unknown key; did you mean learning_rate?"),
        (["--set", "wd=0.1"], "wd: unknown key; did you mean recipe.weight_decay?"),
        (["--set", "network.name=resnet21"], "network.name: unknown network 'resnet21'; did you mean resnet14 or"),
        (["--f-a1", "0.2"], "f_a1 is 0.2; it must lie above 1/K = 0.2"),
        (["--f-a1", "1.2"], "f_a1 is 1.2; it must lie above 1/K = 0.2 (K = 5) and be at most 1"),
        (
            ["--lambda", "1.5"],
            "process.lambda: must be a number from 0 to 1, or a list of such above 0, one for each student (got 1.5)",
        ),
        (["--set", "process.k=1"], "process.k: input should be greater than or equal to 2 (got 1)"),
        (["--workers", "3"], "`recipe.batch_size` (32) must be a multiple of `workers` (3)"),
        (["--data", "/nowhere", "--set", "dataset.source=cifar10"], "dataset.path: /nowhere: no such folder"),
        (["--set", "device=cuda", "--local"], "device: cuda: torch finds no GPU here; set device: auto or cpu"),
        (["--workers", "2", "--local"], "workers: 2: --local has one process; set workers: 1 or use Ray"),
        (["--set", "grid.seed=[0, 1]"], "small: a study with a grid is more than one chain"),
        (["--wokers", "2"], "No such option: --wokers"),
        (["--lambda", "much"], "Invalid value for '--lambda'"),
        (["nostudy.yaml"], "nostudy.yaml: no such study file"),
    ],
)
def test_refusals(capsys, tmp_path, options, expected):
    if "device=cuda" in options:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("there is a GPU here")
    assert expected in refused(capsys, chain("--runs", tmp_path / "runs", *options))


def test_k_above_the_number_of_classes_is_refused(capsys, tmp_path):
    line = refused(
        capsys, chain("--runs", tmp_path, "--set", "process.k=11", "--local"), progress="preparing digits in "
    )
    assert "process.k: 11 is more than the dataset's 10 classes; lower process.k" in line


@pytest.mark.parametrize("workers", [16, 64])
def test_more_workers_than_cpus_is_said_at_once(capsys, tmp_path, workers):
    settings = [*SMALL, "recipe.batch_size=64", "cpus_per_worker=64"]
    line = refused(capsys, chain("--runs", tmp_path / "runs", "--workers", workers, settings=settings))
    assert f"workers: {workers} × 64 CPUs are more than the" in line


@pytest.mark.ray
def test_an_address_without_a_cluster_is_said_in_one_line(capsys, tmp_path):
    line = refused(capsys, chain("--runs", tmp_path / "runs", "--address", "127.0.0.1:1"))
    assert "--address 127.0.0.1:1: can't connect" in line


@pytest.fixture
def small_disk(tmp_path):
    """Return a real file system of 4 MiB, where we may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", folder):
        pytest.skip("no right to mount a small file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False).returncode


def test_a_read_only_disk_is_refused(capsys, small_disk):
    assert mount("-o", "remount,ro", small_disk) == 0
    line = refused(capsys, chain("--runs", small_disk / "runs", "--local"))
    assert "can't be written (Read-only file system); choose another folder with --runs" in line


def test_a_place_where_nothing_can_be_written_is_refused(capsys):
    assert "can't be written" in refused(capsys, chain("--runs", "/proc/gentrain", "--local"))


def test_a_disk_too_small_for_the_data_is_refused_before_training(capsys, small_disk):
    line = refused(capsys, chain("--runs", small_disk / "runs", "--local"), progress="preparing digits in ")
    assert "the disk is full; free some space or choose another folder with --runs" in line


def test_a_disk_that_fills_up_during_training_stops_in_one_line_and_goes_on_later(capsys, tmp_path, small_disk):
    """The data lies elsewhere; the generations on 4 MiB, most of it taken."""
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "generations").symlink_to(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(3100 * 1024))
    line = refused(capsys, chain("--runs", runs, "--local"), progress="preparing digits in ")
    assert "of disk, " in line  # foretold
    line = refused(capsys, chain("--runs", runs, "--local", "--force"), progress="D(0.6,0.6)-resnet8-s0: ")
    assert "the disk is full; free some space and run the same command again" in line
    assert len(list(small_disk.glob("*/train/epoch-*"))) == 1
    assert not list(small_disk.glob("*/DONE.json"))
    assert not list(small_disk.rglob(".*.tmp"))
    filler.unlink()
    assert run(chain("--runs", runs, "--local", "--generations", "0", "--set", "name=shorter")) == 0
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert len(list(small_disk.glob(f"*/{MODEL}"))) == 1


def test_json_rows_are_all_that_is_on_standard_output(capfd, tmp_path):
    assert run(chain("--runs", tmp_path / "runs", "--local", "--json")) == 0
    out, err = capfd.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["generation"] for row in rows] == [0, 1]
    assert "generation 1 done: test error" in err
    assert run(["prepare", "--runs", str(tmp_path / "runs"), "--set", "dataset.limit=20", "--json"]) == 0
    (manifest,) = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert manifest["splits"]["train"]["count"] == 200


def test_errors_that_are_not_the_users_input_exit_with_1(capsys, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise StoreError("a: b")

    monkeypatch.setattr("gentrain.api.run", fail)
    assert run(chain("--runs", tmp_path)) == 1
    assert capsys.readouterr().err == "gentrain: a: b\n"


def test_ctrl_c_says_how_to_go_on(capsys, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gentrain.api.run", interrupt)
    assert run(chain("--runs", tmp_path)) == 130
    assert "run the same command again to resume from the last epoch" in capsys.readouterr().err


def test_quickstart_is_the_default_study():
    assert cli.QUICKSTART.is_file()


@pytest.mark.parametrize(
    ("runs", "shown"),
    [
        ("runs/", "runs/studies/s"),
        ("/runs", "/runs/studies/s"),
        ("s3://bucket/runs?scheme=http&region=x", "s3://bucket/runs/studies/s"),
        ("gs://bucket/", "gs://bucket/studies/s"),
    ],
)
def test_results_lie_under_the_run_folder_as_it_was_named(runs, shown):
    assert _results(runs, "s") == shown
