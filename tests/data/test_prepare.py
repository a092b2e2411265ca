import errno
import json
import os

import numpy as np
import pytest

from gentrain.data.loading.loader import Loader
from gentrain.data.prepare import dataset as module
from gentrain.data.prepare.dataset import (
    Damage,
    find_manifest,
    find_prepared,
    load_prepared,
    prepare,
    verify,
)
from gentrain.errors import DataError, ResourceError
from gentrain.study.loading import load_study
from tests.prepared import left_in, without_digest


def config(*overrides):
    return load_study(overrides=["dataset.source=digits", *overrides]).dataset


@pytest.fixture
def small(tmp_path):
    return prepare(config("dataset.limit=3"), tmp_path)


def test_the_manifest_describes_the_pixels(tmp_path):
    data = prepare(config(), tmp_path)
    manifest = data.manifest
    for split, count in (("train", 1438), ("test", 359)):
        assert manifest.splits[split].count == sum(manifest.splits[split].per_class) == count
    loader = Loader(data.split_path("train"), batch_size=500, shuffle=False)
    stacked = np.concatenate([batch.images.numpy() for batch in loader.epoch(0)]) / 255
    assert manifest.mean == pytest.approx(stacked.mean(axis=(0, 2, 3)))
    assert manifest.std == pytest.approx(stacked.std(axis=(0, 2, 3)))
    assert (manifest.height, manifest.width, manifest.classes) == (8, 8, tuple("0123456789"))
    assert manifest.duplicates.across == {"train/test": 0}


def test_it_is_compiled_once(tmp_path):
    messages = []
    one = prepare(config("dataset.limit=3"), tmp_path, notify=messages.append)
    stamp = one.split_path("train").stat().st_mtime_ns
    assert messages
    messages.clear()
    assert prepare(config("dataset.limit=3"), tmp_path, notify=messages.append) == one
    assert messages == []
    assert one.split_path("train").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("name", ["train.beton", "test.beton", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_reported_and_rebuilt_to_the_same_bytes(small, tmp_path, name, damage):
    path = small.folder / name
    valid = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        middle = len(valid) // 2
        path.write_bytes(valid[:middle] + (b"" if damage == "truncate" else b"\xff\x00" + valid[middle + 2 :]))
    if damage != "flip" or name != "manifest.json":
        with pytest.raises(DataError, match="damaged"):
            load_prepared(small.folder)
    messages = []
    assert prepare(config("dataset.limit=3"), tmp_path, notify=messages.append) == small
    assert path.read_bytes() == valid
    assert "it is rebuilt" in messages[0]
    assert name in messages[0]
    assert left_in(tmp_path) == [small.folder.name]


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
    assert left_in(tmp_path) == []


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match=r"needs \d+ MB, 0 MB are free: the disk is full"):
        prepare(config("dataset.limit=3"), tmp_path)
    assert left_in(tmp_path) == []


def test_what_a_killed_preparation_left_is_swept(tmp_path):
    (tmp_path / ".building-999999999-abc").mkdir()
    prepare(config("dataset.limit=3"), tmp_path)
    assert not list(tmp_path.glob(".building-*"))


def test_a_record_of_another_version_is_refused(small):
    path = small.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unheard_of": 1}))
    with pytest.raises(DataError, match=r"manifest\.json: missing or damaged"):
        load_prepared(small.folder)


def test_a_dataset_that_is_not_there_or_damaged_is_a_value_not_an_error(small, tmp_path):
    dataset = config("dataset.limit=3")
    assert find_manifest(dataset, tmp_path) == small.manifest
    assert find_prepared(small.manifest.fingerprint, tmp_path) == small.folder
    assert verify(small.folder) == small
    small.split_path("test").unlink()
    assert find_manifest(dataset, tmp_path) == small.manifest  # the manifest alone is looked at
    assert verify(small.folder) == Damage(f"{small.split_path('test')}: damaged (checksum differs)")
    (small.folder / "manifest.json").write_text("{}")
    assert verify(small.folder) == Damage(f"{small.folder / 'manifest.json'}: missing or damaged")
    assert find_manifest(dataset, tmp_path) is None
    assert find_prepared(small.manifest.fingerprint, tmp_path) is None
    assert find_manifest(dataset.model_copy(update={"path": str(tmp_path / "nowhere")}), tmp_path) is None


def test_a_manifest_without_digest_gets_one_where_its_images_agree(small, tmp_path):
    sound = (small.folder / "manifest.json").read_bytes()
    without_digest(small.folder)
    messages = []
    assert prepare(config("dataset.limit=3"), tmp_path, notify=messages.append) == small
    assert (small.folder / "manifest.json").read_bytes() == sound
    assert [message.partition(": ")[2] for message in messages] == ["of an earlier version; it has a digest now"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"mean": [0.3, 0.31, 0.31]}, "mean 0.3000"),
        ({"std": [0.3, 0.31, 0.31]}, "std 0.3000"),
        ({"classes": list("0123456798")}, "fingerprint"),
        ({"fingerprint": "0" * 64}, "fingerprint"),
    ],
)
def test_a_manifest_without_digest_that_its_images_contradict_is_rebuilt(small, tmp_path, changes, problem):
    """Also where the digest was deleted with the change: what has none is compared with the images."""
    without_digest(small.folder, **changes)
    messages = []
    assert prepare(config("dataset.limit=3"), tmp_path, notify=messages.append) == small
    assert f"manifest.json: was altered: {problem}" in messages[0]
    assert "it is rebuilt" in messages[0]
    assert prepare(config("dataset.limit=3"), tmp_path, notify=pytest.fail) == small
