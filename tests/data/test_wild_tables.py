"""CIFAR as Parquet as it is in the wild: broken images, odd columns, claims of any size, links."""

import gzip
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gentrain.data.prepare.dataset import prepare
from gentrain.data.sources import parquet, pixels
from gentrain.data.sources.registry import load_source
from gentrain.errors import DataError
from gentrain.study.sections import DatasetConfig
from tests.data.test_wild_data import bomb


def png(side=8, color=(1, 2, 3)):
    sink = io.BytesIO()
    Image.new("RGB", (side, side), color).save(sink, "png")
    return sink.getvalue()


def write(folder, name, columns, features=None):
    """Write a split's table; images as bytes become structs as the Hugging Face library writes them."""
    if isinstance(columns.get("img"), list):
        columns = columns | {"img": [{"bytes": content, "path": None} for content in columns["img"]]}
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, folder / f"{name}-0.parquet")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "train", {"img": [png(color=(i, 0, 0)) for i in range(6)], "label": [0, 1] * 3})
    write(tmp_path, "test", {"img": [png()] * 2, "label": [0, 1]})
    return tmp_path


def config(path, **changes):
    return DatasetConfig(source="cifar10", path=str(path), **changes)


BROKEN = {
    "rubbish": (b"rubbish", "cannot identify image file"),
    "truncated": (png()[:50], ""),
    "nothing": (None, "no bytes"),
    "empty": (b"", "cannot identify image file"),
    "another size": (png(9), "9 × 9 pixels, others have 8 × 8"),
    "bomb": (bomb(9000, 9000), "9,000 × 9,000 pixels, others have 8 × 8"),
    "larger bomb": (bomb(40_000, 40_000), "decompression bomb"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_is_named_with_its_split_and_row_or_skipped(folder, tmp_path, kind):
    content, reason = BROKEN[kind]
    images = [png(color=(i, 0, 0)) for i in range(6)]
    write(folder, "train", {"img": [*images[:3], content, *images[4:]], "label": [0, 1] * 3})
    with pytest.raises(DataError) as error:
        load_source(config(folder))
    message = str(error.value)
    assert message.startswith(f"{folder}/train-0.parquet: row 3 (train split): broken image (")
    assert reason in message
    assert "--skip-broken" in message
    assert "\n" not in message
    if content is not None:
        selected = config(folder, limit=1)  # the row is not read at all
        assert load_source(selected).splits["train"].labels.tolist() == [0, 1]
    manifest = prepare(config(folder, skip_broken=True), tmp_path / "data").manifest
    assert manifest.skipped == (f"{folder}/train-0.parquet: row 3",)
    assert manifest.splits["train"].per_class == (3, 2)


def test_a_class_whose_every_image_is_broken_is_named(folder):
    write(folder, "train", {"img": [png(), b"rubbish"], "label": [0, 1]})
    with pytest.raises(DataError, match="class '1' has no training image"):
        load_source(config(folder, skip_broken=True))


def test_a_table_whose_every_image_is_broken_is_refused(folder):
    write(folder, "train", {"img": [b"rubbish"] * 2, "label": [0, 1]})
    with pytest.raises(DataError, match=r"row 0 \(train split\): broken image"):
        load_source(config(folder))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([b"a", b"b"], "column label holds 'binary', not class numbers"),
        (["0", "1"], "column label holds 'string', not class numbers"),
        ([[0], [1]], "column label holds 'list<element: int64>', not class numbers"),
        ([{"a": 0}, {"a": 1}], "holds 'struct<a: int64>', not class numbers"),
        ([None, None], "holds 'null', not class numbers"),
        (pa.array([0, 1]).cast(pa.timestamp("s")), "holds 'timestamp"),
        (pa.array([0, 1]).cast(pa.decimal128(30)), "holds 'decimal128(30, 0)', not class numbers"),
        (pa.array([0, 2**63], pa.uint64()), "row 1: label is 9223372036854775808, not a class number"),
        ([float("inf"), 0], "row 0: label is inf, not a class number"),
    ],
)
@pytest.mark.parametrize("column", ["label", "coarse_label"])
def test_columns_that_hold_no_class_numbers_are_named(folder, labels, message, column):
    columns = {"img": [png()] * 2, "label": [0, 1]} | {column: labels}
    write(folder, "train", columns)
    with pytest.raises(DataError) as error:
        load_source(config(folder))
    assert message.replace("label", column, 1) in str(error.value).replace("coarse_coarse_label", "coarse_label")
    assert str(error.value).startswith(f"{folder}/train-0.parquet: ")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"img": pa.array([png(), png()]), "label": [0, 1]}, "column img holds 'binary', not image files"),
        ({"img": pa.array(["a", "b"]), "label": [0, 1]}, "column img holds 'string', not image files"),
        ({"img": pa.array([{"path": "x"}] * 2), "label": [0, 1]}, "column img holds 'struct<path: string>', not"),
        ({"picture": [1, 2], "label": [0, 1]}, "no column image; its columns: 'picture', 'label'"),
        ({"img": [png()] * 2, "lable": [0, 1]}, "no column label; its columns: 'img', 'lable'"),
    ],
)
def test_tables_without_images_or_labels_are_refused(folder, columns, message):
    write(folder, "train", columns)
    with pytest.raises(DataError) as error:
        load_source(config(folder))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "features", [7, [], {"info": 7}, {"info": {"features": {"label": 5}}}, {"info": {"features": 7}}]
)
def test_descriptions_that_make_no_sense_are_ignored(folder, features):
    write(folder, "train", {"img": [png()] * 2, "label": [0, 1]}, features)
    assert load_source(config(folder)).classes == ("0", "1")


@pytest.mark.parametrize("names", [[1, 2], {"0": "cat"}, "cat"])
def test_names_that_are_no_texts_are_refused(folder, names):
    write(folder, "train", {"img": [png()] * 2, "label": [0, 1]}, {"info": {"features": {"label": {"names": names}}}})
    with pytest.raises(DataError, match=r"the names of label are .*, not texts"):
        load_source(config(folder))


def test_groups_that_contradict_each_other_are_refused_and_unknown_ones_left_out(folder):
    for name in ("train", "test"):
        write(folder, name, {"img": [png()] * 4, "label": [0, 1, 2, 0], "coarse_label": [0, 1, 1, 0]})
    assert load_source(config(folder)).class_groups == (0, 1, 1)
    write(folder, "test", {"img": [png()] * 2, "label": [0, 1], "coarse_label": [1, 1]})
    with pytest.raises(DataError, match="class number 0 is in groups 0 and 1; correct coarse_label"):
        load_source(config(folder))
    names = {"info": {"features": {"label": {"names": list("abcd")}}}}
    for name in ("train", "test"):
        write(folder, name, {"img": [png()] * 2, "label": [0, 1], "coarse_label": [0, 1]}, names)
    assert load_source(config(folder, classes=("a", "b"))).groups is None  # c and d have no row that says theirs


def test_files_that_claim_more_than_memory_holds_are_refused(folder, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_ROWS", 5)
    with pytest.raises(DataError, match=r"train-0\.parquet: more than 5 rows; this source is held in memory"):
        load_source(config(folder))
    monkeypatch.undo()
    monkeypatch.setattr(pixels, "MOST_MEMORY", 1e-9)
    with pytest.raises(DataError, match=r"6 images of 8 × 8 pixels take 0 GB of memory, .*; take smaller ones"):
        load_source(config(folder))


def test_files_behind_links_are_read(folder, tmp_path_factory):
    links = tmp_path_factory.mktemp("links")
    (links / "data").symlink_to(folder)
    images = load_source(config(links)).splits["train"].images
    np.testing.assert_array_equal(images, load_source(config(folder)).splits["train"].images)


def test_a_compressed_file_of_any_size_is_read_as_far_as_its_header_says(tmp_path):
    header = bytes([0, 0, 8, 3]) + np.array([2, 4, 4], ">u4").tobytes()
    for prefix in ("train", "t10k"):
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + bytes(50_000_000), 1))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: not an IDX file, or damaged"):
        load_source(DatasetConfig(source="fashion_mnist", path=str(tmp_path)))
