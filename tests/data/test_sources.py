"""Every source on files of its own format; the real CIFAR-100 where GENTRAIN_CIFAR100 says it is."""

import gzip
import io
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gentrain.data.prepare.dataset import prepare
from gentrain.data.sources.registry import load_source
from gentrain.errors import DataError
from gentrain.study.loading import load_study

RNG = np.random.default_rng(0)


def config(source, path=None, *overrides):
    settings = [f"dataset.source={source}", *overrides]
    return load_study(overrides=settings, dataset__path=None if path is None else str(path)).dataset


def noise(side=8):
    return RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


# CIFAR


def write_parquet(folder, name, images, fine, coarse=None):
    columns = {"img": [{"bytes": png(i), "path": None} for i in images], "fine_label" if coarse else "label": fine}
    if coarse:
        columns["coarse_label"] = coarse
    pq.write_table(pa.table(columns), folder / f"{name}-00000-of-00001.parquet")


def test_cifar10_parquet(tmp_path):
    images = [noise(32) for _ in range(6)]
    write_parquet(tmp_path, "train", images[:4], [0, 1, 0, 1])
    write_parquet(tmp_path, "test", images[4:], [1, 0])
    data = load_source(config("cifar10", tmp_path))
    np.testing.assert_array_equal(data.splits["train"].images, images[:4])
    assert data.splits["test"].labels.tolist() == [1, 0]
    assert data.groups is None


def test_a_damaged_parquet_is_named(tmp_path):
    write_parquet(tmp_path, "train", [noise(32)], [0])
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(b"PAR1 rubbish")
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet: not CIFAR as Parquet, or damaged"):
        load_source(config("cifar10", tmp_path))


def test_cifar_without_test_file_is_refused(tmp_path):
    write_parquet(tmp_path, "train", [noise(32)], [0])
    with pytest.raises(DataError, match=r"no test-\*\.parquet"):
        load_source(config("cifar10", tmp_path))


def test_torchvisions_files(tmp_path, monkeypatch):
    """The extracted folder as torchvision lays it out; its checksums are of the real files, so they are set aside."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    images = {name: np.stack([noise(32) for _ in range(2)]) for name, _ in CIFAR10.train_list + CIFAR10.test_list}
    for name, pixels in images.items():
        rows = pixels.transpose(0, 3, 1, 2).reshape(2, -1)
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": [0, 1]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = load_source(config("cifar10", tmp_path, "dataset.classes=[a, b]"))
    assert len(data.splits["train"].labels) == 10
    np.testing.assert_array_equal(data.splits["test"].images, images["test_batch"])


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"neither Parquet files .* nor torchvision's cifar-100-python in it"):
        load_source(config("cifar100", tmp_path))
    with pytest.raises(DataError, match=r"dataset\.path: .*nowhere: no such folder"):
        load_source(config("cifar100", tmp_path / "nowhere"))


def test_the_real_cifar100_keeps_its_groups(cifar100, tmp_path):
    data = prepare(config("cifar100", cifar100, "dataset.groups=[fish, flowers]", "dataset.limit=30"), tmp_path)
    manifest = data.manifest
    assert manifest.groups == ("fish", "flowers")
    assert len(manifest.classes) == 10
    assert {manifest.groups[manifest.class_groups[manifest.classes.index(c)]] for c in ("shark", "trout")} == {"fish"}
    assert manifest.groups[manifest.class_groups[manifest.classes.index("tulip")]] == "flowers"
    assert set(manifest.splits["train"].per_class) == set(manifest.splits["test"].per_class) == {30}


def test_the_real_cifar100_is_whole(cifar100):
    data = load_source(config("cifar100", cifar100))
    assert data.splits["train"].images.shape == (50_000, 32, 32, 3)
    assert data.splits["test"].images.shape == (10_000, 32, 32, 3)
    assert np.bincount(data.splits["train"].labels).tolist() == [500] * 100
    assert np.bincount(data.class_groups).tolist() == [5] * 20
    assert data.classes[0] == "apple"
    assert data.groups[data.class_groups[0]] == "fruit_and_vegetables"
    mean = data.splits["train"].images.mean(axis=(0, 1, 2)) / 255
    assert mean == pytest.approx([0.5071, 0.4865, 0.4409], abs=1e-4)  # the published statistics


def test_filters_are_checked(cifar100):
    with pytest.raises(DataError, match=r"dataset\.groups: 'fishes' is not in this source; did you mean fish"):
        load_source(config("cifar100", cifar100, "dataset.groups=[fishes]"))


# Fashion-MNIST


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("layout", ["debian", "torchvision"])
def test_fashion_mnist(tmp_path, layout):
    folder = tmp_path if layout == "debian" else tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = RNG.integers(0, 256, (20, 28, 28)), np.tile(np.arange(10), 2)
    for prefix in ("train", "t10k"):
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            file = folder / f"{prefix}-{name}-ubyte{'.gz' if layout == 'debian' else ''}"
            file.write_bytes(gzip.compress(idx(array)) if layout == "debian" else idx(array))
    data = load_source(config("fashion_mnist", tmp_path))
    np.testing.assert_array_equal(data.splits["test"].images[..., 1], images)
    assert data.classes[9] == "Ankle boot"
    damaged = next(folder.glob("train-images*"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.*: not an IDX file, or damaged"):
        load_source(config("fashion_mnist", tmp_path))


# Class-per-folder trees


@pytest.fixture
def tree(tmp_path):
    """Two classes of four training and two test images, 12×10 pixels."""
    for split, count in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "tree" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(RNG.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "tree"


def one(tree, name):
    data = load_source(config("imagefolder", tree, "dataset.image_size=8"))
    files = sorted(p.name for p in (tree / "train" / "cat").iterdir())
    return data.splits["train"].images[files.index(name)]


def test_imagefolder(tree):
    data = load_source(config("imagefolder", tree, "dataset.image_size=8"))
    assert data.classes == ("cat", "dog")
    assert data.splits["train"].images.shape == (8, 8, 8, 3)
    assert data.splits["test"].labels.tolist() == [0, 0, 1, 1]


def test_a_tree_without_test_images_is_divided_by_a_seed_where_that_is_wanted(tree, tmp_path):
    flat = tmp_path / "flat"
    (tree / "train").rename(flat)
    with pytest.raises(
        DataError, match=r"flat has 2 class folders: --set dataset\.test=0\.2 tests on a fifth of each$"
    ):
        load_source(config("imagefolder", flat))
    divided = load_source(config("imagefolder", flat, "dataset.test=0.3"))
    assert (divided.splits["train"].labels.tolist(), divided.splits["test"].labels.tolist()) == (
        [0] * 3 + [1] * 3,
        [0, 1],
    )
    every = [image.tobytes() for name in ("train", "test") for image in divided.splits[name].images]
    assert len(set(every)) == 8
    again = load_source(config("imagefolder", flat, "dataset.test=0.3"))
    np.testing.assert_array_equal(again.splits["test"].images, divided.splits["test"].images)
    whole = "dataset.storage=jpeg", "recipe.images={}", "recipe.padding=0"
    manifest = prepare(config("imagefolder", flat, "dataset.test=0.3", *whole), tmp_path / "data").manifest
    assert {name: info.count for name, info in manifest.splits.items()} == {"train": 6, "test": 2}
    (tree / "train").mkdir()
    flat.rename(tree / "train" / "cat")
    with pytest.raises(DataError, match=r"dataset\.test: 0\.3: .*val has the test images; leave it out"):
        load_source(config("imagefolder", tree, "dataset.test=0.3"))


GREY = np.linspace(0, 255, 64).reshape(8, 8).astype(np.uint8)


def test_greyscale_becomes_three_equal_channels(tree):
    Image.fromarray(GREY).save(tree / "train" / "cat" / "x.png")
    np.testing.assert_array_equal(one(tree, "x.png"), np.repeat(GREY[..., None], 3, axis=2))


def test_cmyk_jpeg_becomes_its_colour(tree):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tree / "train" / "cat" / "x.jpg")
    image = one(tree, "x.jpg")
    assert image[..., 0].min() > 240
    assert image[..., 1:].max() < 15


def test_exif_rotation_is_applied(tree):
    array = np.zeros((8, 8, 3), np.uint8)
    array[:4] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # saved upside down
    Image.fromarray(array).save(tree / "train" / "cat" / "x.jpg", exif=exif, quality=95)
    image = one(tree, "x.jpg")
    assert image[:3].max() < 30
    assert image[5:].min() > 225


def test_webp_palette_transparency_and_upper_case_names(tree):
    folder = tree / "train" / "cat"
    Image.new("RGB", (9, 9), (0, 0, 255)).save(folder / "w.WEBP", lossless=True)
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(folder / "t.png")
    Image.new("P", (9, 9), 0).save(folder / "p.png")
    assert (one(tree, "w.WEBP") == [0, 0, 255]).all()
    assert (one(tree, "t.png") == 255).all()  # transparent is white
    assert one(tree, "p.png").shape == (8, 8, 3)


@pytest.mark.parametrize("content", [b"", b"\x89PNG rubbish", b"cut"])
def test_a_broken_image_is_named_and_refused_or_skipped_and_listed(tree, tmp_path, content):
    broken = tree / "train" / "dog" / "broken.png"
    broken.write_bytes(png(noise())[:60] if content == b"cut" else content)
    with pytest.raises(DataError, match=r"train/dog/broken\.png: broken image .*--skip-broken"):
        load_source(config("imagefolder", tree))
    messages = []
    data = prepare(config("imagefolder", tree, "dataset.skip_broken=true"), tmp_path / "out", notify=messages.append)
    assert data.manifest.skipped == ("train/dog/broken.png",)
    assert data.manifest.splits["train"].count == 8
    assert any("skipped 1 broken images: train/dog/broken.png" in line for line in messages)


def test_duplicates_within_and_across_splits_are_counted_and_reported(tree, tmp_path):
    folder = tree / "train" / "cat"
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    (tree / "val" / "dog" / "leak.png").write_bytes((tree / "train" / "dog" / "1.png").read_bytes())
    messages = []
    data = prepare(config("imagefolder", tree), tmp_path / "out", notify=messages.append)
    assert data.manifest.duplicates.within == {"train": 1, "test": 0}
    assert data.manifest.duplicates.across == {"train/test": 1}
    assert any("1 within train, 1 of test also in train" in line for line in messages)


def test_a_changed_source_is_prepared_again(tree, tmp_path):
    before = prepare(config("imagefolder", tree), tmp_path / "out")
    Image.fromarray(GREY).save(tree / "train" / "cat" / "new.png")
    after = prepare(config("imagefolder", tree), tmp_path / "out")
    assert after.manifest.splits["train"].count == before.manifest.splits["train"].count + 1
    assert after.manifest.fingerprint != before.manifest.fingerprint


def test_a_moved_source_keeps_its_fingerprint(tree, tmp_path):
    before = prepare(config("imagefolder", tree), tmp_path / "out")
    tree.rename(tmp_path / "elsewhere")
    after = prepare(config("imagefolder", tmp_path / "elsewhere"), tmp_path / "other")
    assert after.manifest.fingerprint == before.manifest.fingerprint


def test_trees_that_make_no_sense_are_refused(tree):
    (tree / "val" / "horse").mkdir()
    with pytest.raises(DataError, match=r"val/horse: a class that .*train doesn't have"):
        load_source(config("imagefolder", tree))
    (tree / "val" / "horse").rmdir()
    (tree / "train" / "empty").mkdir()
    with pytest.raises(DataError, match="train/empty: no JPEG, PNG or WebP image in it"):
        load_source(config("imagefolder", tree))
    with pytest.raises(DataError, match=r"expected train/<class>/\* and test/<class>/\*"):
        load_source(config("imagefolder", tree / "train"))


def test_filters_and_limits(tree):
    with pytest.raises(DataError, match=r"dataset\.classes: 'cta' is not in this source; did you mean cat"):
        load_source(config("imagefolder", tree, "dataset.classes=[cta, dog]"))
    with pytest.raises(DataError, match="1 class left; a classifier needs at least 2"):
        load_source(config("imagefolder", tree, "dataset.classes=[cat]"))
    data = load_source(config("imagefolder", tree, "dataset.classes=[dog, cat]", "dataset.limit=1"))
    assert data.classes == ("dog", "cat")
    whole = load_source(config("imagefolder", tree))
    np.testing.assert_array_equal(
        data.splits["train"].images[data.splits["train"].labels == 0][0], whole.splits["train"].images[4]
    )
