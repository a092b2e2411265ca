"""Sweeps whose trials and driver are killed by signals: `make slow` (some ten minutes on 2 cores)."""

import contextlib
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from gentrain.store.done import MODEL, PREDICTIONS
from tests.conftest import SMALL
from tests.train.test_resume import GENTRAIN, checkpoints, kill_everything, wait_for

SETTINGS = (
    *SMALL, "name=kill", "dataset.limit=60", "recipe.epochs=20", "recipe.milestones=[15]", "network.name=resnet14",
    "grid.process=[{f_a1: 1.0, lambda: 0.5}, {lambda: 0.5}, {lambda: 0.7}]",
)  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1800)]


def command(runs):
    study = runs.parent / "study.yaml"
    study.write_text("{}")
    changes = [part for setting in SETTINGS for part in ("--set", setting)]
    return [GENTRAIN, "sweep", str(study), *changes, "--runs", str(runs)]


@contextlib.contextmanager
def started(runs):
    with (runs.parent / "log.txt").open("a") as log:
        driver = psutil.Popen(command(runs), stdout=log, stderr=log)
    try:
        yield driver
    finally:
        kill_everything(driver)


def finish(runs):
    run = subprocess.run(command(runs), capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def networks(runs):
    names = (MODEL, PREDICTIONS)
    return {
        (p.parent.name, n): (p.parent / n).read_bytes() for p in runs.glob("generations/*/DONE.json") for n in names
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    runs = tmp_path_factory.mktemp("reference") / "runs"
    finish(runs)
    files = networks(runs)
    assert len(files) == 2 * 5
    return files


def trials(driver):
    return [p for p in driver.children(recursive=True) if "ChainTrial" in " ".join(p.cmdline())]


def test_a_killed_trial_is_started_again_and_the_sweep_ends_in_the_same_bits(tmp_path, reference):
    runs = tmp_path / "runs"
    with started(runs) as driver:
        wait_for(lambda: checkpoints(runs, after=2), driver, "a checkpoint")
        running = trials(driver)
        assert running
        for trial in running:
            trial.kill()
        assert driver.wait(timeout=900) == 0, (tmp_path / "log.txt").read_text()
    assert networks(runs) == reference


def test_a_killed_driver_and_then_ctrl_c_and_the_same_command_finishes_the_rest(tmp_path, reference):
    runs = tmp_path / "runs"
    with started(runs) as driver:
        wait_for(lambda: checkpoints(runs, after=2), driver, "a checkpoint")
        driver.kill()
        driver.wait()
    with started(runs) as driver:
        wait_for(lambda: len(list(Path(runs).glob("generations/*/DONE.json"))) >= 2, driver, "two generations")
        driver.send_signal(signal.SIGINT)
        assert driver.wait(timeout=120) == 130, (tmp_path / "log.txt").read_text()
    assert "run the same command again to resume from the last epoch" in (tmp_path / "log.txt").read_text()
    before = networks(runs)
    finish(runs)
    assert networks(runs) == reference
    assert before.items() <= networks(runs).items()
