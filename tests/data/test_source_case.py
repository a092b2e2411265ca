"""Provide the test case that every source passes: inherit `SourceCase` and name yours."""

import numpy as np
import pytest

from gentrain.data.prepare.dataset import prepare
from gentrain.data.sources import registry
from gentrain.data.sources.formats import SourceData, Split
from gentrain.data.sources.registry import load_source
from gentrain.study.sections import DatasetConfig


class SourceCase:
    """Test one source; a subclass's `config` returns its settings, with files in `folder` where it needs any."""

    def config(self, folder):
        raise NotImplementedError

    def test_images_labels_and_classes_fit_together(self, tmp_path):
        data = load_source(self.config(tmp_path))
        assert len(data.classes) >= 2
        assert {"train", "test"} <= data.splits.keys()
        for split in data.splits.values():
            assert split.images.dtype == np.uint8
            assert split.images.shape[0] == len(split.labels) > 0
            assert split.images.shape[3] == 3
            assert set(np.unique(split.labels)) <= set(range(len(data.classes)))

    def test_it_reads_the_same_twice(self, tmp_path):
        one, other = load_source(self.config(tmp_path)), load_source(self.config(tmp_path))
        for name, split in one.splits.items():
            np.testing.assert_array_equal(split.images, other.splits[name].images)
            np.testing.assert_array_equal(split.labels, other.splits[name].labels)

    def test_it_is_prepared(self, tmp_path):
        prepared = prepare(self.config(tmp_path), tmp_path / "out")
        data = load_source(self.config(tmp_path))
        assert prepared.manifest.classes == data.classes
        assert prepared.manifest.splits["train"].count == len(data.splits["train"].labels)


class TestDigits(SourceCase):
    def config(self, folder):
        return DatasetConfig(source="digits", limit=4)


def read_noise(config):
    """Read the source of docs/architecture.md."""
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
    split = Split(images, np.arange(64) % 2)
    return SourceData({"train": split, "test": split}, classes=("even", "odd"))


class TestASourceOfYours(SourceCase):
    @pytest.fixture(autouse=True)
    def _registered(self, monkeypatch):
        monkeypatch.setitem(registry._READERS, "noise", read_noise)

    def config(self, folder):
        return DatasetConfig(source="digits").model_copy(update={"source": "noise"})
