"""A node fetches a dataset once, however many of its processes want it; tests/store has the rest, on S3."""

import threading
import time
from types import SimpleNamespace

import pyarrow.fs as pafs
import pytest

from gentrain.data.prepare import share
from gentrain.data.prepare.dataset import prepare
from gentrain.errors import DataError
from gentrain.store.folder import Folder
from gentrain.study.loading import load_study


@pytest.fixture
def store(tmp_path):
    """Pretend that a folder is an object store."""
    root = Folder(pafs.LocalFileSystem(), str(tmp_path / "store"))
    return SimpleNamespace(root=root, data=tmp_path / "node", local=False)


@pytest.fixture
def data(tmp_path, store):
    dataset = load_study(overrides=["dataset.source=digits", "dataset.limit=3"]).dataset
    data = prepare(dataset, tmp_path / "head")
    folder = tmp_path / "store" / "data" / data.folder.name
    folder.mkdir(parents=True)
    share.publish(data, store)
    return data


def test_processes_that_want_it_at_once_fetch_it_once(store, data, monkeypatch):
    fetches, results = [], []

    def slow(*args, fetch=share._fetch):
        fetches.append(args)
        time.sleep(0.3)
        return fetch(*args)

    monkeypatch.setattr(share, "_fetch", slow)
    threads = [threading.Thread(target=lambda: results.append(share.obtain(data.folder.name, store))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetches) == 1
    assert [result.manifest for result in results] == [data.manifest] * 3


def test_a_dataset_is_found_in_the_store_by_its_fingerprint(store, data):
    assert share.find_shared(data.manifest.fingerprint, store) == (data.folder.name, data.manifest)
    assert share.find_shared("0" * 64, store) is None
    (store.root / "data" / data.folder.name).write("manifest.json", b"{}")
    assert share.find_shared(data.manifest.fingerprint, store) is None
    with pytest.raises(DataError, match=r"manifest\.json: damaged; delete it and run the same command again"):
        share.obtain(data.folder.name, store)
    (store.root / "data" / data.folder.name).delete("manifest.json")
    with pytest.raises(DataError, match="no prepared dataset there; run the same command again"):
        share.obtain(data.folder.name, store)
