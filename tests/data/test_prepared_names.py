"""Prepared datasets of earlier versions are used again: names and fingerprints are pinned, as keys depend on them.

The values were computed before this test was written. When one changes, the change is wrong, not the test.
"""

import base64
import os

import pytest

from gentrain.data.prepare.dataset import prepare, prepared_name
from gentrain.study.loading import load_study

JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeXBk"
    "eFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2P/wAARCAAIAAgD"
    "ASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAX/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/8QAFQEBAQAAAAAAAAAAAAAAAAAAAwb/xAAUEQEA"
    "AAAAAAAAAAAAAAAAAAAA/9oADAMBAAIRAxEAPwCSABTv/9k="
)
"""8×8 pixels of one colour."""


@pytest.fixture
def tree(tmp_path):
    """Two classes of two training images and a test image, whose files' sizes and times are always the same."""
    for number, name in enumerate(["train/a/0", "train/a/1", "train/b/0", "train/b/1", "val/a/0", "val/b/0"]):
        file = tmp_path / "tree" / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(JPEG + bytes(number))
        os.utime(file, ns=(10**18, 10**18 + number))
    return tmp_path / "tree"


def dataset(source, *settings):
    return load_study(overrides=[f"dataset.source={source}", *(f"dataset.{setting}" for setting in settings)]).dataset


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ([], "digits-c5ca72482cf1"),
        (["limit=3", "validation=0.1"], "digits-ae44ca3b0b82"),
    ],
)
def test_names_of_raw_datasets_without_files(settings, name):
    assert prepared_name(dataset("digits", *settings)) == name


def test_names_and_fingerprints_of_raw_and_jpeg_datasets_with_files(tree, tmp_path):
    raw = dataset("imagefolder", f"path={tree}", "image_size=8")
    jpeg = raw.model_copy(update={"storage": "jpeg", "max_side": 64})
    prepared = [prepare(config, tmp_path / "data") for config in (raw, jpeg)]
    assert [one.folder.name for one in prepared] == [
        "imagefolder-03094e623520",
        "imagefolder-2d2093eb94c8",
    ]
    assert [one.manifest.fingerprint[:16] for one in prepared] == ["35ee9a6618b48724", "feda9439bdf8f433"]
    assert [sorted(path.name for path in one.folder.iterdir()) for one in prepared] == [
        ["manifest.json", "test.beton", "train.beton"]
    ] * 2


def test_the_fingerprint_of_the_digits(tmp_path):
    manifest = prepare(dataset("digits", "limit=3"), tmp_path).manifest
    assert manifest.fingerprint[:16] == "263c5c0ac1814550"
