"""Every tracker by the same case: TensorBoard here always, the others where they are installed."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request

import pytest
from tensorboardX.proto.event_pb2 import Event

from gentrain.trackers.tensorboard import TensorBoardSink
from tests.trackers.test_sink_case import CHAIN, LOSSES, START, SinkCase, feed_events, trained


def scalars(folder):
    """Yield tag, step and value of every scalar and text of a folder's event files, in the order of writing."""
    for path in sorted(folder.glob("events.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += 12 + length + 4
            for value in event.summary.value:
                yield value.tag, event.step, value.simple_value, value.tensor.string_val


class TestTensorBoard(SinkCase):
    sink = staticmethod(TensorBoardSink)

    @staticmethod
    def read(folder):
        runs = {}
        for path in (folder / "tensorboard").glob("*/g*"):
            written = list(scalars(path))
            final = {tag: value for tag, _, value, _ in written}
            texts = [text[0].decode() for tag, _, _, text in written if tag.startswith("generation")]
            runs[f"{path.parent.name}-{path.name}"] = {
                "losses": [(step, value) for tag, step, value, _ in written if tag == "loss"],
                "errors": (final.get("final/top1_error"), final.get("final/ensemble_top1_error")),
                "teacher": "".join(texts).partition(", teacher ")[2].replace("none", ""),
            }
        return runs


@pytest.mark.filterwarnings("ignore")  # its own libraries' affairs
class TestMlflow(SinkCase):
    @pytest.fixture(autouse=True)
    def _installed(self, monkeypatch):
        pytest.importorskip("mlflow", reason="mlflow isn't installed: pip install 'gentrain[mlflow]'")
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    @staticmethod
    def sink(folder):
        from gentrain.trackers.mlflow import MlflowSink

        return MlflowSink(folder)

    @staticmethod
    def read(folder):
        from mlflow import MlflowClient

        return mlflow_runs(MlflowClient(f"sqlite:///{folder}/mlflow/mlflow.db"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_real_mlflow_server_gets_generations_as_child_runs_of_their_chain(tmp_path, monkeypatch):
    """A server on loopback, which dies while a chain is written; the next run adds what is missing."""
    pytest.importorskip("mlflow", reason="mlflow isn't installed: pip install 'gentrain[mlflow]'")
    from mlflow import MlflowClient

    from gentrain.trackers.mlflow import MlflowSink

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    notes = []
    with mlflow_server(tmp_path, port):
        feed_events(MlflowSink(tmp_path), tmp_path, [START, *trained(0, (1, 2), ends=False)])
    feed_events(MlflowSink(tmp_path), tmp_path, [START, *trained(0, (3,), begun=2)], notes=notes)
    (note,) = notes
    assert note.text.startswith("tracker tested: MlflowException: ")
    assert "\n" not in note.text
    with mlflow_server(tmp_path, port):
        events = [START, *trained(0, (3,), begun=2), *trained(1)]
        feed_events(MlflowSink(tmp_path), tmp_path, events)
        runs = mlflow_runs(MlflowClient(f"http://127.0.0.1:{port}"))
    assert {name: dict(run["losses"]) for name, run in runs.items()} == LOSSES
    assert [runs[name]["teacher"] for name in LOSSES] == ["", f"{CHAIN}-g0"]


@contextlib.contextmanager
def mlflow_server(folder, port):
    """Run MLflow's server on loopback over a database in `folder`."""
    database = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder)]
    command = [sys.executable, "-m", "mlflow", "server", *database, "--host", "127.0.0.1", "--port", str(port)]
    with open(folder / "server.log", "ab") as log:
        server = subprocess.Popen([*command, "--workers", "1"], stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            assert server.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.1)
        yield
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def mlflow_runs(client):
    """Return what MLflow has got; every generation's run lies in its chain's, every parameter is the settings'."""
    (experiment,) = client.search_experiments(filter_string="name = 'tracked'")
    by_id = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    runs = {}
    for run in by_id.values():
        parent = run.data.tags.get("mlflow.parentRunId")
        if parent is None:
            assert run.data.tags["gentrain.chain"] == run.info.run_name
            continue
        assert run.info.run_name.startswith(by_id[parent].info.run_name + "-g")
        assert run.info.status == by_id[parent].info.status == "FINISHED"
        losses = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")]
        metrics = run.data.metrics
        runs[run.info.run_name] = {
            "losses": losses,
            "errors": (metrics.get("final/top1_error"), metrics.get("final/ensemble_top1_error")),
            "teacher": run.data.tags["gentrain.teacher"],
        }
    assert len(by_id) - len(runs) == len({run.data.tags.get("gentrain.chain") for run in by_id.values()} - {None})
    return runs


@pytest.mark.filterwarnings("ignore")
class TestTrackio(SinkCase):
    @pytest.fixture(autouse=True)
    def _installed(self, tmp_path, monkeypatch):
        pytest.importorskip("trackio", reason="trackio isn't installed: pip install 'gentrain[trackio]'")
        from trackio import sqlite_storage, utils

        for module in (utils, sqlite_storage):  # it reads TRACKIO_DIR when it is imported
            monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")

    @staticmethod
    def sink(folder):
        from gentrain.trackers.trackio import TrackioSink

        return TrackioSink(folder)

    @staticmethod
    def read(_):
        from trackio.sqlite_storage import SQLiteStorage

        runs = {}
        for name in SQLiteStorage.get_runs("tracked"):
            logs = SQLiteStorage.get_logs("tracked", name)
            final = {key: value for log in logs for key, value in log.items() if key.startswith("final/")}
            runs[name] = {
                "losses": [(log["step"], log["loss"]) for log in logs if "loss" in log],
                "errors": (final.get("final/top1_error"), final.get("final/ensemble_top1_error")),
                "teacher": SQLiteStorage.get_run_config("tracked", name)["teacher"],
            }
        return runs


def leveldb_records(content):
    """Yield the records of a log in LevelDB's format, whose blocks begin seven bytes earlier."""
    at, parts = 7, b""
    content = bytes(7) + content
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last
            yield parts
            parts = b""


@pytest.mark.filterwarnings("ignore")
class TestWandb(SinkCase):
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("wandb", reason="wandb isn't installed: pip install 'gentrain[wandb]'")

    @staticmethod
    def sink(folder):
        from gentrain.trackers.wandb import WandbSink

        return WandbSink(folder)

    @staticmethod
    def read(folder):
        """Read the files that `wandb sync` would send; those of a run that was resumed are parts of one run."""
        from wandb.proto.wandb_internal_pb2 import Record

        runs = {}
        for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
            records = []
            while not any(record.HasField("exit") for record in records):  # another process writes it
                records = [Record.FromString(content) for content in leveldb_records(path.read_bytes()[7:])]
                time.sleep(0.05)
            (started,) = (record.run for record in records if record.HasField("run"))
            config = {item.key: json.loads(item.value_json) for item in started.config.update}
            run = runs.setdefault(
                started.display_name,
                {"id": started.run_id, "losses": [], "errors": (None, None), "teacher": config["teacher"]},
            )
            assert run["id"] == started.run_id
            for record in records:
                row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                run["losses"] += [(row["epoch"], row["loss"])] if "loss" in row else []
                final = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.summary.update}
                if "final/top1_error" in final:
                    run["errors"] = (final["final/top1_error"], final.get("final/ensemble_top1_error"))
        return runs
