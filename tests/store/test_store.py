import errno
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentrain.errors import ResourceError, StoreError
from gentrain.store.done import DONE, MODEL, PREDICTIONS
from gentrain.store.run import RunStore

FACTS = {
    "scores": {"top1_error": 0.5, "top5_error": 0.1, "nll": 1.0, "ece": 0.1, "primary": 0.6},
    "train_primary": 0.6,
    "seconds": 1.0,
    "workers": 1,
    "threads": 1,
    "device": "cpu",
    "versions": {},
}


@pytest.fixture
def folder(tmp_path):
    return RunStore(str(tmp_path)).generation("0123456789abcdef")


def test_done_is_written_last_and_verified(folder, monkeypatch):
    written = []
    write = type(folder).write
    monkeypatch.setattr(type(folder), "write", lambda self, n, c: (written.append(n), write(self, n, c))[1])
    folder.finish({MODEL: b"weights", PREDICTIONS: b"p"}, **FACTS)
    assert written[-1] == DONE
    assert folder.inspect().valid
    assert folder.read_verified(MODEL) == b"weights"


@pytest.mark.parametrize("damage", [b"weightz", b"", None])
def test_a_damaged_file_is_found(folder, damage):
    folder.finish({MODEL: b"weights", PREDICTIONS: b"p"}, **FACTS)
    folder.delete(MODEL) if damage is None else folder.write(MODEL, damage)
    inspection = folder.inspect()
    assert not inspection.valid
    assert inspection.damaged == (MODEL,)
    with pytest.raises(StoreError, match="missing or damaged"):
        folder.read_verified(MODEL)
    assert folder.read_verified(PREDICTIONS) == b"p"


@pytest.mark.parametrize("content", [b"{}", b"not json", b""])
def test_a_damaged_record_counts_as_damage_not_as_done(folder, content):
    folder.finish({MODEL: b"weights"}, **FACTS)
    folder.write(DONE, content)
    assert folder.inspect().done is None
    assert folder.inspect().damaged == (DONE,)


def test_a_record_of_another_key_is_no_record(folder, tmp_path):
    other = RunStore(str(tmp_path)).generation("f" * 16)
    other.finish({MODEL: b"weights"}, **FACTS)
    folder.write(MODEL, b"weights")
    folder.write(DONE, other.read(DONE))
    assert folder.done() is None
    assert not folder.inspect().valid


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(folder, monkeypatch):
    folder.write("a", b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ResourceError, match="the disk is full; free some space"):
            folder.write("a", b"new")
    assert folder.read("a") == b"old"
    assert os.listdir(folder.path) == ["a"]


def test_a_place_that_cannot_be_written_is_said_in_one_line():
    with pytest.raises((ResourceError, StoreError)) as error:
        RunStore("/proc/gentrain").check_writable()
    assert "/proc/gentrain" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_newest_sound_checkpoint_is_used(folder):
    for epoch in (1, 2, 3):
        folder.save_checkpoint(epoch, b"state %d" % epoch)
    names = folder.train.names()
    assert len(names) == 2
    warnings = []
    assert folder.newest_checkpoint(warn=warnings.append) == (3, b"state 3")
    assert warnings == []
    folder.train.write(names[-1], b"state 3 with a flipped bit")
    assert folder.newest_checkpoint(warn=warnings.append) == (2, b"state 2")
    assert len(warnings) == 1
    assert names[-1] in warnings[0]


def test_epochs_order_beyond_single_digits(folder):
    for epoch in (9, 10):
        folder.save_checkpoint(epoch, b"state %d" % epoch)
    assert folder.newest_checkpoint(warn=pytest.fail) == (10, b"state 10")


def test_a_taken_over_folder_refuses_its_former_owner(folder):
    with folder.claimed("first", waiting=pytest.fail) as first:
        folder.check_claim(first.token)
    with folder.claimed("second", waiting=pytest.fail):
        for late in (
            lambda: folder.check_claim(first.token),
            lambda: folder.finish({MODEL: b""}, token=first.token, **FACTS),
        ):
            with pytest.raises(StoreError, match="another process has taken this generation over"):
                late()


def test_the_lock_keeps_a_second_process_waiting_and_dies_with_its_holder(folder, tmp_path):
    code = (
        "import sys, time; from gentrain.store.run import RunStore\n"
        f"with RunStore({str(tmp_path)!r}).generation({folder.key!r}).locked(waiting=lambda: None):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        started = time.monotonic()
        with folder.locked(waiting=holder.kill):  # asked to wait, we kill the holder: the lock is free
            assert time.monotonic() - started < 30
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_store_travels_as_its_uri(tmp_path):
    import pickle

    store = RunStore(str(tmp_path))
    store.study("x").write("a", b"1")
    assert b"LocalFileSystem" not in pickle.dumps(store)
    assert pickle.loads(pickle.dumps(store)).study("x").read("a") == b"1"


@given(st.binary(max_size=200))
def test_what_is_written_is_read(tmp_path_factory, content):
    folder = RunStore(str(tmp_path_factory.mktemp("store"))).study("s")
    folder.write("a.bin", content)
    assert folder.read("a.bin") == content


def test_os_errors_name_the_remedy():
    from gentrain.errors import ResourceError
    from gentrain.store.folder import _errors_with_remedy

    with pytest.raises(ResourceError, match="disk is full"), _errors_with_remedy("x"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ResourceError, match="choose another folder with --runs"), _errors_with_remedy("x"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
