"""Names of classes and files in the wild: markup, HTML, newlines, bytes that aren't UTF-8, Unicode's forms."""

import json
import os
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gentrain import cli
from gentrain.data.prepare.dataset import prepare
from gentrain.data.sources.registry import load_source
from gentrain.errors import DataError, printable
from gentrain.study.sections import DatasetConfig
from tests.data.test_wild_tables import png

ODD = ("[b]", "[bold red]x", ":smile:", "<script>alert(1)<", "'\"&amp;", "naïve 漢字 👩‍🔬", "-rf", "a\\nb")
"""Odd, and names nevertheless."""
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))


def write_tree(root, *classes, test=None):
    random = np.random.default_rng(0)
    for split, names in (("train", classes), ("test", test or classes)):
        for name in names:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return root


def config(root, **changes):
    return DatasetConfig(source="imagefolder", path=str(root), image_size=8, **changes)


@pytest.mark.parametrize("storage", ["raw", "jpeg"])
def test_odd_names_are_prepared_and_shown_as_they_are(tmp_path, capsys, monkeypatch, storage):
    monkeypatch.setenv("COLUMNS", "300")
    root = write_tree(tmp_path / "[/b] <i>", *ODD)
    (root / "train" / ODD[0] / "a\nb \x1b[2J.jpg").write_bytes(b"rubbish")
    (root / "train" / ODD[0] / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"rubbish")
    command = ["prepare", "imagefolder", "--data", str(root), "--size", "8", "--runs", str(tmp_path / "[/x] :x:")]
    command += ["--set", "dataset.storage=raw", "--set", "recipe.images=null"] if storage == "raw" else []
    assert cli.run(command) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "a\\nb \\x1b[2J.jpg: broken image" in err
    assert cli.run([*command, "--skip-broken"]) == 0
    out = capsys.readouterr().out
    assert all(printable(line) == line for line in out.split("\n"))
    for name in sorted(ODD)[:8]:
        assert name in out
    assert "[/x] :x:" in out
    assert "skipped 2 broken images" in out
    assert cli.run([*command, "--skip-broken", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["classes"] == sorted(ODD)
    assert sorted(name.rpartition("/")[2] for name in row["skipped"]) == ["a\\nb \\x1b[2J.jpg", "caf\\udce9.jpg"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\nb", "a class's name holds a control character: 'a\\nb'; rename it"),
        ("\x1b[2J", "a class's name holds a control character: '\\x1b[2J'; rename it"),
        (os.fsdecode(b"caf\xe9"), "a class's name isn't UTF-8: 'caf\\udce9'; rename it"),
        (" ", "a class's name is empty: ' '; rename it"),
    ],
)
def test_names_that_no_line_can_hold_are_refused_in_one(tmp_path, capsys, name, message):
    root = write_tree(tmp_path / "tree", "cat", name)
    assert cli.run(["prepare", "imagefolder", "--data", str(root), "--runs", str(tmp_path / "runs")]) == 2
    err = capsys.readouterr().err
    assert f"{root}/train: {message}" in err
    assert err.count("\n") == 1


def test_names_that_differ_only_by_unicode_form_are_refused(tmp_path):
    root = write_tree(tmp_path, COMPOSED, DECOMPOSED)
    with pytest.raises(DataError, match="two classes are named 'Café', in two Unicode forms; rename one of them"):
        prepare(config(root), tmp_path / "data")


def test_a_name_in_another_unicode_form_is_the_same_name(tmp_path):
    root = write_tree(tmp_path, "cat", DECOMPOSED, test=["cat", COMPOSED])
    data = load_source(config(root))
    assert data.classes == tuple(sorted(("cat", DECOMPOSED)))
    assert data.splits["test"].labels.tolist() == [0, 0, 1, 1]
    assert load_source(config(root, classes=("cat", COMPOSED))).classes == ("cat", DECOMPOSED)


def write_table(folder, column, *names):
    features = {"info": {"features": {column: {"names": names}}}}
    for split in ("train", "test"):
        columns = {"img": [{"bytes": png()}] * 2, "label": [0, 1], "coarse_label": [0, 1]}
        table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, folder / f"{split}-0.parquet")


def test_markup_in_a_tables_names_is_shown_as_it_is(tmp_path, capsys):
    write_table(tmp_path, "label", "[/b]", "</script>")
    assert cli.run(["prepare", "cifar10", "--data", str(tmp_path), "--runs", str(tmp_path / "runs")]) == 0
    assert "2 ([/b], </script>)" in capsys.readouterr().out


@pytest.mark.parametrize("column", ["label", "coarse_label"])
def test_names_in_tables_are_checked_too(tmp_path, column):
    write_table(tmp_path, column, "cat", "a\nb")
    with pytest.raises(DataError, match=r"a class's name holds a control character: 'a\\nb'"):
        load_source(DatasetConfig(source="cifar10", path=str(tmp_path)))


def test_a_folder_that_is_not_utf_8_is_refused_in_one_line(tmp_path, capsys):
    path = os.fsdecode(bytes(tmp_path) + b"/caf\xe9")
    assert cli.run(["status", "--runs", path]) == 2
    assert cli.run(["prepare", "imagefolder", "--data", path, "--runs", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 2
    assert err.count("caf\\udce9") == 2
