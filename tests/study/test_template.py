"""The study that is written for a folder of images: valid, and with a recipe that fits their number and size."""

import os

import pytest

from gentrain.models.cost import check_fits, check_trains
from gentrain.study.loading import load_study
from gentrain.study.template import Images, study_name, study_text, suit


def images(count=600, classes=6, side=200, **more):
    each = tuple(count // classes + (number < count % classes) for number in range(classes))
    return Images(classes, each, test=max(1, count // 5), sides=(side // 2, side, side * 2), **more)


def written(tmp_path, *, name="photos", path="photos", **facts):
    file = tmp_path / "study.yaml"
    file.write_text(study_text(name, path, images(**facts), file="study.yaml", schema="study.schema.json"))
    return file


@pytest.mark.parametrize(
    ("count", "side", "expected"),
    [
        (300, 28, ("raw", 28, "resnet8", 100, 16)),
        (60_000, 32, ("raw", 32, "resnet20", 30, 128)),
        (1_000, 64, ("raw", 64, "resnet20", 60, 32)),
        (308, 300, ("jpeg", 64, "resnet20", 100, 16)),
        (10_000, 300, ("jpeg", 128, "resnet18", 40, 64)),
        (1_000_000, 400, ("jpeg", 224, "resnet18", 30, 128)),
        (1_000_000, 110, ("jpeg", 96, "resnet18", 30, 128)),
    ],
)
def test_a_recipe_suits_the_images(count, side, expected):
    recipe = suit(images(count=count, side=side))
    assert (recipe.storage, recipe.image_size, recipe.network, recipe.epochs, recipe.batch_size) == expected


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 100])
@pytest.mark.parametrize("side", [8, 97, 500])
def test_every_study_is_valid_whole_and_shrunk(tmp_path, classes, side, smoke):
    file = written(tmp_path, classes=classes, side=side, count=1000, test_part=0.2, broken=1)
    lines = []
    study = load_study(file, smoke=smoke, notify=lines.append)
    assert lines == []
    assert study.process.k == min(5, classes)
    assert study.dataset.path == str(tmp_path / "photos")
    assert (study.dataset.test, study.dataset.skip_broken) == (0.2, True)
    assert max(map(len, file.read_text().splitlines())) <= 120


@pytest.mark.parametrize("side", [8, 97, 130, 500])
@pytest.mark.parametrize("count", [17, 33, 2_001, 20_001])
def test_no_batch_is_a_single_image_and_the_network_takes_the_size(side, count):
    recipe = suit(images(count=count, classes=2, side=side))
    assert count % recipe.batch_size != 1
    check_fits(recipe.network, num_classes=2, height=recipe.image_size, width=recipe.image_size)
    rest = count % recipe.batch_size or recipe.batch_size
    check_trains(recipe.network, num_classes=2, height=recipe.image_size, width=recipe.image_size, images=rest)


@pytest.mark.parametrize(
    "path", ["../photos", ".", "my photos", "no", "1e3", "./~mine", "a: b", "# c", 'q"uote', "é/ü", "2024"]
)
def test_any_path_and_name_is_read_as_it_is(tmp_path, path):
    name = study_name(path)
    study = load_study(written(tmp_path, name=name, path=path))
    assert study.dataset.path == os.path.join(tmp_path, path)
    assert study.name == name
