"""Disk and memory are foretold as they will be, and a study that doesn't fit is refused before it starts."""

import re

import pytest

from gentrain import api
from gentrain.cli import run
from gentrain.data.prepare.dataset import prepare
from gentrain.data.prepare.expected import expected_images
from gentrain.running import footprint
from gentrain.running.footprint import BASE, CHECKPOINTS, STEP, check_room, foretell
from gentrain.store.removal import files_below
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_forest
from gentrain.study.loading import load_study
from gentrain.study.sections import DatasetConfig
from tests.conftest import SMALL
from tests.images import halves, write_tree


def foretold(study, at_once=1):
    forest = build_forest(study, data="d" * 64, num_classes=10)
    return foretell(study, forest, keys=forest.specs, manifest=None, at_once=at_once)


def chain(*options):
    return ["chain", *(part for setting in SMALL for part in ("--set", setting)), "--local", *map(str, options)]


def test_the_disk_is_foretold_as_it_will_be(small, tmp_path):
    runs, study, checkpoints = str(tmp_path), small("recipe.epochs=1", "recipe.milestones=[]"), []
    store = RunStore(runs)
    before = api.plan(study, runs=runs).footprint

    def look(_event):
        checkpoints.extend(f.bytes for f in files_below(store.root / "generations") if "/train/epoch-" in f.name)

    api.run(study, runs=runs, local=True, observe=look)
    written = sum(file.bytes for file in files_below(store.root / "generations"))
    assert written == pytest.approx(before.generations, rel=0.2)
    assert max(checkpoints) == pytest.approx(before.checkpoints / CHECKPOINTS, rel=0.2)
    assert (api.plan(study, runs=runs).footprint.disk, api.plan(study, runs=runs).footprint.worker) == (0, 0)


def test_images_that_are_stored_smaller_count_as_they_will_be(tmp_path):
    write_tree(tmp_path / "tree", halves(), sizes=[(300, 200), (301, 211)])
    config = DatasetConfig(source="imagefolder", path=str(tmp_path / "tree"), storage="jpeg", max_side=64)
    before = expected_images(config, None).bytes / 2
    assert before <= 72 * 64 * 64 / 2 < sum(file.stat().st_size for file in (tmp_path / "tree").rglob("*.jpg"))
    assert sum(info.bytes for info in prepare(config, tmp_path / "data").manifest.splits.values()) < 2 * before


@pytest.mark.parametrize("storage", ["raw", "jpeg"])
def test_a_dataset_is_foretold_by_its_files(tmp_path, storage):
    write_tree(tmp_path / "tree", halves())
    config = DatasetConfig(source="imagefolder", path=str(tmp_path / "tree"), image_size=48, storage=storage)
    before = expected_images(config, None)
    data = prepare(config, tmp_path / "data")
    after = expected_images(config, data.manifest)
    assert (before.classes, before.predicted, before.height) == (after.classes, after.predicted, after.height)
    assert after.bytes == 0
    written = sum(info.bytes for info in data.manifest.splits.values())
    if storage == "raw":
        assert before.bytes == pytest.approx(written, rel=0.4)  # so small a file is mostly the ends of its pages
    else:
        assert written / 3 < before.bytes / 2 < written * 1.2


def test_memory_follows_the_formula():
    text = ["recipe.batch_size=128", "precision=fp32", "generations=2", "dataset.source=cifar10"]
    alone = foretold(load_study(overrides=["network.name=resnet20", *text]))
    halved = foretold(load_study(overrides=["network.name=resnet20", *text, "workers=2"]))
    lower = foretold(load_study(overrides=["network.name=resnet20", *text, "precision=bf16"]))
    kept = 1514.9 * 32 * 32
    assert alone.worker == pytest.approx(BASE + 4 * 1_078_888 + 128 * kept * STEP["fp32"], rel=0.001)
    assert alone.worker - halved.worker == pytest.approx(64 * kept * STEP["fp32"], rel=0.001)
    assert alone.worker - lower.worker == pytest.approx(128 * kept * (STEP["fp32"] - STEP["bf16"]), rel=0.001)


def test_checkpoints_count_for_each_training_at_once_and_what_the_optimiser_keeps(small):
    one = foretold(small())
    assert foretold(small(), at_once=2).checkpoints == 2 * one.checkpoints
    adamw = foretold(small("recipe.optimizer=adamw", "recipe.nesterov=false"))
    average = foretold(small("recipe.ema={decay: 0.9}"))
    assert one.checkpoints < average.checkpoints
    teacher = foretold(small("recipe.ema={decay: 0.9, role: teacher}"))
    assert average.generations == one.generations < teacher.generations
    assert adamw.checkpoints == pytest.approx(one.checkpoints * 3 / 2, rel=0.02)


def test_what_isnt_known_is_none_and_not_refused(small, tmp_path):
    assert foretold(small("dataset.source=imagefolder", "dataset.path=/nowhere")) is None
    check_room(None, small(), store=RunStore(str(tmp_path)), here=True)


@pytest.mark.parametrize(
    ("what", "line"),
    [
        (
            "free_disk",
            r"small needs 2\.\d\d MB of disk, 1\.00 MB are free; free some, choose another folder with --runs",
        ),
        ("free_memory", r"small: 1 worker of 1\.05 GB of memory, 1\.00 MB are free; lower recipe.batch_size, close"),
    ],
)
def test_a_study_that_doesnt_fit_is_refused_before_it_starts(tmp_path, capsys, monkeypatch, what, line):
    monkeypatch.setattr(footprint, what, lambda *_: 1_000_000)
    short = ("--runs", tmp_path, "--set", "recipe.epochs=1", "--set", "recipe.milestones=[]", "-q")
    assert run(chain(*short)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(line, err)
    assert "or start nevertheless with --force" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "generations").exists()
    assert run(chain(*short, "--force")) == 0
    assert run(chain(*short)) == 0  # there is nothing left to train


def test_an_object_store_and_another_machine_are_not_held_against_this_one(small, monkeypatch):
    monkeypatch.setattr(footprint, "free_disk", lambda _: 0)
    monkeypatch.setattr(footprint, "free_memory", lambda: 0)

    class Elsewhere:
        local = False

    check_room(foretold(small()), small(), store=Elsewhere(), here=False)
