"""What killed writes leave is swept by the next run; locks that are links are refused and not followed."""

import os
import re
import subprocess
import sys
import time

import pytest

from gentrain.errors import StoreError
from gentrain.results.chain import Generations
from gentrain.running.records import mend_records
from gentrain.store import disk
from gentrain.store.run import RunStore
from gentrain.store.study_record import StudyRecord
from gentrain.study.lineage import build_chain
from tests.finished import finish

HOUR = 3600


@pytest.fixture
def folder(tmp_path):
    return RunStore(str(tmp_path)).study("s")


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_write_that_is_killed_leaves_a_file_that_the_next_run_sweeps(folder, tmp_path):
    code = (
        "import os, signal\n"
        "from gentrain.store.run import RunStore\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"RunStore({str(tmp_path)!r}).study('s').write('a', b'content')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    (left,) = os.listdir(folder.path)
    assert re.fullmatch(r"\.[0-9a-f]{8}-\d+-[0-9a-f]{8}\.tmp", left)
    assert folder.names() == []
    folder.sweep()
    assert os.listdir(folder.path) == []


def test_only_what_nobody_writes_any_more_is_swept(folder):
    folder.write("results", b"kept")
    host, dead = disk._host(), dead_process()
    kept = [f".{host}-{os.getpid()}-1.tmp", f".0123abcd-{dead}-1.tmp", ".results.1.0123.tmp", "mine.tmp", ".mine"]
    swept = [f".{host}-{dead}-1.tmp", f".0123abcd-{dead}-2.tmp", ".results.1.4567.tmp", ".writable-0123"]
    for name in (*kept, *swept):
        with open(f"{folder}/{name}", "w") as file:
            file.write("x")
    os.mkdir(f"{folder}/.folder.tmp")
    for name in (*swept[1:], "mine.tmp", ".mine"):
        os.utime(f"{folder}/{name}", (0, time.time() - HOUR - 60))
    folder.sweep()
    assert sorted(os.listdir(folder.path)) == sorted([*kept, "results", ".folder.tmp"])


def test_a_run_sweeps_the_folders_that_it_opens(small, tmp_path):
    """Each by the first thing that a run does with it."""
    store = RunStore(str(tmp_path))
    chain = build_chain(small("generations=0"), data="d", num_classes=10)
    finish(store, chain.specs[0], seconds=1.0)
    record = StudyRecord(chain.settings, store=store)
    record.begin([chain])
    paths = [".", "studies/small", "studies/small/chains", f"generations/{chain.keys[0]}"]
    litter = [tmp_path / path / f".{disk._host()}-{dead_process()}-0.tmp" for path in paths]
    for path in litter:
        path.write_text("x")
    store.check_writable()
    record.begin([chain])
    mend_records(chain.specs, Generations(store, []), store=store, observe=pytest.fail)
    assert [path for path in litter if path.exists()] == []


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "dangling"])
def test_a_lock_that_is_a_link_is_refused_and_its_target_untouched(folder, tmp_path, there):
    target = tmp_path / "precious"
    if there:
        target.write_text("content")
    os.makedirs(folder.path)
    os.symlink(target, f"{folder}/.lock")
    with pytest.raises(StoreError) as error, folder.locked(waiting=pytest.fail):
        pass
    assert str(error.value) == f"{folder}/.lock: is a link, which isn't followed here; delete it"
    assert not folder.lock_held()
    assert target.read_text() == "content" if there else not target.exists()


def test_who_waits_for_a_lock_learns_for_whom(folder, tmp_path):
    code = (
        "import sys\nfrom gentrain.store.locks import name_holder\nfrom gentrain.store.run import RunStore\n"
        f"with RunStore({str(tmp_path)!r}).study('s').locked(waiting=lambda: None, holder=name_holder('training x')):\n"
        "    print('held', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        said = []

        def waiting():
            said.append(folder.lock_holder())
            other.stdin.write("\n")
            other.stdin.flush()

        with folder.locked(waiting=waiting):
            assert f"process {os.getpid()} on" in folder.lock_holder()
    node = re.escape(os.uname().nodename)
    assert re.fullmatch(rf"training x, process {other.pid} on {node}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d", said[0])
    assert folder.lock_holder() == ""
