"""Disturb sweeps by seeded faults and compare their bits with an undisturbed one's: `make faults`.

A sweep of three chains on a cluster of two nodes, its store on a small disk or, every other time, on S3 behind a proxy
that fails. Faults come every few seconds; a driver that ends is started again by the same command.
When the faults of a sweep are used up, the command runs to its end, and once more: what it leaves must be whole and
bitwise equal.

    python -m tests.faults.campaign --faults 200 --write docs/campaign.md
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gentrain.store.run import RunStore
from tests.faults.faults import FAULTS
from tests.faults.proxy import FaultyProxy
from tests.faults.scene import DEADLINE, Scene, as_line, reference, settings, small_disk, wait_for_checkpoint
from tests.s3 import s3_server

STUDY = settings("dataset.limit=60", "recipe.epochs=20", "recipe.milestones=[15]", "network.name=resnet14")
A_SWEEP = 12
"""Faults in one sweep, at most."""
PATIENCE = 60
"""Seconds that a fault waits for something to hit: a finished generation's file, say."""
RARE = {"SIGKILL GCS": 0.2, "SIGKILL raylet": 0.4}
"""Weights of faults that cost a minute: Ray looks that long for its GCS."""


class TwoNodes:
    """A head and a node of one CPU each; started again when a part that everything needs was killed."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._cluster = folder, None

    @property
    def address(self) -> str:
        """Return host:port of the cluster, started now where it isn't whole."""
        if self._cluster is None or any(node.dead_processes() for node in self._cluster.list_all_nodes()):
            self.close()
            self._start()
        return str(self._cluster.address)

    def _start(self) -> None:
        from ray.cluster_utils import Cluster

        from gentrain.cluster import session  # noqa: F401  (sets what Ray reads when it is imported)

        def node(name: str) -> dict[str, Any]:
            cache = {"GENTRAIN_CACHE": str(self._folder / name)}
            return {"env_vars": cache, "num_cpus": 1, "resources": {"gentrain_driver": 2}}

        self._cluster: Any = Cluster(initialize_head=True, head_node_args=node("head"))
        self._cluster.add_node(**node("two"))
        self._cluster.wait_for_nodes()

    def close(self) -> None:
        """End both nodes."""
        if self._cluster is not None:
            with contextlib.suppress(Exception):
                self._cluster.shutdown()
        self._cluster = None


@contextlib.contextmanager
def scene(folder: Path, bucket: Any, *, seed: int, s3: bool, cluster: bool, study: tuple[str, ...]) -> Iterator[Scene]:
    """Yield a scene on S3 behind a proxy, or on a small disk; on a cluster, or in the driver's process."""
    nodes = TwoNodes(folder) if cluster else None
    with contextlib.ExitStack() as stack:
        if nodes:
            stack.callback(nodes.close)
        if s3:
            url = bucket(f"faults-{seed}")
            direct = url.partition("endpoint_override=")[2].partition("&")[0]
            host, _, port = direct.partition(":")
            proxy = FaultyProxy((host, int(port)), seed=seed)
            stack.callback(proxy.close)
            made = Scene(folder, study, url.replace(direct, proxy.address), RunStore(url), proxy=proxy, cluster=nodes)
        else:
            disk = stack.enter_context(small_disk(folder / "disk", 96))
            runs = str((disk or folder) / "runs")
            made = Scene(folder, study, runs, RunStore(runs), disk=disk, cluster=nodes)
        stack.callback(made.kill)
        made.start()
        yield made


def disturb(made: Scene, rng: random.Random, faults: list[str], *, pause: float) -> Iterator[dict[str, Any]]:
    """Do the faults to a running scene, one after the other, at most `pause` seconds apart; yield a record of each.

    Where the driver is not running, it is started first. A fault waits for something that it can hit.
    """
    for name in faults:
        if made.wait(rng.uniform(0, pause)) is not None:
            made.start()
        if rng.random() < 0.7:
            wait_for_checkpoint(made, 60)  # and else while it starts
        deadline = time.monotonic() + PATIENCE
        while not (hit := FAULTS[name](made, rng)) and time.monotonic() < deadline:
            if made.wait(0.1) is not None:
                made.start()
        if hit:
            yield {"fault": name, "status": made.wait(pause / 2)}


def finish(made: Scene) -> str:
    """Run the command to its end, and once more; return what is wrong, or "" ."""
    for _ in range(4):
        status = made.wait(0) if made.driver.poll() is not None else made.wait(DEADLINE)
        if status is None:
            made.kill()
            return f"hangs: {made.log}"
        if status == 0:
            break
        made.start()
    else:
        return f"never finishes: {made.log}"
    made.start()  # what was damaged behind the back of the last one
    if made.wait(DEADLINE) != 0:
        return f"a second run fails: {made.log}"
    return f"a traceback: {made.log}" if "Traceback" in made.log.read_text() else ""


def sweep(folder: Path, bucket: Any, wanted: dict[str, bytes], *, seed: int, **options: Any) -> list[dict[str, Any]]:
    """Run one sweep under `A_SWEEP` faults; return a record of each, with how the sweep ended."""
    rng = random.Random(seed)
    with scene(folder, bucket, seed=seed, **options) as made:
        impossible = {"disk full" if made.disk is None else "", "S3 errors" if made.proxy is None else ""}
        names = [name for name in FAULTS if name not in impossible]
        weights = [RARE.get(name, 1.0) for name in names]
        records: list[dict[str, Any]] = []
        began = time.monotonic()
        while len(records) < A_SWEEP and time.monotonic() - began < 2 * DEADLINE:
            hit = list(disturb(made, rng, rng.choices(names, weights, k=1), pause=4))
            if not hit:
                break  # the sweep is finished, and has no such process or file any more
            records += hit
        wrong = finish(made)
        equal = not wrong and made.files() == wanted
        store = "S3" if made.proxy else "disk"
        return [r | {"seed": seed, "store": store, "equal": equal, "wrong": wrong, "ends": made.ends} for r in records]


def table(records: list[dict[str, Any]]) -> str:
    """Return the Markdown table: fault, times, what the driver did, how many sweeps ended in the same bits."""
    lines = [
        "| fault | times | driver went on | driver ended, same command again | bitwise equal |",
        "|---|---|---|---|---|",
    ]
    for name, times in sorted(Counter(r["fault"] for r in records).items()):
        of = [r for r in records if r["fault"] == name]
        on = sum(r["status"] is None or r["status"] == 0 for r in of)
        lines.append(f"| {name} | {times} | {on} | {times - on} | {sum(r['equal'] for r in of)} |")
    return "\n".join(lines)


def main() -> int:
    """Run the campaign; return 1 where a sweep did not end in the same bits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--log", type=Path, default=Path("faults.jsonl"), help="records, a line each; kept and extended"
    )
    parser.add_argument("--write", type=Path, help="Markdown file for the table")
    options = parser.parse_args()
    done = [json.loads(line) for line in options.log.read_text().splitlines()] if options.log.exists() else []
    seed = max([options.seed - 1, *(r["seed"] for r in done)]) + 1
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        s3_server(monkeypatch) as bucket,
        tempfile.TemporaryDirectory() as top,
    ):
        wanted = reference(make(Path(top) / "reference"), STUDY)
        while len(done) < options.faults:
            folder = make(Path(top) / f"sweep-{seed}")
            new = sweep(folder, bucket, wanted, seed=seed, s3=bool(seed % 2), cluster=True, study=STUDY)
            with options.log.open("a") as log:
                for record in new:
                    log.write(as_line(record) + "\n")
            done += new
            bad = new and not new[0]["equal"]
            sys.stdout.write(f"seed {seed}: {[r['fault'] for r in new]}: {new[0]['wrong'] if bad else 'equal'}\n")
            sys.stdout.flush()
            if bad:
                kept = Path(f"faults-{seed}")
                subprocess.run(["cp", "-r", str(folder), str(kept)], check=False)
            seed += 1
    sys.stdout.write(table(done) + "\n")
    if options.write:
        options.write.write_text(page(done))
    return int(not all(record["equal"] for record in done))


def make(folder: Path) -> Path:
    """Return the folder, made now."""
    folder.mkdir(parents=True)
    return folder


def page(records: list[dict[str, Any]]) -> str:
    """Return the page with the table and what was done."""
    sweeps = {r["seed"]: r for r in records}
    equal = sum(r["equal"] for r in sweeps.values())
    worst = [f"- seed {seed}: {r['wrong'] or 'other bits'}" for seed, r in sweeps.items() if not r["equal"]]
    return f"""# The campaign of faults

`make faults` disturbs sweeps of three chains on a cluster of two nodes, with the store on a small disk or on S3 behind
a proxy that fails, by faults drawn from a seed, several a sweep. A driver that ends is started again by the same
command. In the end the command runs once more, and weights and predictions are compared with an undisturbed run's.
`python -m tests.faults.campaign --faults {len(records)}` gave: {len(records)} faults in {len(sweeps)} sweeps,
{equal} of which ended bitwise equal.

{table(records)}
{chr(10).join(["", "Not equal:", "", *worst]) if worst else ""}"""


if __name__ == "__main__":
    sys.exit(main())
