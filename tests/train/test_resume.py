"""Killed at any moment, the same command ends in the same bits: caused for real, with kill -9, on real commands."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gentrain.store.done import MODEL, PREDICTIONS
from tests.conftest import SMALL

GENTRAIN = str(Path(sys.executable).with_name("gentrain"))
SETTINGS = (
    *SMALL,
    "name=kill",
    "dataset.limit=140",
    "recipe.epochs=20",
    "recipe.milestones=[15]",
    "network.name=resnet14",
)
"""Epochs long enough: an orphan worker, which Ray ends within 2 s, can't train all that are left after the kill."""
DEADLINE = 240


def command(runs, *options):
    study = Path(runs).parent / "study.yaml"
    study.write_text("{}")
    changes = [part for setting in SETTINGS for part in ("--set", setting)]
    return [GENTRAIN, "chain", str(study), *changes, "--runs", str(runs), "--json", *options]


def finish(runs, *options):
    """Run the command to its end; return its rows and what it said."""
    process = subprocess.run(command(runs, *options), capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()], process.stderr


def own_lines(log):
    return [line for line in log.read_text().splitlines() if line.startswith("gentrain: ")]


@contextlib.contextmanager
def started(runs, *options):
    """Start the command; whatever is left of it at the end is killed."""
    log = (runs.parent / "log.txt").open("a")
    driver = psutil.Popen(command(runs, *options), stdout=log, stderr=log)
    try:
        yield driver
    finally:
        log.close()
        kill_everything(driver)


def kill_everything(driver):
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [driver, *driver.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=30)
    driver.wait()


def train_workers(driver):
    return [p for p in driver.children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())]


def wait_for(condition, driver, what):
    """Poll until `condition()` is true; the driver must be running meanwhile."""
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert driver.poll() is None, f"ended before {what}"
        assert time.monotonic() < deadline, f"no {what} in time"
        time.sleep(0.005)
    return value


def checkpoints(runs, *, after=0, finished=0):
    """Checkpoints of the unfinished generation beyond epoch `after`, once `finished` generations are done."""
    if len(list(runs.glob("generations/*/DONE.json"))) != finished:
        return []
    paths = [p for p in runs.glob("generations/*/train/epoch-*") if int(p.name[6:11]) > after]
    return [p for p in paths if not (p.parents[1] / "DONE.json").exists()]


def weights_and_predictions(runs, rows):
    return [(runs / "generations" / row["key"] / name).read_bytes() for row in rows for name in (MODEL, PREDICTIONS)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Return never interrupted results by number of workers."""
    results = {}

    def find(workers):
        if workers not in results:
            runs = tmp_path_factory.mktemp("reference") / "runs"
            options = ("--local",) if workers == 1 else ("--workers", str(workers))
            rows, _ = finish(runs, *options)
            results[workers] = [row["key"] for row in rows], weights_and_predictions(runs, rows)
        return results[workers]

    return find


def check_same(runs, rows, reference):
    keys, wanted = reference
    assert [row["key"] for row in rows] == keys
    assert weights_and_predictions(runs, rows) == wanted
    assert not list(runs.glob("generations/*/train"))


def test_the_debug_runner_killed_twice(tmp_path, reference):
    runs = tmp_path / "runs"
    for finished in (0, 1):
        with started(runs, "--local") as driver:
            wait_for(lambda n=finished: checkpoints(runs, after=2, finished=n), driver, "a checkpoint")
            driver.kill()
            driver.wait()
    assert len(list(runs.glob("generations/*/DONE.json"))) == 1
    rows, stderr = finish(runs, "--local")
    assert "resuming after epoch" in stderr
    assert "generation 0 reused" in stderr
    check_same(runs, rows, reference(1))


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(tmp_path, reference):
    runs = tmp_path / "runs"
    with started(runs, "--local") as driver:
        wait_for(lambda: checkpoints(runs, after=3), driver, "a checkpoint")
        driver.kill()
        driver.wait()
    newest = max(runs.glob("generations/*/train/epoch-*"))
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    rows, stderr = finish(runs, "--local")
    assert f"{newest.name}: damaged (checksum differs)" in stderr
    assert f"resuming after epoch {int(newest.name[6:11]) - 1}" in stderr
    check_same(runs, rows, reference(1))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_ctrl_c_and_then_the_driver_killed_on_ray_with_one_worker(tmp_path, reference):
    runs = tmp_path / "runs"
    with started(runs, "--workers", "1") as driver:
        wait_for(lambda: checkpoints(runs), driver, "a checkpoint")
        driver.send_signal(signal.SIGINT)
        assert driver.wait(timeout=60) == 130
    assert "run the same command again to resume from the last epoch" in (tmp_path / "log.txt").read_text()
    with started(runs, "--workers", "1") as driver:
        wait_for(lambda: checkpoints(runs, after=2), driver, "a checkpoint")
        workers = train_workers(driver)
        driver.kill()
        driver.wait()
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive  # nothing is left behind that would train on
    rows, stderr = finish(runs, "--workers", "1")
    assert "resuming after epoch" in stderr
    check_same(runs, rows, reference(1))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_worker_killed_and_then_everything_with_two_workers(tmp_path, reference):
    runs = tmp_path / "runs"
    with started(runs, "--workers", "2") as driver:
        wait_for(lambda: checkpoints(runs, after=2), driver, "a checkpoint")
        workers = train_workers(driver)
        assert len(workers) == 2
        workers[-1].kill()
        wait_for(lambda: checkpoints(runs, after=2, finished=1), driver, "the next generation's checkpoint")
        kill_everything(driver)
    log = (tmp_path / "log.txt").read_text()
    assert "resuming after epoch" in log  # the group came back by itself
    assert "raylet" not in log  # what Ray has to say about it is in its own log
    rows, stderr = finish(runs, "--workers", "2")
    assert "resuming after epoch" in stderr
    assert "generation 0 reused" in stderr
    check_same(runs, rows, reference(2))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("part", "line"),
    [
        (
            "ray::TrainController",
            "gentrain: Ray failed: its TrainController died; details in {log}; run the same command",
        ),
        ("raylet/raylet", "gentrain: this process was ended from outside: Ray's GCS or raylet died"),
        ("gcs/gcs_server", "gentrain: this process was ended from outside: Ray's GCS or raylet died"),
    ],
)
def test_a_part_of_ray_that_dies_is_one_line_and_the_same_command_goes_on(tmp_path, reference, part, line):
    runs = tmp_path / "runs"
    with started(runs, "--workers", "1") as driver:
        wait_for(lambda: checkpoints(runs, after=2), driver, "a checkpoint")
        (victim,) = (p for p in driver.children(recursive=True) if part in " ".join(p.cmdline()))
        victim.kill()
        assert driver.wait(timeout=150) == 1  # Ray looks a minute long for its GCS
    log = runs / "studies" / "kill" / "ray.log"
    deadline = time.monotonic() + 30
    while not (own := own_lines(tmp_path / "log.txt")) and time.monotonic() < deadline:
        time.sleep(0.05)  # another process writes it when this one has ended
    assert len(own) == 1
    assert own[0].startswith(line.format(log=log))
    assert str(log) in own[0]
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
    rows, stderr = finish(runs, "--workers", "1")
    assert "resuming after epoch" in stderr or "generation 0 reused" in stderr  # orphans trained on until they noticed
    check_same(runs, rows, reference(1))
