import errno
import json
import os

import numpy as np
import pytest

from gentrain.data.loading.loader import Loader
from gentrain.data.prepare import dataset as module
from gentrain.data.prepare.dataset import load_prepared, prepare, prepared_name
from gentrain.errors import DataError, ResourceError
from gentrain.study.loading import load_study
from gentrain.study.sections import DatasetConfig


def config(*overrides):
    return load_study(overrides=["dataset.source=digits", *overrides]).dataset


@pytest.fixture
def small(tmp_path):
    return prepare(config("dataset.limit=3"), tmp_path)


def test_the_manifest_describes_the_pixels(tmp_path):
    found = prepare(config(), tmp_path)
    manifest = found.manifest
    for split, count in (("train", 1438), ("test", 359)):
        assert manifest.splits[split].count == sum(manifest.splits[split].per_class) == count
    loader = Loader(found.split_path("train"), batch_size=500, shuffle=False)
    stacked = np.concatenate([batch.images.numpy() for batch in loader.epoch(0)]) / 255
    assert manifest.mean == pytest.approx(stacked.mean(axis=(0, 2, 3)))
    assert manifest.std == pytest.approx(stacked.std(axis=(0, 2, 3)))
    assert (manifest.height, manifest.width, manifest.classes) == (8, 8, tuple("0123456789"))
    assert manifest.duplicates.across == {"train/test": 0}


def test_it_is_compiled_once(tmp_path):
    told = []
    one = prepare(config("dataset.limit=3"), tmp_path, notify=told.append)
    stamp = one.split_path("train").stat().st_mtime_ns
    assert told
    told.clear()
    assert prepare(config("dataset.limit=3"), tmp_path, notify=told.append) == one
    assert told == []
    assert one.split_path("train").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("name", ["train.beton", "test.beton", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_found_told_and_rebuilt_to_the_same_bytes(small, tmp_path, name, damage):
    path = small.folder / name
    sound = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        middle = len(sound) // 2
        path.write_bytes(sound[:middle] + (b"" if damage == "truncate" else b"\xff\x00" + sound[middle + 2 :]))
    if damage != "flip" or name != "manifest.json":
        with pytest.raises(DataError, match="damaged"):
            load_prepared(small.folder)
    told = []
    assert prepare(config("dataset.limit=3"), tmp_path, notify=told.append) == small
    assert path.read_bytes() == sound
    assert "it is rebuilt" in told[0]
    assert name in told[0]
    assert [p.name for p in tmp_path.iterdir()] == [small.folder.name]


def test_settings_make_sets_of_their_own(tmp_path):
    one, other = prepare(config("dataset.limit=3"), tmp_path), prepare(config("dataset.limit=4"), tmp_path)
    assert one.folder != other.folder
    assert one.manifest.fingerprint != other.manifest.fingerprint
    assert sum(other.manifest.splits["train"].per_class) == 40


def test_validation_is_a_stratified_part_of_training(tmp_path):
    whole, part = prepare(config(), tmp_path), prepare(config("dataset.validation=0.1"), tmp_path)
    counts = {name: np.array(info.per_class) for name, info in part.manifest.splits.items()}
    before = np.array(whole.manifest.splits["train"].per_class)
    assert (counts["train"] + counts["validation"] == before).all()
    assert (np.abs(counts["validation"] - 0.1 * before) <= 0.5 + 1e-9).all()
    assert part.manifest.splits["test"].sha256 == whole.manifest.splits["test"].sha256
    assert part.manifest.duplicates.across["train/validation"] == 0


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_build", full)
    with pytest.raises(ResourceError, match=r"No space left on device.*; free some space"):
        prepare(config("dataset.limit=3"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match=r"needs \d+ MB, 0 MB are free: the disk is full"):
        prepare(config("dataset.limit=3"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_preparation_left_is_swept(tmp_path):
    (tmp_path / ".building-999999999-abc").mkdir()
    prepare(config("dataset.limit=3"), tmp_path)
    assert not list(tmp_path.glob(".building-*"))


def test_a_record_of_another_version_is_refused(small):
    path = small.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unheard_of": 1}))
    with pytest.raises(DataError, match=r"manifest\.json: missing or damaged"):
        load_prepared(small.folder)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "cifar100-a6f7fd7fa9f0"),
        ({"source": "digits"}, "digits-c5ca72482cf1"),
        ({"source": "digits", "quality": 50}, "digits-c5ca72482cf1"),  # which raw storage doesn't use
        ({"source": "digits", "validation": 0.1, "limit": 5}, "digits-53f716266f74"),
        ({"source": "imagefolder"}, "imagefolder-0dd94627ea11"),
        ({"source": "imagefolder", "storage": "jpeg"}, "imagefolder-ec64ebf7cf2e"),
        (
            {"source": "imagefolder", "storage": "jpeg", "quality": 80, "max_side": 400, "image_size": 64},
            "imagefolder-3a4a220b8176",
        ),
    ],
)
def test_the_names_of_prepared_datasets_stay(settings, name):
    """A change of these compiles every dataset again: only with PREPARE_VERSION."""
    assert prepared_name(DatasetConfig(**settings)) == name
