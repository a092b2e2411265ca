"""Data as it is in the wild: links, 16 bits, odd names and labels, damaged EXIF, and manifests that were changed."""

import json
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from gentrain.data.prepare.dataset import prepare, prepared_name, read_manifest
from gentrain.data.sources.registry import load_source
from gentrain.errors import DataError
from gentrain.study.sections import DatasetConfig
from tests.prepared import left_in


def write_tree(root, seed):
    random = np.random.default_rng(seed)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree", 0)


def config(path, source="imagefolder"):
    return DatasetConfig(source=source, path=str(path), image_size=8 if source == "imagefolder" else None)


def test_trees_of_links_are_what_they_point_at(tmp_path):
    names = []
    for seed, name in enumerate("AB"):
        write_tree(tmp_path / name, seed)
        links = tmp_path / f"l{name}"
        links.mkdir()
        for split in ("train", "val"):
            (links / split).symlink_to(tmp_path / name / split)
        names.append(prepared_name(config(links)))
        assert names[-1] == prepared_name(config(tmp_path / name))
    assert names[0] != names[1]


def test_a_link_to_a_folder_that_it_lies_in_is_refused(tree):
    (tree / "train" / "cat" / "again").symlink_to(tree / "train")
    with pytest.raises(DataError, match=r"again.*: a link to a folder that it lies in"):
        prepared_name(config(tree))


def test_16_bits_are_scaled(tree):
    levels = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(levels).save(tree / "train" / "cat" / "0.png")
    image = load_source(config(tree)).splits["train"].images[0]
    np.testing.assert_array_equal(image[..., 0], np.rint(levels / 257))


def test_dot_names_are_left_out_and_files_that_are_no_images_counted(tree, tmp_path):
    before = load_source(config(tree))
    for folder in (tree / "train", tree / "train" / "cat"):
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / ".ipynb_checkpoints" / "0.png").write_bytes((tree / "train" / "cat" / "0.png").read_bytes())
    (tree / "train" / "dog" / "old.gif").write_bytes(b"GIF89a")
    messages = []
    data = prepare(config(tree), tmp_path / "data", notify=messages.append)
    assert data.manifest.classes == before.classes
    assert data.manifest.splits["train"].count == 4
    assert "files that are no images of it: 1 .gif, 2 dot name" in messages


def test_a_stray_image_is_named(tree):
    (tree / "train" / "stray.png").write_bytes((tree / "train" / "cat" / "0.png").read_bytes())
    with pytest.raises(DataError, match=r"train/stray\.png: an image beside the class folders"):
        load_source(config(tree))


def with_exif(content, *entries):
    """Return a JPEG file with an EXIF block of such (tag, type, count, four bytes)."""
    fields = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    tiff = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + fields + bytes(4)
    block = b"Exif\0\0" + tiff
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:]


ORIENTATION, RESOLUTION, WIDTH = 0x112, 0x11A, 0x100
TURNED = (ORIENTATION, 3, 1, b"\6\0\0\0")


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        ([TURNED, (RESOLUTION, 2, 4, b"abc\0")], TypeError),
        ([TURNED, (WIDTH, 9, 1, struct.pack("<i", -5))], struct.error),
    ],
    ids=["text for a ratio", "negative"],
)
def test_exif_that_pillow_fails_at_is_ignored(tree, entries, error):
    file = tree / "train" / "cat" / "0.jpg"
    with Image.open(file.with_suffix(".png")) as image:
        image.save(file)
    file.with_suffix(".png").unlink()
    valid = load_source(config(tree)).splits["train"].images
    jpeg = file.read_bytes()
    file.write_bytes(with_exif(jpeg, *entries))
    with Image.open(file) as image, pytest.raises(error):
        ImageOps.exif_transpose(image)
    np.testing.assert_array_equal(load_source(config(tree)).splits["train"].images, valid)
    file.write_bytes(with_exif(jpeg, TURNED))  # as a check of `with_exif`: sound EXIF turns the image
    assert not np.array_equal(load_source(config(tree)).splits["train"].images, valid)


def bomb(width, height):
    """Return a PNG file of a few bytes whose header says that it has so many pixels."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def test_an_image_that_would_fill_the_memory_is_broken(tree, tmp_path):
    file = tree / "train" / "dog" / "1.png"
    file.write_bytes(bomb(40_000, 40_000))
    with pytest.raises(DataError, match=r"train/dog/1\.png: broken image .*decompression bomb"):
        load_source(config(tree))
    skipping = config(tree).model_copy(update={"skip_broken": True})
    assert load_source(skipping).skipped == ("train/dog/1.png",)


def test_images_that_memory_can_not_hold_are_refused_before_one_is_read(tree, monkeypatch):
    monkeypatch.setattr("gentrain.data.sources.pixels.MOST_MEMORY", 1e-9)
    with pytest.raises(
        DataError, match=r"tree \(train split\): 4 images of 8 × 8 pixels take .* dataset\.storage: jpeg"
    ):
        load_source(config(tree))


@pytest.mark.parametrize("name", ["LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt"])
def test_label_files_with_a_byte_order_mark_are_read(tmp_path, name):
    from scipy.io import savemat

    write_tree(tmp_path, 0)
    for label, animal in enumerate(("cat", "dog")):
        (tmp_path / "val" / animal / "0.png").rename(tmp_path / "val" / f"{label}.png")
        (tmp_path / "val" / animal / "1.png").unlink()
        (tmp_path / "val" / animal).rmdir()
    kaggle = name.endswith(".csv")
    text = "ImageId,PredictionString\n0,dog 1 2 3 4\n1,cat 1 2 3 4\n" if kaggle else "2\n1\n"
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    synsets = np.array([(1, "cat"), (2, "dog")], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    savemat(tmp_path / "meta.mat", {"synsets": synsets})
    assert load_source(config(tmp_path)).splits["test"].labels.tolist() == [1, 0]


def write_cifar(folder, train, names=()):
    Image.new("RGB", (32, 32)).save(folder / "image.png")
    image = {"bytes": (folder / "image.png").read_bytes(), "path": None}
    features = {"info": {"features": {"label": {"names": names}}}}
    for name, labels in (("train", train), ("test", [0, 1, 1])):
        table = pa.table({"img": [image] * len(labels), "label": pa.array(labels)}) if labels else None
        empty = pa.table({"img": pa.array([], pa.struct({"bytes": pa.binary()})), "label": pa.array([], pa.int64())})
        table = (empty if table is None else table).replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, folder / f"{name}-0.parquet")
    return config(folder, "cifar10")


@pytest.mark.parametrize("label", [0.7, None, -1, float("nan"), 2**40])
def test_labels_that_are_no_class_numbers_are_named(tmp_path, label):
    with pytest.raises(DataError, match=r"train-0\.parquet: row 2: label is .*, not a class number"):
        load_source(write_cifar(tmp_path, [0, 1, label]))


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([], [], r"train-\*\.parquet has no rows"),
        ([0, 1, 2], ["cat", "dog"], "label 2, but only 2 names of classes"),
        ([0, 1, 2_000_000], [], "label 2000000; class numbers count from 0"),
    ],
)
def test_tables_that_make_no_sense_are_refused(tmp_path, labels, names, message):
    with pytest.raises(DataError, match=message):
        load_source(write_cifar(tmp_path, labels, names))


def test_few_rows_of_many_named_classes_are_read(tmp_path):
    data = load_source(write_cifar(tmp_path, [0, 1, 9], list("abcdefghij")).model_copy(update={"classes": ("a", "b")}))
    assert data.splits["train"].labels.tolist() == [0, 1]


def test_a_changed_manifest_is_noticed_and_rebuilt(tree, tmp_path):
    data = prepare(config(tree), tmp_path / "data")
    file = data.folder / "manifest.json"
    valid = file.read_bytes()
    values = json.loads(valid)
    values["mean"][0] += 0.1
    file.write_text(json.dumps(values))
    messages = []
    assert read_manifest(data.folder) is None
    assert prepare(config(tree), tmp_path / "data", notify=messages.append) == data
    assert "manifest.json: missing or damaged; it is rebuilt" in messages[0]
    assert file.read_bytes() == valid


def without_digest(folder):
    values = json.loads((folder / "manifest.json").read_bytes())
    del values["digest"]
    (folder / "manifest.json").write_text(json.dumps(values))


def test_a_manifest_of_an_earlier_version_is_read_and_upgraded_once(tree, tmp_path):
    data = prepare(config(tree), tmp_path / "data")
    valid = (data.folder / "manifest.json").read_bytes()
    without_digest(data.folder)
    assert read_manifest(data.folder) == data.manifest
    messages = []
    for _ in range(2):
        assert prepare(config(tree), tmp_path / "data", notify=messages.append) == data
    assert len(messages) == 1
    assert "it has a digest now" in messages[0]
    assert (data.folder / "manifest.json").read_bytes() == valid


def test_what_an_earlier_version_misread_is_rebuilt(tree, tmp_path):
    Image.fromarray(np.full((8, 8), 999, np.uint16)).save(tree / "train" / "cat" / "0.png")
    data = prepare(config(tree), tmp_path / "data")
    without_digest(data.folder)
    messages = []
    prepare(config(tree), tmp_path / "data", notify=messages.append)
    assert "has 16 bits and became white); it is rebuilt" in messages[0]
    assert left_in(tmp_path / "data") == [data.folder.name]
