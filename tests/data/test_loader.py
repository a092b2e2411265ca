import contextlib
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gentrain.data.loading.beton import LARGE, PAGE, StoredImages, page_size, write_beton
from gentrain.data.loading.loader import Loader, _moved_ahead
from gentrain.data.loading.order import epoch_order, worker_order, worker_parts
from gentrain.errors import DataError


@pytest.fixture(scope="module")
def beton(tmp_path_factory):
    """53 images whose every pixel is their index, labels index mod 7."""
    path = tmp_path_factory.mktemp("beton") / "train.beton"
    images = np.broadcast_to(np.arange(53, dtype=np.uint8)[:, None, None, None], (53, 6, 6, 3)).copy()
    write_beton(path, images, np.arange(53) % 7)
    return path


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 12), st.integers(0, 99), st.integers(0, 99))
def test_workers_share_every_global_batch(samples, world, per_worker, seed, epoch):
    batch = world * per_worker
    order = epoch_order(samples, seed=seed, epoch=epoch)
    parts = [worker_order(order, batch_size=batch, rank=rank, world_size=world) for rank in range(world)]
    steps = {-(-len(own) // per_worker) for own, _ in parts}
    assert steps == {-(-samples // batch)}  # all workers take the same number of steps
    sizes = set()
    for step in range(-(-samples // batch)):
        seen = []
        for own, filler in parts:
            last = step == -(-samples // batch) - 1
            part = [] if filler and last else own[step * per_worker : (step + 1) * per_worker].tolist()
            sizes.add(len(part))
            seen += part
        assert sorted(seen) == sorted(order[step * batch : (step + 1) * batch].tolist())  # whole, each once
    assert sizes == worker_parts(samples, batch_size=batch, world_size=world)


@pytest.mark.parametrize(("world", "batch"), [(1, 12), (1, 53), (1, 64), (3, 12), (4, 52), (8, 48), (2, 106)])
def test_a_workers_sizes_are_those_of_its_batches(beton, world, batch):
    for rank in range(world):
        loader = Loader(beton, batch_size=batch, rank=rank, world_size=world, shuffle=True)
        seen = [0 if part.filler else len(part.labels) for part in loader.epoch(0)]
        assert loader.sizes == list(dict.fromkeys(seen)) or (loader.sizes == seen[-2:] and len(seen) > 1)


@given(st.integers(1, 200), st.integers(0, 99))
def test_orders_are_permutations_that_change_by_epoch(samples, seed):
    one, other = epoch_order(samples, seed=seed, epoch=0), epoch_order(samples, seed=seed, epoch=1)
    assert sorted(one.tolist()) == list(range(samples))
    assert np.array_equal(one, epoch_order(samples, seed=seed, epoch=0))
    if samples > 20:
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_image_once_in_order(beton, world):
    seen, labels = [], []
    for rank in range(world):
        loader = Loader(beton, batch_size=12, rank=rank, world_size=world, shuffle=False)
        for batch in loader.epoch(0):
            assert not batch.filler
            assert (batch.images == batch.indices.view(-1, 1, 1, 1)).all()
            seen += batch.indices.tolist()
            labels += batch.labels.tolist()
    assert seen == list(range(53))
    assert labels == [i % 7 for i in range(53)]


@pytest.mark.parametrize("threads", [1, 2])
def test_training_order_is_that_of_the_seed_whatever_the_threads(beton, threads):
    loader = Loader(beton, batch_size=16, shuffle=True, seed=4, threads=threads)
    for epoch in (2, 0, 2):
        batches = list(loader.epoch(epoch))
        assert [b.global_size for b in batches] == [16, 16, 16, 5]
        indices = np.concatenate([b.indices.numpy() for b in batches])
        assert np.array_equal(indices, epoch_order(53, seed=4, epoch=epoch))
        for batch in batches:  # kept batches are copies, not FFCV's reused buffers
            assert (batch.images == batch.indices.view(-1, 1, 1, 1)).all()


def test_a_worker_without_a_sample_gets_a_filler(beton):
    """53 samples, batch 52: the last batch has one sample for four workers."""
    last = [list(Loader(beton, batch_size=52, rank=r, world_size=4, shuffle=True).epoch(0))[-1] for r in range(4)]
    assert [b.filler for b in last] == [False, True, True, True]
    assert [b.global_size for b in last] == [1] * 4


def test_writing_twice_makes_the_same_bytes(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 7, 3), dtype=np.uint8)
    for name in ("a", "b"):
        write_beton(tmp_path / name, images, np.arange(20))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_small_file_is_hardly_larger_than_its_images(tmp_path):
    """308 thumbnails of 32 pixels: FFCV's pages of 8 MiB made them 16.8 MB."""
    images = np.random.default_rng(0).integers(0, 256, (308, 32, 32, 3), dtype=np.uint8)
    write_beton(tmp_path / "small", images, np.arange(308))
    assert images.nbytes < (tmp_path / "small").stat().st_size < 1.25 * images.nbytes
    stored = StoredImages.open(tmp_path / "small")
    np.testing.assert_array_equal(np.stack(stored.contents), images.reshape(308, -1))
    (batch,) = Loader(tmp_path / "small", batch_size=308, shuffle=False).epoch(0)
    np.testing.assert_array_equal(batch.images.permute(0, 2, 3, 1).numpy(), images)


@given(st.integers(1, 1 << 34), st.integers(1, 1 << 23))
def test_a_page_holds_the_largest_image_and_is_ffcvs_own_of_large_files(total, largest):
    size = page_size(max(total, largest), largest=largest)
    assert largest <= size <= PAGE
    assert size & (size - 1) == 0
    assert size == PAGE or total < LARGE


def test_files_of_large_pages_as_before_are_read_alike(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 7, 3), dtype=np.uint8)
    write_beton(tmp_path / "now", images, np.arange(20))
    monkeypatch.setattr("gentrain.data.loading.beton.page_size", lambda *_, **__: PAGE)
    write_beton(tmp_path / "before", images, np.arange(20))
    assert (tmp_path / "before").stat().st_size > 2 * PAGE
    now, before = (next(Loader(tmp_path / name, batch_size=20, shuffle=True).epoch(0)) for name in ("now", "before"))
    assert torch.equal(now.images, before.images)
    assert torch.equal(now.labels, before.labels)


def test_an_epoch_may_be_left_early(beton):
    loader = Loader(beton, batch_size=4, shuffle=True)
    for _ in range(3):
        next(loader.epoch(0))
    assert len(list(loader.epoch(0))) == 14


def test_a_decoder_that_fails_says_so_and_never_hangs(beton, monkeypatch):
    from gentrain.data.loading import beton as door

    def broken(*_):
        raise RuntimeError("bad page")

    loader = Loader(beton, batch_size=4, shuffle=True)
    monkeypatch.setattr(door.Epoch, "run_pipeline", broken)
    with pytest.raises(DataError, match="can't be decoded: bad page"):
        list(loader.epoch(0))


def test_nothing_is_compiled_to_import_ffcv():
    import ffcv.fields.rgb_image
    import numba.typed

    assert type(ffcv.fields.rgb_image.IMAGE_MODES) is dict
    assert numba.typed.Dict is not dict


def test_images_of_one_size_are_read_without_compiling(beton, monkeypatch):
    monkeypatch.setattr("numba.njit", None)
    (batch,) = Loader(beton, batch_size=53, shuffle=True).epoch(0)
    assert torch.equal(batch.images.long(), batch.indices[:, None, None, None].expand(53, 3, 6, 6))
    assert torch.equal(batch.labels, batch.indices % 7)


def test_reading_leaves_torch_s_threads_alone(tmp_path, monkeypatch):
    """A second set of OpenMP threads would make all of them sleep between the parts of a step."""
    from gentrain.data.loading import beton as door

    images = np.zeros((512, 32, 32, 3), np.uint8)  # a batch is enough for torch to share out a copy of it
    write_beton(tmp_path / "train.beton", images, np.zeros(512))
    grown = []

    def watched(self, *args, run=door.Epoch.run_pipeline):
        before = len(os.listdir("/proc/self/task"))
        result = run(self, *args)
        grown.append(len(os.listdir("/proc/self/task")) - before)
        return result

    monkeypatch.setattr(door.Epoch, "run_pipeline", watched)
    had = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.zeros(1 << 20).add(1)  # from here on this thread has its own
        list(Loader(tmp_path / "train.beton", batch_size=256, shuffle=False, threads=1).epoch(0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(had)
    assert grown == [0, 0]


def test_copies_to_a_gpu_run_one_batch_ahead_and_each_is_waited_for_by_its_own_event(monkeypatch):
    """With CUDA's names pretended; tests/train/test_gpu.py has the rest, where there is a card."""
    events, where = [], ["computes"]

    class Stream:
        def __init__(self, name):
            self.name = name

        def record_event(self):
            events.append(("copied", copies[-1]))
            return copies[-1]

        def wait_event(self, event):
            events.append((self.name, "waits for", event))

    @contextlib.contextmanager
    def on(stream):
        where.append(stream.name)
        yield
        where.pop()

    class Pretended:
        device = "cuda:0"

        def __init__(self, number):
            self.number = number

        def pin_memory(self):
            return self

        def to(self, device, *, non_blocking):
            assert (where[-1], device, non_blocking) == ("copies", "cuda:0", True)
            copies.append(self.number)
            return self

        def record_stream(self, stream):
            assert stream.name == "computes"
            events.append(("kept", self.number))

    copies = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("copies"))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(where[-1]))
    for images, _, _ in _moved_ahead(iter([(Pretended(n),) * 3 for n in range(3)]), "cuda:0"):
        events.append(("step", images.number))
    steps = [[("computes", "waits for", n), *[("kept", n)] * 3, ("step", n)] for n in range(3)]
    assert events == [("copied", 0), ("copied", 1), *steps[0], ("copied", 2), *steps[1], *steps[2]]
    assert copies == [0, 0, 0, 1, 1, 1, 2, 2, 2]
