"""Test archives: a study's results without weights and images, from which the same report is drawn."""

import shutil
from pathlib import Path

import pytest

import gentrain
from gentrain import cli
from gentrain.report.archive import archive_study
from gentrain.report.write import write_report
from gentrain.results.status import study_status
from gentrain.store.run import RunStore
from gentrain.store.study_record import read_results
from tests.conftest import SMALL
from tests.s3 import s3_server

SETTINGS = (*SMALL, "dataset.limit=10", "dataset.validation=0.2", "recipe.epochs=1", "recipe.milestones=[]")
STUDY = gentrain.load_study(overrides=[*SETTINGS, "grid.process=[{f_a1: 1.0, lambda: 0.5}, {f_a1: 0.6, lambda: 0.5}]"])
KEPT = {
    "DONE.json", "spec.json", "data.json", "epochs.parquet", "predictions.parquet", "validation_predictions.parquet"
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    gentrain.run(STUDY, runs=str(folder / "runs"), local=True)
    return folder / "runs"


@pytest.fixture
def archived(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return archive_study(RunStore(str(trained)), "small", "results/small")


def test_an_archive_has_everything_but_weights_images_and_this_machine_s_paths(trained, archived, tmp_path):
    folders = sorted((tmp_path / "results" / "small" / "generations").iterdir())
    assert [folder.name for folder in folders] == sorted(path.name for path in (trained / "generations").iterdir())
    assert archived.generations == len(folders) == 4
    for folder in folders:
        assert {path.name for path in folder.iterdir() if path.name[0] != "."} == KEPT
        for path in folder.iterdir():
            assert path.read_bytes() == (trained / "generations" / folder.name / path.name).read_bytes()
    for path in filter(Path.is_file, (tmp_path / "results").rglob("*")):
        assert str(trained).encode() not in path.read_bytes(), path
        assert str(tmp_path).encode() not in path.read_bytes(), path
    assert read_results(RunStore("results/small"), "small") == read_results(RunStore(str(trained)), "small")


def test_the_same_tables_are_drawn_from_an_archive_and_from_a_copy_of_it(trained, archived, tmp_path, capsys):
    wanted = write_report(RunStore(str(trained)), "small")
    assert archived.report.tables == wanted.tables
    assert archived.report.report.notes == ()
    shutil.copytree(tmp_path / "results" / "small", tmp_path / "clone")
    shutil.rmtree(tmp_path / "clone" / "studies" / "small" / "report" / "figures")
    capsys.readouterr()
    assert cli.run(["report", "--from", "clone", "--format", "csv"]) == 0
    assert capsys.readouterr().out == (Path(wanted.page).parent / "tables.csv").read_text()
    drawn = {path.name for path in (tmp_path / "clone" / "studies" / "small" / "report" / "figures").iterdir()}
    assert drawn == {path.name for path in (Path(wanted.page).parent / "figures").iterdir()}
    assert any(name.startswith("figure1") for name in drawn)  # the training scores were kept
    page = (tmp_path / "clone" / "studies" / "small" / "report" / "report.html").read_text()
    assert "gentrain sweep clone/studies/small/study.yaml --runs clone" in page


def test_damaged_predictions_in_an_archive_are_left_out_and_named(archived, capsys):
    (path, *_) = Path("results/small/generations").glob("*/predictions.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    assert cli.run(["report", "--from", "results/small", "--format", "csv"]) == 0
    assert f"{path}: damaged or missing" in capsys.readouterr().err.replace(f"{Path.cwd()}/", "")


def test_what_is_damaged_in_the_run_folder_is_named_and_left_out(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "runs")
    last = study_status(RunStore("runs"), "small").chains["D(0.6,0.5)-resnet8-s0"][1].key
    Path(f"runs/generations/{last}/predictions.parquet").write_bytes(b"x")
    assert cli.run(["archive", "small", "--to", "results"]) == 0
    printed = capsys.readouterr()
    assert f"generations/{last}/predictions.parquet: damaged or missing" in printed.err
    assert "small: 3 generations" in printed.out


def test_an_unfinished_study_is_archived_as_far_as_it_is_and_completed_later(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "runs")
    last = study_status(RunStore("runs"), "small").chains["D(0.6,0.5)-resnet8-s0"][1].key
    shutil.move(f"runs/generations/{last}", "aside")
    assert cli.run(["archive", "small", "--to", "results"]) == 0
    printed = capsys.readouterr()
    assert "small: 3 generations" in printed.out
    assert "no result yet, so not in it: D(0.6,0.5)-resnet8-s0: Gen #1 not trained yet" in printed.err
    shutil.move("aside", f"runs/generations/{last}")
    assert cli.run(["archive", "small", "--to", "results", "--json"]) == 0
    assert '"generations": 4' in capsys.readouterr().out
    assert not study_status(RunStore("results"), "small").notes
    shutil.move(f"runs/generations/{last}", "lost")
    assert cli.run(["archive", "small", "--to", "results"]) == 0  # what was archived of it before stays
    assert len(read_results(RunStore("results"), "small")) == 4
    assert study_status(RunStore("results"), "small").chains["D(0.6,0.5)-resnet8-s0"][1].state == "done"


def test_an_archive_of_a_store_on_s3_has_plain_names(tmp_path, monkeypatch):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with s3_server(monkeypatch) as bucket:
        uri = bucket("archives")
        gentrain.run(gentrain.load_study(overrides=[*SETTINGS, "generations=0"]), runs=uri, local=True)
        made = archive_study(RunStore(uri), "small", "results")
        wanted = write_report(RunStore(uri), "small")
    assert made.report.tables == wanted.tables
    assert all({path.name for path in folder.iterdir() if path.name[0] != "."} == KEPT
               for folder in Path("results/generations").iterdir())  # fmt: skip


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["archive", "small", "--to", "runs"], "--to runs: must be a folder of a disk, and another one than the run"),
        (["archive", "small", "--to", "s3://b/x"], "--to s3://b/x: must be a folder of a disk"),
        (["archive", "nosuch", "--to", "x"], "nosuch: no such study in"),
        (["report"], "STUDY: missing; name a study of the run folder, or give an archive by --from DIR"),
        (["report", "--from", "empty"], "empty: name one of its studies: there is none"),
    ],
)
def test_bad_input_gets_one_line(trained, tmp_path, monkeypatch, capsys, command, message):
    monkeypatch.chdir(tmp_path)
    Path("runs").symlink_to(trained)
    assert cli.run(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
