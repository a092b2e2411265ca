"""How often files of the store are read, counted by its filesystem."""

from collections import Counter
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem

from gentrain import api, cli
from gentrain.store.done import MODEL
from gentrain.store.run import RunStore
from gentrain.study.loading import dump_study, load_study
from tests.conftest import SMALL

GRID = (
    *SMALL,
    "name=counted",
    "recipe.epochs=1",
    "recipe.milestones=[]",
    "generations=2",
    "dataset.validation=0.2",
    "grid.process=[{f_a1: 1.0, lambda: 0.0}, {f_a1: 1.0, lambda: 0.5}, {lambda: 0.5}, {lambda: 0.6}]",
)


class Counting(LocalFileSystem):
    """A folder that counts how often each file is opened to be read."""

    cachable = False

    def __init__(self, **options):
        super().__init__(auto_mkdir=True, **options)
        self.reads = Counter()

    def _open(self, path, mode="rb", **options):
        if "r" in mode:
            self.reads[path] += 1
        return super()._open(path, mode=mode, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the URI and filesystem of a finished sweep of four chains, eight generations."""
    folder = tmp_path_factory.mktemp("counted")
    counting = Counting()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENTRAIN_CACHE", str(folder / "cache"))
        patch.setattr(
            "gentrain.store.run.open_filesystem",
            lambda _: (PyFileSystem(FSSpecHandler(counting)), str(folder / "bucket")),
        )
        api.run(load_study(overrides=GRID), runs="counted://bucket", local=True)
        yield "counted://bucket", counting


def reads(counting, *command):
    """Run a command, which must succeed, and return how often it read each file of the store, by path."""
    counting.reads.clear()
    assert cli.run([*command]) == 0
    return {Path(path): count for path, count in counting.reads.items() if Path(path).suffix != ".beton"}


def test_a_finished_sweep_reads_each_file_at_most_twice(finished, tmp_path, capsys):
    uri, counting = finished
    study = tmp_path / "study.yaml"
    study.write_text(dump_study(load_study(overrides=GRID)))
    counts = reads(counting, "sweep", str(study), "--runs", uri, "--local")
    assert "4 chains" in capsys.readouterr().out
    assert [count for path, count in counts.items() if path.name == MODEL] == [1] * 8  # verified, nothing more
    assert {path: count for path, count in counts.items() if count > 2} == {}


@pytest.mark.parametrize("command", [["evaluate", "--chain"], ["report", "--no-training-scores"], ["status"]])
def test_what_only_reads_results_reads_no_weights(finished, command, capsys):
    uri, counting = finished
    name, *options = command
    chain = [next(iter(RunStore(uri).study("counted/chains").names())).removesuffix(".json")]
    options += chain if options == ["--chain"] else []
    counts = reads(counting, name, "counted", *options, "--runs", uri)
    capsys.readouterr()
    assert counts
    assert not [path for path in counts if path.name == MODEL]
    assert {path: count for path, count in counts.items() if count > 2} == {}
