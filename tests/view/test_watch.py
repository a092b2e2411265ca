"""`gentrain status --watch`: learning curves of what is finished and of what is trained now."""

import contextlib
import io
from dataclasses import replace

import pytest

import gentrain
from gentrain import cli
from gentrain.events import EpochDone
from gentrain.view.watch import BLOCKS, MOST_CURVES, WIDTH, sparkline, watch_states
from tests.conftest import SMALL


class Stopped(BaseException):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a run folder with a finished study, and one that was stopped in its student's second epoch."""
    folder = str(tmp_path_factory.mktemp("watch") / "runs")

    def stop(event):
        if isinstance(event, EpochDone) and event.generation == 1 and event.row["epoch"] == 2:
            raise Stopped

    gentrain.run(gentrain.load_study(overrides=[*SMALL, "generations=0"]), runs=folder, local=True)
    with contextlib.suppress(Stopped):
        gentrain.run(gentrain.load_study(overrides=[*SMALL, "name=begun"]), runs=folder, local=True, progress=stop)
    return folder


def test_a_finished_study_is_shown_once_with_its_curve(runs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["status", "small", "--watch", "--runs", runs]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines.count("D(0.6,0.6)-resnet8-s0") == 1
    (row,) = gentrain.open_run(runs).run("small")
    (line,) = [line for line in lines if line.startswith("M(0)")]
    assert line.split()[2:] == [f"{100 * row['top1_error']:.2f}%", "epoch", "3/3"]
    assert len(line.split()[1]) == 3
    assert set(line.split()[1]) <= set(BLOCKS)


def test_an_unfinished_generations_curve_is_that_of_its_checkpoint(runs):
    folder = gentrain.open_run(runs)
    (curves,) = folder.curves(folder.status("begun")).values()
    assert [(curve.cell.generation, curve.cell.state, len(curve.errors)) for curve in curves] == [
        (0, "done", 3),
        (1, "interrupted", 2),
    ]
    (checkpoint, *_) = sorted(
        path for path in folder.store.data.parent.glob(f"generations/{curves[1].cell.key}/train/*.safetensors")
    )[::-1]
    checkpoint.write_bytes(b"damaged")
    assert [len(curve.errors) for curve in next(iter(folder.curves(folder.status("begun")).values()))] == [3]


def test_it_looks_again_until_all_is_over_and_prints_only_what_has_changed(runs):
    folder, stream, pauses = gentrain.open_run(runs), io.StringIO(), []
    status = folder.status("small")
    (name,) = status.chains
    begun = replace(status, chains={name: (replace(status.chains[name][0], state="running", epoch=1),)})
    pictures = iter([begun, begun, status])

    def read():
        current = next(pictures)
        return [(current, folder.curves(current))]

    watch_states(read, stream, pause=pauses.append)
    assert len(pauses) == 2
    assert stream.getvalue().count("1 running") == 1
    assert stream.getvalue().count("1 done") == 1


def test_ctrl_c_ends_it(runs, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    folder, stream = gentrain.open_run(runs), io.StringIO()
    status = folder.status("begun")
    watch_states(lambda: [(status, folder.curves(status))], stream, pause=interrupt)
    assert "interrupted 2/3" in stream.getvalue()


def test_watch_is_not_for_programs(runs, capsys):
    assert cli.run(["status", "--watch", "--json", "--runs", runs]) == 2
    assert capsys.readouterr().err == "gentrain: --watch --json: give one of them\n"
    assert cli.run(["status", "--watch", "--runs", f"{runs}/none"]) == 0
    assert "no study in" in capsys.readouterr().out


def test_a_line_has_a_block_for_each_epoch_up_to_its_width():
    assert sparkline([0.7, 0.35, 0.0], top=0.7) == "█▅▁"
    long = sparkline([1 - place / 999 for place in range(1000)], top=1.0)
    assert len(long) == WIDTH
    assert list(long) == sorted(long, reverse=True)
    assert long[-1] == "▁"
    assert sparkline([0.0, 0.0], top=0.0) == "▁▁"
    assert MOST_CURVES < 30
