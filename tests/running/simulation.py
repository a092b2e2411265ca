"""A cluster in one thread: the real scheduling code under a simulated clock, store and failures.

Chains are greenlets that run `ensure_generation`, `acquire_lease` and `LeaseTable` as they are in a sweep; time passes
only where they sleep. Chains are killed, cut off and started again, the lease table loses its memory, devices come and
go.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
from functools import partial
from types import SimpleNamespace

from greenlet import getcurrent, greenlet

from gentrain.errors import TakenOverError, TrainingError
from gentrain.running.chain import ensure_generation
from gentrain.running.leases import LEASE_SECONDS, LeaseTable, acquire_lease
from gentrain.store.record import Claim
from gentrain.study.lineage import build_forest
from gentrain.study.loading import parse_study

RENEW = LEASE_SECONDS / 10
EPOCHS = 3
LIMIT = 1e6


class Killed(BaseException):
    """`kill -9`: nothing that the chain still does has an effect."""


class Clock:
    """Time, which passes where greenlets sleep, and all chance."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self._events: list[tuple[float, int, object]] = []
        self._order = itertools.count()
        self.hub = getcurrent()

    def after(self, seconds: float, action: object) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), action))

    def sleep(self, seconds: float) -> None:
        me = getcurrent()
        self.after(seconds, me)
        self.hub.switch()

    def run(self) -> None:
        while self._events:
            self.now, _, action = heapq.heappop(self._events)
            assert self.now < LIMIT, "time without end"
            if isinstance(action, greenlet):
                if not action.dead:
                    action.switch()
            else:
                action()


class World(Clock):
    """The clock, the cluster, the store and what went wrong."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.done: set[str] = set()
        self.epochs: dict[str, int] = {}
        self.owner: dict[str, str] = {}
        self.trained: list[str] = []
        self.failed: list[str] = []
        self.lost_epochs = 0
        self.wasted_epochs = 0
        self.at_work: dict[str, str] = {}
        """Keys by holder, for holders that train and can be reached."""
        self.slots = self.random.randint(1, 4)
        self.most_at_work = 0


class ChainProcess:
    """A trial: runs its chain, and starts again when it is killed."""

    def __init__(self, world: World, cluster: Cluster, chain) -> None:
        self.world, self.cluster, self.chain = world, cluster, chain
        self.ended: str | None = None
        self.start()

    def start(self) -> None:
        self.holder = f"{self.chain.name} {next(self.cluster.holders)}"
        self.greenlet = greenlet(partial(self._run, self.holder))
        self.world.after(self.world.random.uniform(0, 2), self.greenlet)

    def kill(self) -> None:
        if self.ended or self.greenlet.dead:
            return
        self.world.at_work.pop(self.holder, None)
        self.holder = None  # its requests are ignored from now on
        if self.greenlet:  # has begun
            self.greenlet.throw(Killed)
        self.start()

    def _run(self, holder: str) -> None:
        try:
            while self.holder == holder:
                with contextlib.suppress(TakenOverError):
                    for spec in self.chain.specs:
                        ensure_generation(
                            spec, store=self.cluster, runner=_Runner(self, holder), observe=lambda _: None
                        )
                    self.ended = "done"
                    return
        except TrainingError as error:
            self.ended = str(error)
        except Killed:
            pass


class _Runner:
    """One process's view of the cluster."""

    def __init__(self, process: ChainProcess, holder: str) -> None:
        self.process, self.holder = process, holder
        self.world, self.cluster = process.world, process.cluster

    def ask(self, question, key, *arguments):
        if self.process.holder != self.holder:
            raise Killed
        self.world.sleep(0.001)
        table = self.cluster.table
        if question == "reopen":
            return table.reopen(key)
        if question == "error":
            return table.error(key)
        if question == "release":
            return table.release(key, self.holder, finished=arguments[0], error=arguments[1])
        return getattr(table, question)(key, self.holder, self.world.now)

    @contextlib.contextmanager
    def lease(self, spec, *, waiting):
        valid = lambda: spec.key in self.world.done  # noqa: E731
        assert self.holder not in self.world.at_work, "waits while it holds a device"
        if not acquire_lease(self.ask, spec.key, valid=valid, waiting=lambda: waiting(""), sleep=self.world.sleep):
            yield None
            return
        failure = None
        try:
            yield Claim(token=self.holder)
        except TrainingError as error:
            failure = error
            raise
        finally:
            self.world.at_work.pop(self.holder, None)
            self.ask("release", spec.key, valid(), failure)

    def run_generation(self, spec, *, claim, weights_done=False):
        world, key = self.world, spec.key
        world.owner[key] = self.holder
        self._work(key)
        while (epoch := world.epochs.get(key, 0)) < EPOCHS:
            self._train_an_epoch(key)
            if world.owner[key] != self.holder:
                world.wasted_epochs += 1
                raise TakenOverError(key)
            if key in self.cluster.doomed:
                world.failed.append(key)
                raise TrainingError(f"{key} can't be trained")
            world.epochs[key] = epoch + 1
        assert key not in world.done, "trained twice"
        world.done.add(key)
        world.trained.append(key)
        world.at_work.pop(self.holder, None)

    def _work(self, key):
        others = [holder for holder, other in self.world.at_work.items() if other == key and holder != self.holder]
        assert not others, f"{key} is trained by {others} too"
        self.world.at_work[self.holder] = key
        self.world.most_at_work = max(self.world.most_at_work, len(self.world.at_work))
        assert len(self.world.at_work) <= self.world.slots, "more trainings than devices"

    def _train_an_epoch(self, key):
        world = self.world
        left = world.random.expovariate(1 / 6)
        if world.random.random() < self.cluster.cut_off:  # its node is cut off for longer than a lease lasts
            world.at_work.pop(self.holder, None)
            world.sleep(LEASE_SECONDS * 1.5)
            if world.owner[key] == self.holder:
                if not self.ask("renew", key):
                    raise TakenOverError(key)
                if len(world.at_work) >= world.slots:
                    return  # its device was never given up; the table may have promised it meanwhile
                self._work(key)
        while left > 0:
            world.sleep(min(left, RENEW))
            left -= RENEW
            if world.owner[key] == self.holder:
                self.ask("renew", key)


class Cluster:
    """Chains, their store and their lease table."""

    def __init__(self, world: World) -> None:
        self.world, draw = world, world.random
        lams = draw.sample([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], draw.randint(1, 5))
        process = [{"f_a1": f, "lambda": lam} for f in draw.sample([0.6, 0.8, 1.0], draw.randint(1, 3)) for lam in lams]
        grid = {"process": process, "seed": list(range(draw.randint(1, 2)))}
        study = parse_study({"generations": draw.randint(1, 3), "grid": grid}, where="simulation")
        self.forest = build_forest(study, data="d", num_classes=10)
        keys = list(self.forest.specs)
        self.doomed = {key for key in keys if draw.random() < draw.choice([0, 0, 0.1])}
        self.cut_off = draw.choice([0, 0, 0.02])
        self.holders = itertools.count()
        self.forgotten = 0
        self.priorities = {key: draw.random() for key in keys}
        self.table = LeaseTable(self.priorities, slots=world.slots)
        self.processes = [ChainProcess(world, self, chain) for chain in self.forest.chains]
        for _ in range(draw.choice([0, 2, 8])):
            world.after(draw.uniform(0, 120), draw.choice([self.kill, self.kill, self.forget, self.grow]))

    def kill(self) -> None:
        self.world.random.choice(self.processes).kill()

    def forget(self) -> None:
        self.forgotten += 1
        self.table = LeaseTable(self.priorities, slots=self.world.slots, recovering=True)

    def grow(self) -> None:
        self.world.slots += 1
        self.table.slots = self.world.slots

    def generation(self, key: str):
        done = key in self.world.done
        inspection = SimpleNamespace(done=done or None, valid=done, damaged=())
        return SimpleNamespace(
            inspect=lambda: self.generation(key).inspection, inspection=inspection, training=False,
            clear_training=lambda: None, make_ready=lambda: None, folder=key,
        )  # fmt: skip


def simulate(seed: int) -> Cluster:
    """Run one cluster to its end and check what must always hold; assertions name the seed."""
    world = World(seed)
    cluster = Cluster(world)
    try:
        world.run()
        for process in cluster.processes:
            doomed = next((key for key in process.chain.keys if key in cluster.doomed), None)
            wanted = "done" if doomed is None else f"{doomed} can't be trained"
            assert process.ended == wanted, f"{process.chain.name} ended as {process.ended}, not {wanted}"
        assert len(world.trained) == len(set(world.trained)), "a network was trained twice"
        reachable = {k for p in cluster.processes if p.ended == "done" for k in p.chain.keys}
        assert reachable <= world.done
        tries = max((world.failed.count(key) for key in world.failed), default=0)
        assert tries <= 1 + cluster.forgotten, "a training that failed for good was tried again"
        assert not world.at_work
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
    return cluster
