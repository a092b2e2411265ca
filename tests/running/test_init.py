"""`gentrain init`: from a folder of images to a study that trains."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from gentrain import api
from gentrain.cli import run
from gentrain.study.loading import load_study
from tests.images import halves, write_tree


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Six classes of real photographs without test images, in a folder whose name has a space."""
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "all", halves(), train=5, val=0, sizes=[(24, 20), (20, 31)])
    (tmp_path / "all" / "train").rename(tmp_path / "my photos")
    return tmp_path / "my photos"


def test_a_study_is_written_plans_and_trains(photos, tmp_path, capsys):
    (photos / "broken").mkdir()
    for number in range(4):
        Image.fromarray(np.zeros((20, 20 + number, 3), np.uint8)).save(photos / "broken" / f"{number}.png")
    (photos / "broken" / "0.png").write_bytes(b"no image")
    assert run(["init", "my photos"]) == 0
    out = capsys.readouterr().out
    assert "note: 1 image can't be read: broken/0.png; the study skips it" in out
    assert "next: gentrain chain my-photos.yaml --smoke" in out
    assert max(map(len, out.splitlines()[:15])) <= 80
    study = load_study("my-photos.yaml")
    assert (study.name, study.dataset.path) == ("my-photos", str(photos))
    assert api.plan(study, runs="runs").summary()["to_train"] == 3
    assert run(["chain", "my-photos.yaml", "--smoke", "--local", "--json", "--runs", "runs"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["generation"] for row in rows] == [0, 1]


def test_a_study_is_not_overwritten_without_force(photos, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    assert run(["init", "my photos", "--output", "mine.yaml"]) == 2
    assert capsys.readouterr().err == (
        "gentrain: mine.yaml: is there already; --force overwrites it, --output FILE writes another\n"
    )
    assert (tmp_path / "mine.yaml").read_text() == "name: mine\n"
    assert run(["init", "my photos", "--output", "mine.yaml", "--force", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["study"], row["test_part"], row["counts"]["train"]) == ("mine.yaml", 0.2, [4] * 6)
    assert load_study("mine.yaml").dataset.test == 0.2


def test_the_path_is_relative_to_the_study_file_whatever_links_lead_there(photos, tmp_path):
    deep = tmp_path / "elsewhere" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / "link").symlink_to(deep)
    assert run(["init", str(photos), "--output", "link/s.yaml"]) == 0
    text = (deep / "s.yaml").read_text()
    assert 'path: "../../my photos"' in text
    assert os.path.samefile(load_study("link/s.yaml").dataset.path, photos)


def test_a_name_that_begins_like_a_home_folder_is_a_folder_beside_the_study(photos, tmp_path):
    photos.rename(tmp_path / "~photos")
    assert run(["init", "./~photos"]) == 0
    assert os.path.samefile(load_study("photos.yaml").dataset.path, tmp_path / "~photos")


def test_what_cant_be_used_is_one_line_and_nothing_is_written(photos, tmp_path, capsys):
    assert run(["init", "nowhere"]) == 2
    assert run(["init", "my photos", "--output", "nowhere/s.yaml"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "gentrain: nowhere: no such folder",
        "gentrain: nowhere/s.yaml: can't be written (No such file or directory)",
    ]
    assert list(tmp_path.rglob("*.yaml")) == []
