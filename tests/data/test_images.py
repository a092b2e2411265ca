"""Real photographs of mixed sizes, through FFCV's JPEG storage: prepared in shards, cut while they are read."""

import gc
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from gentrain import api
from gentrain.cli import run
from gentrain.data.loading.augment import distort, random_unit
from gentrain.data.loading.crops import crop_box
from gentrain.data.loading.loader import Loader
from gentrain.data.prepare.dataset import load_prepared, prepare, prepared_name
from gentrain.data.sources.folders import encode_image, list_images
from gentrain.errors import ConfigError, DataError
from gentrain.study.loading import load_study
from gentrain.study.sections import DatasetConfig
from tests.images import photographs, write_tree
from tests.prepared import left_in, without_digest


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Pieces of three photographs, of many shapes: 8 to train and 4 to test a class."""
    return write_tree(tmp_path_factory.mktemp("images"), photographs())


def config(tree, **settings):
    return DatasetConfig(source="imagefolder", path=str(tree), storage="jpeg", image_size=32, **settings)


@pytest.fixture(scope="session")
def prepared(tree, tmp_path_factory):
    return prepare(config(tree, max_side=160), tmp_path_factory.mktemp("data"))


def study(tree, *more):
    return load_study(
        overrides=["name=images", "dataset.source=imagefolder", f"dataset.path={tree}", "dataset.storage=jpeg",
                   "dataset.image_size=32", "recipe.images={}", "recipe.padding=0", "recipe.epochs=2",
                   "recipe.milestones=[]", "recipe.batch_size=8", "process.k=3", "network.name=resnet8",
                   "generations=1", "device=cpu", "precision=fp32", "cpus_per_worker=1", *more]
    )  # fmt: skip


def loader(prepared, *, seed=1, rank=0, world_size=1, threads=1, batch_size=6, shuffle=True):
    return Loader(
        prepared.split_path("train"), batch_size=batch_size, rank=rank, world_size=world_size, seed=seed,
        threads=threads, shuffle=shuffle, images=study("x").recipe.images, size=32,
    )  # fmt: skip


def by_index(*loaders, epoch=0):
    return {
        int(i): image for one in loaders for b in one.epoch(epoch) for i, image in zip(b.indices, b.images, strict=True)
    }


def test_the_manifest_describes_the_images(prepared):
    manifest = prepared.manifest
    assert (manifest.storage, manifest.height, manifest.width) == ("jpeg", 32, 32)
    assert manifest.classes == ("china", "flower", "hopper")
    assert {name: info.per_class for name, info in manifest.splits.items()} == {
        "train": (8, 8, 8), "test": (4, 4, 4),
    }  # fmt: skip
    assert all(0.2 < m < 0.8 and 0.05 < s < 0.5 for m, s in zip(manifest.mean, manifest.std, strict=True))


def test_the_middle_is_what_a_careful_reader_cuts(prepared, tree):
    middles = by_index(loader(prepared, shuffle=False))
    listed, _ = list_images(tree)
    for index, file in enumerate(listed["train"].files):
        with Image.open(file) as opened:
            image = opened.copy()
        side = int(0.875 * min(image.size))
        left, top = (image.width - side) // 2, (image.height - side) // 2
        if max(image.size) > 160:
            continue  # was shrunk before
        middle = np.asarray(image.crop((left, top, left + side, top + side)))
        wanted = cv2.resize(middle, (32, 32), interpolation=cv2.INTER_AREA)
        difference = np.abs(middles[index].permute(1, 2, 0).numpy().astype(int) - wanted.astype(int))
        assert difference.mean() < 3, file


def test_random_crops_are_functions_of_seed_epoch_and_sample(prepared):
    one = by_index(loader(prepared))
    others = by_index(*(loader(prepared, rank=rank, world_size=3, threads=2) for rank in range(3)))
    assert one.keys() == others.keys() == set(range(24))
    assert all(one[i].equal(others[i]) for i in one)
    for other in (by_index(loader(prepared, seed=2)), by_index(loader(prepared), epoch=1)):
        assert sum(not one[i].equal(other[i]) for i in one) > 20
    reader = loader(prepared)
    by_index(reader, epoch=0)
    again, fresh = by_index(reader, epoch=5), by_index(loader(prepared), epoch=5)
    assert all(again[i].equal(fresh[i]) for i in fresh)


def test_a_process_compiles_once_for_all_its_generations(prepared, monkeypatch):
    def generation(seed):
        images = by_index(loader(prepared, seed=seed)), by_index(loader(prepared, shuffle=False))
        gc.collect()
        return images

    one, middle = generation(1)
    monkeypatch.setattr("numba.njit", None)
    (other, again), once_more = generation(2), generation(1)
    assert any(not torch.equal(one[i], other[i]) for i in one)
    assert all(torch.equal(one[i], once_more[0][i]) and torch.equal(middle[i], again[i]) for i in one)


def test_two_that_are_read_at_once_keep_their_own_seeds(prepared):
    apart = [by_index(loader(prepared, seed=seed)) for seed in (1, 2)]
    pair = [loader(prepared, seed=seed) for seed in (1, 2)]
    both = zip(*(one.epoch(0) for one in pair), strict=True)
    for batches in both:
        for batch, alone in zip(batches, apart, strict=True):
            assert all(torch.equal(image, alone[int(i)]) for i, image in zip(batch.indices, batch.images, strict=True))


def test_crop_boxes_have_the_areas_and_shapes_that_were_asked_for():
    scale, ratio = np.array([0.08, 1.0]), np.array([0.75, 4 / 3])
    boxes = np.array([crop_box(300, 400, scale, ratio, np.uint64(i), np.uint64(99)) for i in range(4000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 300).all()
    assert (left + width <= 400).all()
    area, aspect = height * width / (300 * 400), width / height
    assert area.min() > 0.075
    assert area.mean() == pytest.approx(0.45, abs=0.05)  # large areas fit less often
    assert 0.72 < aspect.min() < aspect.max() < 1.37
    assert len(np.unique(boxes, axis=0)) > 3900
    assert crop_box(10, 1000, scale, np.array([0.9, 1.1]), np.uint64(0), np.uint64(0))[2:] == (10, 11)


def test_distortion_depends_on_the_sample_alone_and_keeps_what_it_should():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    indices = torch.arange(6)
    settings = {"seed": 3, "epoch": 2, "flip": True, "rotation": 10.0, "jitter": 0.4}
    whole = distort(images, indices, **settings)
    assert whole.dtype == torch.uint8
    for i in range(6):
        assert distort(images[i : i + 1], indices[i : i + 1], **settings).equal(whole[i : i + 1])
    assert not distort(images, indices, **settings | {"epoch": 3}).equal(whole)
    still = {"seed": 3, "epoch": 2, "flip": False, "rotation": 0.0, "jitter": 0.0}
    assert distort(images, indices, **still).equal(images)
    mirrored = distort(images, indices, **still | {"flip": True})
    assert all(m.equal(i) or m.equal(i.flip(2)) for m, i in zip(mirrored, images, strict=True))
    assert 0 < sum(m.equal(i) for m, i in zip(mirrored, images, strict=True)) < 6
    grey = torch.full((4, 3, 8, 8), 100, dtype=torch.uint8)
    turned = distort(grey, torch.arange(4), **still | {"rotation": 45.0})
    assert (turned[:, :, 3:5, 3:5] == 100).all()
    assert (turned == 0).any()  # black corners
    jittered = distort(grey, torch.arange(4), **still | {"jitter": 0.4}).float()
    assert (jittered.amax((1, 2, 3)) - jittered.amin((1, 2, 3))).max() <= 1  # grey stays grey
    assert 60 <= jittered.min() <= jittered.max() <= 140


def test_draws_are_even():
    draws = random_unit(torch.arange(20_000), seed=1, epoch=0, draw=0)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert draws.mean().item() == pytest.approx(0.5, abs=0.01)
    other = random_unit(torch.arange(20_000), seed=1, epoch=0, draw=1)
    assert abs(torch.corrcoef(torch.stack([draws, other]))[0, 1]) < 0.03


def test_a_jpeg_keeps_its_own_bytes_and_others_are_encoded(tree, tmp_path):
    file = tree / "train" / "china" / "1.jpg"
    assert encode_image(file, max_side=500, quality=50).jpeg == file.read_bytes()
    shrunk = encode_image(tree / "train" / "china" / "7.jpg", max_side=100, quality=90)
    assert (shrunk.width, shrunk.height) == (100, 16)
    for mode in ("L", "CMYK"):
        with Image.open(file) as opened:
            opened.convert(mode).save(tmp_path / f"{mode}.jpg")
        encoded = encode_image(tmp_path / f"{mode}.jpg", max_side=500, quality=90)
        assert encoded.histogram.sum() == 3 * encoded.height * encoded.width
    with Image.open(tree / "train" / "china" / "0.jpg") as opened:
        exif = opened.getexif()
        exif[0x0112] = 6
        opened.save(tmp_path / "rotated.jpg", exif=exif)
    encoded = encode_image(tmp_path / "rotated.jpg", max_side=500, quality=90)
    assert (encoded.height, encoded.width) == (90, 60)


def test_a_killed_preparation_goes_on_with_its_shards(tree, tmp_path, monkeypatch):
    from gentrain.data.prepare import shards

    monkeypatch.setattr(shards, "SHARD_IMAGES", 5)
    reference = prepare(config(tree), tmp_path / "reference")
    calls = []
    original = shards.encode_image

    def dies(file, **settings):
        calls.append(file)
        if len(calls) > 13:
            raise KeyboardInterrupt
        return original(file, **settings)

    monkeypatch.setattr(shards, "encode_image", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(config(tree), tmp_path / "data")
    left = list((tmp_path / "data").glob(".shards-*/train-*.parquet"))
    assert len(left) == 2
    left[1].write_bytes(left[1].read_bytes()[:100])  # half a shard is no shard
    calls.clear()
    monkeypatch.setattr(shards, "encode_image", lambda file, **s: calls.append(file) or original(file, **s))
    resumed = prepare(config(tree), tmp_path / "data")
    assert len(calls) == 24 + 12 - 5
    assert resumed.manifest == reference.manifest
    assert left_in(tmp_path / "data") == [resumed.folder.name]
    assert load_prepared(resumed.folder).manifest == reference.manifest


def test_a_jpeg_manifest_without_digest_is_compared_with_its_images(tree, tmp_path):
    data = prepare(config(tree), tmp_path)
    messages = []
    without_digest(data.folder)
    assert prepare(config(tree), tmp_path, notify=messages.append) == data
    assert [message.partition(": ")[2] for message in messages] == ["of an earlier version; it has a digest now"]
    mean = data.manifest.mean
    for changes in ({"mean": [mean[0] + 0.05, *mean[1:]]}, {"classes": ["x", "y", "z"]}, {"height": 40, "width": 40}):
        without_digest(data.folder, **changes)
        assert prepare(config(tree), tmp_path, notify=messages.append) == data
        assert sum("was altered" in message for message in messages) == 1
        messages.clear()


def test_a_broken_image_is_named_or_skipped(tree, tmp_path):
    import shutil

    copy = tmp_path / "tree"
    shutil.copytree(tree, copy)
    broken = copy / "train" / "flower" / "2.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match=r"2\.jpg: broken image"):
        prepare(config(copy), tmp_path / "data")
    manifest = prepare(config(copy, skip_broken=True), tmp_path / "data").manifest
    assert manifest.skipped == (str(broken),)
    assert manifest.splits["train"].per_class == (8, 7, 8)


def test_prepare_takes_a_source_and_its_options(tree, tmp_path, capsys):
    command = ["prepare", "imagefolder", "--data", str(tree), "--runs", str(tmp_path), "--json"]
    assert run([*command, "--size", "48", "--max-side", "100", "--quality", "70"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["storage"], summary["height"], summary["classes"]) == ("jpeg", 48, ["china", "flower", "hopper"])
    study_of_it = study(tree, "dataset.image_size=48", "dataset.max_side=100", "dataset.quality=70")
    assert prepared_name(study_of_it.dataset) == Path(summary["folder"]).name
    assert run([*command, "--smoke"]) == 2
    assert "--smoke: the study has no section `smoke`" in capsys.readouterr().err


def test_filters_and_held_out_parts_apply(tree, tmp_path):
    manifest = prepare(config(tree, classes=("hopper", "china"), limit=6, validation=0.34), tmp_path).manifest
    assert manifest.classes == ("hopper", "china")
    counts = {name: split.per_class for name, split in manifest.splits.items()}
    assert counts == {"train": (4, 4), "validation": (2, 2), "test": (4, 4)}


def test_the_official_validation_layout(tree, tmp_path):
    import shutil

    from scipy.io import savemat

    shutil.copytree(tree / "train", tmp_path / "train")
    (tmp_path / "val").mkdir()
    names = ["flower", "china", "hopper", "china"]
    for i, name in enumerate(names):
        shutil.copy(tree / "val" / name / f"{i}.jpg", tmp_path / "val" / f"ILSVRC2012_val_{i + 1:08d}.JPEG")
    with pytest.raises(DataError, match=r"images without folders by class; put LOC_val_solution\.csv"):
        list_images(tmp_path)
    rows = [f"ILSVRC2012_val_{i + 1:08d},{name} 1 2 3 4 {name} 5 6 7 8" for i, name in enumerate(names)]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]))
    assert list_images(tmp_path)[0]["test"].labels.tolist() == [1, 0, 2, 0]
    (tmp_path / "LOC_val_solution.csv").unlink()
    devkit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    devkit.mkdir(parents=True)
    synsets = np.array([(1, "hopper"), (2, "china"), (3, "flower")], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    savemat(devkit / "meta.mat", {"synsets": synsets})
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("3\n2\n1\n2\n")
    assert list_images(tmp_path)[0]["test"].labels.tolist() == [1, 0, 2, 0]
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("3\n2\n")
    with pytest.raises(DataError, match="2 classes for 4 images"):
        list_images(tmp_path)


def test_a_chain_trains_on_photographs_twice_to_the_same_bits(tree, tmp_path):
    runs = [tmp_path / "one", tmp_path / "other"]
    rows = [api.run(study(tree), runs=str(run), observe=lambda _: None, local=True) for run in runs]
    assert [row["key"] for row in rows[0]] == [row["key"] for row in rows[1]]
    for row in rows[0]:
        one, other = ((run / "generations" / row["key"] / "model.safetensors").read_bytes() for run in runs)
        assert one == other


@pytest.mark.parametrize(
    ("settings", "message"),
    [(["dataset.source=cifar10", "recipe.images={}"], "`storage: jpeg` is for source imagefolder"),
     (["recipe.images=null"], "go together"), (["recipe.padding=4"], "`recipe.padding` .4. is for small images"),
     (["recipe.images={scale: [1, 0.5]}"], "`scale` must rise")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        study("x", *settings)
