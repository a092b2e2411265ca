"""Seconds an epoch on this machine, by training a few steps of every network and kind of task."""

from __future__ import annotations

import math
import tempfile

from gentrain.data.prepare.manifest import Manifest
from gentrain.data.prepare.share import prepare_shared
from gentrain.running.chain import run_chain
from gentrain.running.local import LocalRunner
from gentrain.running.networks import check_networks
from gentrain.running.plan import Measured
from gentrain.store.done import EPOCHS
from gentrain.store.folder import decode_table
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_chain
from gentrain.study.loading import parse_study
from gentrain.study.losses import OwnTeacher
from gentrain.study.schema import Study
from gentrain.train.precision import worker_threads

STEPS = 15


def measure_study(study: Study, manifest: Manifest) -> Measured:
    """Train a few steps of every network and kind of task here, in a temporary folder, and return seconds an epoch.

    A part of the training set makes an epoch of `STEPS` steps; the second one is timed. Of several workers one is
    timed, with its share of the batch and its threads: what they exchange isn't in the figure. With
    `compile: auto` the steps are eager.
    """
    measured: dict[tuple[str, str], float] = {}
    count = manifest.splits["train"].count
    for network in dict.fromkeys(network for point in study.points() for network in point.trained_networks):
        small = _shrunk(study, network, classes=len(manifest.classes))
        with tempfile.TemporaryDirectory(prefix="gentrain-measure-") as folder:
            store = RunStore(folder)
            data = prepare_shared(small.dataset, store)
            check_networks(small, data.manifest)
            chain = build_chain(small, data=data.manifest.fingerprint, num_classes=data.num_classes)
            runner = LocalRunner(small, store=store, data=data.folder.name, observe=lambda _: None)
            for row in run_chain(chain, store=store, runner=runner, observe=lambda _: None):
                epochs = decode_table(store.generation(row["key"]).read_verified(EPOCHS))
                kind = "student" if row["generation"] else "patriarch"
                measured[network, kind] = count / epochs[-1]["images_per_second"] / study.workers
    return measured


def _shrunk(study: Study, network: str, *, classes: int) -> Study:
    """Return a study of a patriarch and a student of the network, two epochs of `STEPS` steps each."""
    batch = study.recipe.batch_size // study.workers
    settings = study.dump() | {"grid": {}, "generations": 1, "workers": 1, "evaluate_every": 2, "patience": None}
    settings |= {"network": {"name": network}, "scheduler": {}, "pretrained": []}
    settings["cpus_per_worker"] = worker_threads(study)
    settings["process"] |= {"lambda": 0.5, "teacher": "previous", "last": None}
    if isinstance(study.process.patriarch, OwnTeacher):  # whose steps are those of a student
        settings["process"]["patriarch"] = {"name": "score_difference"}
    settings["dataset"] |= {"limit": math.ceil(STEPS * batch / classes)}
    settings["recipe"] |= {"epochs": 2, "milestones": [], "warmup_epochs": 0, "cycles": 1, "batch_size": batch}
    return parse_study(settings, where="--measure")
