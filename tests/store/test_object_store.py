"""A run folder on S3, served on loopback: chains, datasets fetched once a node, damage noticed."""

import hashlib
import pickle

import pytest
import torch

from gentrain import api, cli
from gentrain.data.prepare.dataset import load_prepared
from gentrain.data.prepare.share import obtain, prepare_shared, published
from gentrain.errors import DataError
from gentrain.events import Note
from gentrain.models.registry import build_model
from gentrain.store.done import DATA, DONE, EPOCHS, MODEL, PREDICTIONS, SPEC
from gentrain.store.run import RunStore
from gentrain.study.loading import load_study
from tests.conftest import SMALL
from tests.prepared import without_digest
from tests.s3 import s3_server


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as monkeypatch, s3_server(monkeypatch) as bucket:
        yield bucket


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Return a function that makes this process a node with a disk of its own."""
    return lambda name: monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / name))


def quiet(_event):
    pass


def test_a_chain_on_s3_ends_in_the_bits_of_one_on_disk(small, bucket, node, tmp_path):
    node("one")
    url = bucket("chain")
    rows = api.run(small(), runs=url, observe=quiet, local=True)
    on_disk = api.run(small(), runs=str(tmp_path / "runs"), observe=quiet, local=True)
    assert [row["key"] for row in rows] == [row["key"] for row in on_disk]
    store = RunStore(url)
    for row in rows:
        folder = store.generation(row["key"])
        assert folder.inspect().valid
        assert not folder.training
        for name in (MODEL, PREDICTIONS):
            path = tmp_path / "runs" / "generations" / row["key"] / name
            assert folder.read_verified(name) == path.read_bytes()
    assert api.run(small(), runs=url, observe=quiet, local=True) == rows
    folder.write(folder.done().place(PREDICTIONS), b"damaged")
    assert folder.inspect().damaged == (PREDICTIONS,)
    notes = []
    observe = lambda event: notes.append(event.text) if isinstance(event, Note) else None  # noqa: E731
    assert api.run(small(), runs=url, observe=observe, local=True) == rows  # evaluated again, not trained
    assert folder.inspect().valid
    assert any("evaluated again from its weights" in note for note in notes)


def test_a_store_without_conditional_writes_is_said_and_ends_in_the_same_row(small, bucket, node, monkeypatch):
    """As gs:// and abfs:// are here; its generations are those of a disk."""
    node("one")
    few, warnings = small("generations=0", "recipe.epochs=1", "recipe.milestones=[]"), []
    observe = lambda event: warnings.append(event.text) if getattr(event, "level", "") == "warning" else None  # noqa: E731
    (row,) = api.run(few, runs=bucket("claims"), observe=observe, local=True)
    assert not [warning for warning in warnings if "one at a time" in warning]
    monkeypatch.setattr("gentrain.store.run.open_objects", lambda _: None)
    url = bucket("no-claims")
    (other,) = api.run(few, runs=url, observe=observe, local=True)
    (warning,) = [warning for warning in warnings if "one at a time" in warning]
    assert warning.startswith(f"{url}: nothing keeps two runs apart")
    assert other == row | {"train_seconds": other["train_seconds"]}
    assert RunStore(url).generation(row["key"]).names() == sorted({DATA, DONE, EPOCHS, MODEL, PREDICTIONS, SPEC})


def test_a_given_network_is_adopted_on_s3(small, bucket, node, tmp_path):
    """Its weights go into the bucket; whoever evaluates it needs no file."""
    node("one")
    path, url = tmp_path / "teacher.pt", bucket("given")
    torch.save(build_model("resnet8", num_classes=10).state_dict(), path)
    study = load_study(overrides=[*SMALL, "generations=0"], pretrained=[{"checkpoint": str(path)}])
    (row,) = api.run(study, runs=url, observe=quiet, local=True)
    folder = RunStore(url).generation(row["key"])
    assert folder.inspect().valid
    path.unlink()
    study = load_study(
        overrides=[*SMALL, "generations=0"], pretrained=[{"checkpoint": f"{url}/generations/{row['key']}"}]
    )
    assert api.run(study, runs=url, observe=quiet, local=True) == [row]


def test_a_dataset_is_published_once_and_fetched_by_another_node(small, bucket, node, monkeypatch):
    store = RunStore(bucket("data"))
    node("head")
    data = prepare_shared(small().dataset, store)
    name = data.folder.name
    assert published(name, store)
    node("worker")
    fetched = obtain(name, store)
    assert fetched.folder != data.folder
    assert fetched.manifest == data.manifest
    monkeypatch.setattr("gentrain.data.prepare.share._fetch", lambda *_: pytest.fail("fetched twice"))
    assert obtain(name, store).folder == fetched.folder
    node("another head")  # without the source: nothing is prepared again
    monkeypatch.undo()
    monkeypatch.setenv("GENTRAIN_CACHE", str(data.folder.parents[2] / "another"))
    monkeypatch.setattr("gentrain.data.prepare.share.prepare", lambda *_, **__: pytest.fail("prepared twice"))
    assert prepare_shared(small().dataset, store).manifest == data.manifest


def test_a_damaged_copy_is_fetched_again_and_damage_in_the_store_is_said(small, bucket, node):
    store = RunStore(bucket("damage"))
    node("head")
    name = prepare_shared(small().dataset, store).folder.name
    node("worker")
    path = obtain(name, store).split_path("train")
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    obtain(name, store)
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(sound).digest()
    (store.root / "data" / name).write("train.beton", b"rubbish")
    node("third")
    with pytest.raises(DataError, match=r"train\.beton: damaged"):
        obtain(name, store)
    assert not (store.data / name).exists()
    load_prepared(path.parent)


def test_a_disk_that_a_node_does_not_share_is_named(tmp_path):
    with pytest.raises(DataError, match="must be a disk that all nodes share, or s3://"):
        obtain("digits-0123", RunStore(str(tmp_path)))


def test_no_credentials_travel_with_a_store(bucket):
    assert b"test" not in pickle.dumps(RunStore(bucket("plain")))


def shared_manifest(store, name, folder):
    """Put a local manifest into the store in place of the one there; return the store's folder."""
    shared = store.root / "data" / name
    shared.write("manifest.json", (folder / "manifest.json").read_bytes())
    return shared


def test_a_manifest_in_the_store_without_digest_gets_one(small, bucket, node):
    store = RunStore(bucket("upgrade"))
    node("head")
    data = prepare_shared(small().dataset, store)
    sound = (data.folder / "manifest.json").read_bytes()
    without_digest(data.folder)
    shared = shared_manifest(store, data.folder.name, data.folder)
    node("another")
    messages = []
    assert prepare_shared(small().dataset, store, notify=messages.append).manifest == data.manifest
    assert shared.read("manifest.json") == sound
    assert "of an earlier version; it has a digest now" in messages[-1]
    assert prepare_shared(small().dataset, store, notify=pytest.fail).manifest == data.manifest


@pytest.mark.parametrize("damage", ["altered", "rubbish"])
def test_a_manifest_in_the_store_that_is_wrong_is_rebuilt_and_the_command_succeeds(
    small, bucket, node, tmp_path, capsys, damage
):
    url = bucket(damage)
    store = RunStore(url)
    node("head")
    data = prepare_shared(small().dataset, store)
    sound = (data.folder / "manifest.json").read_bytes()
    if damage == "altered":
        without_digest(data.folder, mean=[0.3, 0.31, 0.31])
    else:
        (data.folder / "manifest.json").write_bytes(b"{")
    shared = shared_manifest(store, data.folder.name, data.folder)
    node("another")
    settings = [part for setting in SMALL for part in ("--set", setting)]
    assert cli.run(["prepare", "digits", *settings, "--runs", url, "--json"]) == 0
    assert "it is rebuilt" in capsys.readouterr().err.replace("the dataset is rebuilt", "it is rebuilt")
    assert shared.read("manifest.json") == sound


def test_a_dataset_whose_images_are_damaged_in_the_store_is_refused_in_one_line(small, bucket, node, capsys):
    url = bucket("images")
    store = RunStore(url)
    node("head")
    data = prepare_shared(small().dataset, store)
    (store.root / "data" / data.folder.name).write("train.beton", b"rubbish")
    node("another")
    settings = [part for setting in SMALL for part in ("--set", setting)]
    status = cli.run(["prepare", "digits", *settings, "--runs", url, "--json"])
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert (status, err.splitlines()[-1].startswith("gentrain: ")) == (2, True)
    assert "train.beton: damaged" in err.splitlines()[-1]
