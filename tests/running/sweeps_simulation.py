"""Sweeps that share one object store, in one thread: the real claims, leases and records over a store that misbehaves.

Chains are greenlets that run `ensure_generation`, `leased`, `SwappedRecord` and `GenerationFolder.finish` as they are;
time passes where they sleep, and before every request. Requests are refused, get lost, are done without an
answer or long after it; processes sleep longer than a claim lasts, die and start again; files are damaged. The store
judges every change of a record by itself, without looking at what its writer believes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from functools import lru_cache, partial

from greenlet import greenlet

from gentrain.errors import StoreError
from gentrain.running.chain import ensure_generation
from gentrain.running.leases import LeaseTable, leased
from gentrain.store.claims import RENEW_SECONDS, RecordClaimant
from gentrain.store.done import MODEL, PREDICTIONS
from gentrain.store.generation import GenerationFolder
from gentrain.store.record import RECORD, Record, SwappedRecord
from gentrain.study.lineage import build_forest
from gentrain.study.loading import parse_study
from tests.running.bucket import Bucket, Client
from tests.running.simulation import Clock, Killed

EPOCHS = 2
FACTS = {
    "scores": {"top1_error": 0.5, "top5_error": 0.1, "nll": 1.0, "ece": 0.1, "primary": 0.6},
    "train_primary": 0.6, "seconds": 1.0, "workers": 1, "threads": 1, "device": "cpu", "versions": {},
}  # fmt: skip


class SimulatedFolder(GenerationFolder):
    """A generation's folder in the bucket, for one process."""

    def __init__(self, client: Client, key: str) -> None:
        self.client, self.key, self.path, self.objects, self.local = client, key, key, client, False
        self.record = SwappedRecord(self, key, client, sleep=client.process.sleep)

    training = False

    def make_ready(self) -> None:  # killed writes leave nothing in an object store
        pass

    def clear_training(self) -> None:
        pass

    def names(self):
        return sorted(path.partition("/")[2] for path in self.client.bucket.objects if path.startswith(self.key))

    def read(self, name):
        versioned = self.client.read(f"{self.key}/{name}")
        return versioned.content if versioned else None

    def write(self, name, content):
        self.client.pause()
        self.client.bucket.put(f"{self.key}/{name}", content, self.client.process)

    def claimant(self, holder):
        return SimulatedClaimant(self.record, self.client.process, holder)


class SimulatedClaimant(RecordClaimant):
    """Claims whose renewing thread is a greenlet."""

    def __init__(self, record, process, holder):
        super().__init__(record, holder=holder, clock=lambda: process.clock.now)
        self.process = process

    @contextlib.contextmanager
    def kept(self, claim):
        process, life, ended = self.process, self.process.life, []

        def renew():
            with contextlib.suppress(Killed):
                while True:
                    process.sleep(RENEW_SECONDS, life)
                    if ended:
                        return
                    with contextlib.suppress(StoreError):
                        self.renew(claim)

        process.clock.after(0, process.helper(renew))
        try:
            yield
        finally:
            ended.append(True)
            with contextlib.suppress(StoreError):
                self.release(claim)


class Process:
    """A chain of one sweep; it sleeps, dies, and starts again."""

    def __init__(self, sweep: Sweep, name: str) -> None:
        self.sweep, self.clock, self.name = sweep, sweep.clock, name
        self.client = Client(sweep.bucket, self, sweep.trouble)
        self.life, self.asleep_until, self.done = 0, 0.0, False
        self.start()

    def __str__(self) -> str:
        return f"{self.name}.{self.life}"

    def start(self) -> None:
        self.life += 1
        self.helpers: list[greenlet] = [self.helper(partial(self._run, self.life))]
        self.clock.after(self.clock.random.uniform(0, 2), self.helpers[0])

    def helper(self, action) -> greenlet:
        """Return a greenlet that ends with this life of the process."""
        child = greenlet(action, parent=self.clock.hub)
        child.life, child.process = self.life, self
        return child

    def kill(self) -> None:
        if not self.done:
            self.start()  # greenlets of the former life end when they wake

    def stop(self, seconds: float) -> None:
        self.asleep_until = max(self.asleep_until, self.clock.now + seconds)

    def sleep(self, seconds: float, life: int | None = None) -> None:
        life = greenlet.getcurrent().life if life is None else life
        self.clock.sleep(seconds)
        while self.clock.now < self.asleep_until and life == self.life:
            self.clock.sleep(self.asleep_until - self.clock.now)
        if life != self.life:
            raise Killed

    def _run(self, life: int) -> None:
        with contextlib.suppress(Killed):
            for spec in specs():
                while True:
                    try:
                        ensure_generation(spec, store=self.sweep, runner=_Runner(self), observe=self.sweep.observe)
                        break
                    except StoreError:  # taken over, not answered, or damaged meanwhile
                        self.sleep(1.0)
            self.done = True

    def generation(self, key: str) -> SimulatedFolder:
        return SimulatedFolder(self.client, key)


class _Runner:
    def __init__(self, process: Process) -> None:
        self.process = process
        self.holder = f"{process} {next(process.sweep.holders)}"

    def ask(self, question, key, *arguments):
        self.process.sleep(0.001)
        table = self.process.sweep.table
        if question == "release":
            return table.release(key, self.holder, finished=arguments[0], error=None)
        if question in ("reopen", "error"):
            return getattr(table, question)(key)
        return getattr(table, question)(key, self.holder, self.process.clock.now)

    @contextlib.contextmanager
    def renewing(self, key):
        process, life, ended = self.process, self.process.life, []

        def renew():
            with contextlib.suppress(Killed):
                while not ended:
                    process.sleep(2.0, life)
                    if not ended:
                        process.sweep.table.renew(key, self.holder, process.clock.now)

        process.clock.after(0, process.helper(renew))
        try:
            yield
        finally:
            ended.append(True)

    def lease(self, spec, *, waiting):
        process = self.process
        folder = process.generation(spec.key)
        renewing = partial(self.renewing, spec.key)
        return leased(self.ask, folder, holder=str(process), renewing=renewing, waiting=waiting, sleep=process.sleep)

    def run_generation(self, spec, *, claim, weights_done=False):
        process, draw = self.process, self.process.clock.random
        folder, epochs = process.generation(spec.key), process.sweep.epochs
        while epochs.get(spec.key, 0) < EPOCHS:
            process.sleep(draw.expovariate(1 / 5))
            folder.check_claim(claim.token)
            epochs[spec.key] = epochs.get(spec.key, 0) + 1
        variant = draw.choice("abc")  # other numbers of workers, say: not always the same bits
        files = {MODEL: f"{spec.key} {variant}".encode(), PREDICTIONS: f"{spec.key} {draw.choice('xy')}".encode()}
        folder.finish(files, token=claim.token, **FACTS)


class Sweep:
    """A driver with a lease table and chains; of several, each is on another cluster."""

    def __init__(self, number: int, clock: Clock, bucket: Bucket, epochs: dict[str, int]) -> None:
        self.clock, self.bucket, self.epochs = clock, bucket, epochs
        self.trouble = clock.random.choice([0, 0.02, 0.2])
        self.table = LeaseTable({}, slots=clock.random.randint(1, 2))
        self.holders = itertools.count()
        self.waited_for: set[str] = set()
        self.current: Process | None = None
        self.processes = [Process(self, f"sweep {number}, chain {c}") for c in range(clock.random.randint(1, 2))]

    def observe(self, event) -> None:
        if getattr(event, "holder", ""):
            self.waited_for.add(event.holder)

    def generation(self, key: str) -> SimulatedFolder:
        """Return the folder as the process that runs now sees it."""
        return greenlet.getcurrent().process.generation(key)


@lru_cache
def specs():
    """Return a patriarch and its student."""
    study = parse_study({"generations": 1}, where="simulation")
    (chain,) = build_forest(study, data="d", num_classes=10).chains
    return chain.specs


def simulate_sweeps(seed: int, *, ignored: str = "") -> Bucket:
    """Run two or three sweeps on one bucket to their ends; assertions name the seed.

    Args:
        seed: of everything.
        ignored: header that the store ignores, to see the simulation notice.
    """
    clock = Clock(seed)
    draw = clock.random
    bucket, epochs = Bucket(clock, ignored=ignored), {}
    sweeps = [Sweep(number, clock, bucket, epochs) for number in range(draw.randint(2, 3))]
    processes = [process for sweep in sweeps for process in sweep.processes]
    for _ in range(draw.choice([0, 2, 5])):
        process = draw.choice(processes)
        action = draw.choice([process.kill, partial(process.stop, draw.uniform(20, 100)), partial(_damage, bucket)])
        clock.after(draw.uniform(0, 60), action)
    try:
        clock.run()
        for process in processes:
            assert process.done, f"{process} didn't end"
        for spec in specs():
            record = Record.model_validate_json(bucket.objects[f"{spec.key}/{RECORD}"])
            assert record.done, f"{spec.key} isn't finished"
            for name, file in record.done["files"].items():
                stem, suffix = name.split(".")
                path = f"{spec.key}/{stem}.{file['sha256'][:16]}.{suffix}"
                there = hashlib.sha256(bucket.objects.get(path, b"")).hexdigest() == file["sha256"]
                assert there or path in bucket.damaged, f"{path}: DONE names other bytes than are there"
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
    bucket.waited_for = {holder for sweep in sweeps for holder in sweep.waited_for}
    return bucket


def _damage(bucket: Bucket) -> None:
    files = sorted(path for path in bucket.objects if not path.endswith(RECORD))
    if files:
        bucket.damage(bucket.clock.random.choice(files))
