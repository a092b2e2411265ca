"""What a person is shown of a folder of images before a study of it is written."""

import shutil

import numpy as np
import pytest
from PIL import Image

from gentrain.data.sources import survey
from gentrain.data.sources.survey import survey_folder
from gentrain.errors import DataError


def write(folder, count, *, side=(20, 12), seed=0):
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(random.integers(0, 256, (*side, 3), dtype=np.uint8)).save(folder / f"{i}.png")


@pytest.fixture
def flat(tmp_path):
    """Two classes of ten images and no test images."""
    for seed, name in enumerate("ab"):
        write(tmp_path / "tree" / name, 10, seed=seed)
    return tmp_path / "tree"


def whole(root, *, train=10, test=3):
    """Write two classes with training and test images."""
    for seed, name in enumerate("ab"):
        write(root / "train" / name, train, seed=seed)
        write(root / "test" / name, test, seed=seed + 10)
    return root


def test_a_flat_tree_is_split_by_a_fixed_seed(flat):
    seen = survey_folder(flat)
    assert (seen.classes, seen.test_part, seen.decoded, seen.sides) == (("a", "b"), 0.2, 20, (12, 12, 12))
    assert seen.counts == {"train": (8, 8), "test": (2, 2)}
    assert (seen.copies, seen.broken, seen.oddities) == (0, (), ())
    (flat / "train").mkdir()
    for name in "ab":
        (flat / name).rename(flat / "train" / name)
    assert survey_folder(flat) == seen  # train/ without test/ is the same


def test_a_tree_with_test_images_keeps_them(tmp_path):
    seen = survey_folder(whole(tmp_path))
    assert (seen.test_part, seen.counts) == (None, {"train": (10, 10), "test": (3, 3)})


def test_each_oddity_is_one_line(tmp_path):
    tree = whole(tmp_path)
    write(tree / "train" / "lone", 1, seed=9)
    (tree / "train" / "a" / "5.png").write_bytes(b"no image")
    (tree / "train" / "a" / "readme.txt").touch()
    shutil.copy(tree / "train" / "a" / "1.png", tree / "train" / "b" / "copy.png")
    shutil.copy(tree / "train" / "b" / "2.png", tree / "test" / "b" / "copy.png")
    seen = survey_folder(tree)
    assert seen.broken == ("train/a/5.png",)
    assert seen.counts["train"] == (9, 11, 1)
    assert seen.copies == 2
    assert seen.oddities == (
        "1 image can't be read: train/a/5.png; the study skips it",
        "files that are no images of it: 1 .txt",
        "2 images the same, byte for byte, as another; 1 of them tested on and trained on, so that the test error is "
        "too good; 1 of them in two classes",
        "one training image only: lone",
        "imbalanced: 11 training images of b, 1 of lone; errors say little of lone",
        "no test image: lone",
    )


def test_of_very_many_images_some_are_decoded_and_a_line_says_so(flat, monkeypatch):
    monkeypatch.setattr(survey, "MOST_DECODED", 5)
    seen = survey_folder(flat)
    assert seen.decoded == 5
    assert seen.oddities == ("5 of 20 images were decoded; the others may hold more that can't be read",)


def empty(tree):
    shutil.rmtree(tree)
    tree.mkdir()


def pictures_only(tree):
    shutil.rmtree(tree)
    write(tree, 3)


def stray(tree):
    shutil.copy(tree / "a" / "0.png", tree / "stray.png")


def one_class(tree):
    shutil.rmtree(tree / "b")


def empty_class(tree):
    (tree / "c").mkdir()


def single(tree):
    write(tree / "c", 1)


def unreadable(tree):
    for file in tree.rglob("*.png"):
        file.write_bytes(b"no image")


def unreadable_class(tree):
    for file in (tree / "b").iterdir():
        file.write_bytes(b"no image")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (shutil.rmtree, "tree: no such folder; give the one with a folder of images for each class"),
        (empty, "no class folders in it; put the images of each class into a folder named like it"),
        (pictures_only, "no class folders in it; put the images"),
        (stray, "stray.png: an image beside the class folders; move it into one, or delete it"),
        (one_class, "tree: 1 class folder in it; a classifier needs at least 2"),
        (empty_class, "c: no JPEG, PNG or WebP image in it"),
        (single, "one image only in c, so none is left to test on; add images, or move the folder away"),
        (unreadable, "none of its images can be read (cannot identify image file"),
        (unreadable_class, "class b has no training image that can be read; repair or add some"),
    ],
)
def test_what_no_study_can_be_made_of_is_refused_in_one_line(flat, change, line):
    change(flat)
    with pytest.raises(DataError) as error:
        survey_folder(flat)
    assert line in str(error.value)
    assert "\n" not in str(error.value)
