"""From a study to its results: prepare the data, build the chain, choose the runner, run."""

from __future__ import annotations

import functools
import io
import math
import tempfile
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gentrain.data.prepare.dataset import PreparedData, find_manifest, prepare, prepared_name
from gentrain.data.prepare.manifest import Manifest
from gentrain.data.prepare.share import obtain, publish, published
from gentrain.errors import ConfigError, StoreError, TrainingError
from gentrain.events import Event, GenerationDone, InChain, Note, Observer, SweepStarted
from gentrain.run.chain import lease_by_lock, missing_keys, run_chain
from gentrain.run.plan import Measured, Plan, make_plan, starting_order, urgencies
from gentrain.run.pretrained import PretrainedNetworks
from gentrain.store.generation import DONE, EPOCHS
from gentrain.store.run import RunStore
from gentrain.store.study_record import StudyRecord
from gentrain.study.lineage import Chain, GenerationSpec, build_chain, build_forest
from gentrain.study.loading import parse_study
from gentrain.study.schema import Study

MEASURED_STEPS = 15


def prepare_data(study: Study, *, store: RunStore, observe: Observer) -> PreparedData:
    """Return the study's prepared dataset, compiled now if it isn't there or is damaged."""
    name = prepared_name(study.dataset)
    if published(name, store):
        return obtain(name, store)
    data = prepare(study.dataset, store.data, notify=lambda text: observe(Note(text)))
    publish(data, store)
    return data


def check_networks(study: Study, manifest: Manifest) -> None:
    """Refuse networks that can't take the dataset's images, before anything is started."""
    from gentrain.models.cost import check_fits

    given = [entry.network or study.network.name for entry in study.pretrained]
    trained = [network for point in study.points() for network in point.trained_networks]
    folded = (*given, *study.teaching_networks) if study.fold_batchnorm else ()
    shape = {"num_classes": len(manifest.classes), "height": manifest.height, "width": manifest.width}
    for network in dict.fromkeys((*given, *trained)):
        try:
            check_fits(network, **shape, folded=network in folded)
        except ValueError as error:
            raise ConfigError(f"{study.name}: {error}") from None


def tell_slow_precision(study: Study, manifest: Manifest, observe: Observer) -> None:
    """Say in a line when this machine's CPU is slow in the study's precision; a look of a second, for CPUs only."""
    import torch

    from gentrain.train.precision import quick_batch, time_precisions, told_slow, worker_threads

    if study.device != "cpu" and torch.cuda.is_available():
        return
    name = study.network.name
    shape = {"num_classes": len(manifest.classes), "height": manifest.height, "width": manifest.width}
    if batch := quick_batch(name, batch=study.recipe.batch_size, **shape):
        seconds = time_precisions(name, batch=batch, threads=worker_threads(study), device=torch.device("cpu"), **shape)
        if told := told_slow(name, study.precision, seconds):
            observe(Note(told, "warning"))


def plan_study(study: Study, *, runs: str, devices: float, price: float | None, measure: bool = False) -> Plan:
    """Return what the study's whole grid will cost; nothing is prepared, written or started, but to `measure`."""
    store = RunStore(runs)
    if measure:
        prepare_data(study, store=store, observe=lambda _: None)
    manifest = find_manifest(study.dataset, store.data)
    return make_plan(
        study,
        store=store,
        data=manifest.fingerprint if manifest else None,
        num_classes=len(manifest.classes) if manifest else None,
        devices=devices,
        price=price,
        measured=measure_study(study, manifest) if measure and manifest else None,
    )


def measure_study(study: Study, manifest: Manifest) -> Measured:
    """Train a few steps of every network and kind of task here, in a folder of its own, and return seconds an epoch.

    A part of the training set makes an epoch of `MEASURED_STEPS` steps; the second one is timed. Of several workers one
    is timed, with its share of the batch: what they tell each other isn't in the figure.
    """
    from gentrain.run.local import LocalRunner

    study = study if study.grid.empty else _for_sweeps(study)
    measured: dict[tuple[str, str], float] = {}
    count = manifest.splits["train"].count
    for network in dict.fromkeys(network for point in study.points() for network in point.trained_networks):
        batch = study.recipe.batch_size // study.workers
        settings = study.dump() | {"grid": {}, "generations": 1, "workers": 1, "evaluate_every": 2, "patience": None}
        settings |= {"network": {"name": network}, "scheduler": {}, "pretrained": []}
        settings["process"] |= {"lambda": 0.5, "teacher": "previous"}
        settings["dataset"] |= {"limit": math.ceil(MEASURED_STEPS * batch / len(manifest.classes))}
        settings["recipe"] |= {"epochs": 2, "milestones": [], "warmup_epochs": 0, "batch_size": batch}
        with tempfile.TemporaryDirectory(prefix="gentrain-measure-") as folder:
            small, store = parse_study(settings, where="--measure"), RunStore(folder)
            data = prepare_data(small, store=store, observe=lambda _: None)
            chain = build_chain(small, data=data.manifest.fingerprint, num_classes=data.num_classes)
            runner = LocalRunner(small, store=store, data=data.folder.name, observe=lambda _: None)
            for row in run_chain(chain, study=small, store=store, runner=runner, observe=lambda _: None):
                epochs = pq.read_table(io.BytesIO(store.generation(row["key"]).read_verified(EPOCHS))).to_pylist()
                kind = "student" if row["generation"] else "patriarch"
                measured[network, kind] = count / epochs[-1]["images_per_second"] / study.workers
    return measured


def launch_chain(
    study: Study, *, runs: str, observe: Observer, address: str | None = None, local: bool = False
) -> list[dict[str, Any]]:
    """Run the study's chain to its end on Ray, or in this process; return the rows of results.parquet."""
    if not study.grid.empty:
        raise ConfigError(f"{study.name}: a study with a grid is more than one chain; take `grid` out of it")
    store = RunStore(runs)
    store.check_writable()
    _check_resources(study, address=address, local=local)
    data = prepare_data(study, store=store, observe=observe)
    check_networks(study, data.manifest)
    given = PretrainedNetworks(store, data=data.manifest.fingerprint, num_classes=data.num_classes)
    chain = build_chain(study, data=data.manifest.fingerprint, num_classes=data.num_classes, resolve=given)
    given.adopt()
    record = StudyRecord(study, store=store)
    record.begin([chain])
    observe = recording(record, observe)
    if address is None and any(store.generation(key).read(DONE) is None for key in chain.keys[chain.pretrained :]):
        tell_slow_precision(study, data.manifest, observe)
    if local:
        from gentrain.run.local import LocalRunner

        debug = LocalRunner(study, store=store, data=data.folder.name, observe=observe)
        return run_chain(chain, study=study, store=store, runner=debug, observe=observe)
    from gentrain.cluster.session import ray_session

    log = _ray_log(store, study)
    observe(Note(f"{f'connecting to Ray at {address}' if address else 'starting Ray'}; what it says goes to {log}"))
    with ray_session(address=address, log=log, name=study.name) as dashboard:
        observe(_told_dashboard(dashboard))
        from gentrain.cluster.capacity import capacity, scaled_up
        from gentrain.cluster.trainer import RayRunner

        runner = RayRunner(
            study,
            store=store,
            data=data.folder.name,
            chain=chain.name,
            observe=observe,
            resources=capacity(study, scaled_up()).resources,
        )
        return run_chain(chain, study=study, store=store, runner=runner, observe=observe)


def launch_sweep(
    study: Study,
    *,
    runs: str,
    observe: Observer,
    address: str | None = None,
    extend: bool = False,
    local: bool = False,
) -> list[dict[str, Any]]:
    """Run every chain of the study's grid to its end on Ray, or one after the other in this process (`local`).

    Chains that are finished are verified and read here, without Ray: a sweep that is complete ends in seconds.

    Returns:
        The rows of results.parquet.

    Raises:
        ConfigError: when a sweep of this name wanted something else before.
        TrainingError: when chains could not be finished, naming each; the others are.
    """
    study = study if local else _for_sweeps(study)
    store = RunStore(runs)
    store.check_writable()
    _check_resources(study, address=address, local=local)
    data = prepare_data(study, store=store, observe=observe)
    check_networks(study, data.manifest)
    given = PretrainedNetworks(store, data=data.manifest.fingerprint, num_classes=data.num_classes)
    forest = build_forest(study, data=data.manifest.fingerprint, num_classes=data.num_classes, resolve=given)
    points = dict(zip((chain.name for chain in forest.chains), study.points(), strict=True))
    record = StudyRecord(study, store=store)
    record.check_unchanged(forest.chains, extend=extend)
    stopped = record.stopped()
    given.adopt()
    record.begin(forest.chains, stopped=stopped)
    observe(
        Note(
            f"{study.name}: {len(forest.chains)} chains of {forest.wanted} generations, "
            f"{len(forest.trainings)} distinct trainings"
        )
    )
    keys = {chain.name: chain.keys for chain in forest.chains}
    observe(SweepStarted(study.name, study.recipe.epochs, keys, str(record.folder)))
    finished = _Finished(points, store=store, observe=observe)
    missing = finished.read(forest.chains, skip=stopped)
    failed: Mapping[str, str] = {}
    interrupted = False
    if left := {key for keys in missing.values() for key in keys}:
        plan = make_plan(
            study, store=store, data=data.manifest.fingerprint, num_classes=data.num_classes, devices=math.inf
        )
        chains = starting_order(plan, missing)
        if address is None:
            tell_slow_precision(study, data.manifest, observe)
        tell = recording(record, observe)
        if local:
            from gentrain.run.local import run_chains

            observe(Note(f"{len(left)} trainings to do, one after the other in this process"))
            failed = run_chains(chains, points, store=store, data=data.folder.name, observe=tell)
        else:
            from gentrain.cluster.session import ray_session

            log = _ray_log(store, study)
            observe(Note(f"{len(left)} trainings to do; starting Ray, what it says goes to {log}"))
            with ray_session(address=address, log=log, name=study.name) as dashboard:
                observe(_told_dashboard(dashboard))
                from gentrain.cluster.sweep import run_trials

                outcome = run_trials(chains, points, urgencies(plan), store=store, data=data.folder.name, observe=tell)
            failed = {name: str(error) for name, error in outcome.failed.items()}
            stopped, interrupted = stopped | outcome.stopped, outcome.interrupted
        missing = finished.read(chains)
        record.begin(forest.chains, stopped=stopped & missing.keys(), failed=failed)
    record.add(finished.rows)
    if interrupted and missing:
        raise KeyboardInterrupt
    if failed:
        told = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise TrainingError(f"{len(failed)} of {len(forest.chains)} chains are not finished: {told}")
    return sorted(finished.rows, key=lambda row: (row["chain"], row["generation"]))


def _check_resources(study: Study, *, address: str | None, local: bool) -> None:
    """Refuse what can be refused before minutes go into preparing the data."""
    if local:
        from gentrain.run.local import LocalRunner

        LocalRunner.check(study)
        return
    from gentrain.cluster.session import fit_resources, own_resources, probe

    if address is None:
        fit_resources(study, own_resources())
    else:
        probe(address)


class _Finished:
    """Reads chains that are finished, without Ray; what is missing of the others."""

    def __init__(self, points: Mapping[str, Study], *, store: RunStore, observe: Observer) -> None:
        self._points, self._store, self._observe = points, store, observe
        self.rows: list[dict[str, Any]] = []

    def read(self, chains: Iterable[Chain], *, skip: Container[str] = ()) -> dict[str, tuple[str, ...]]:
        """Add the rows of the chains that are finished; return the keys that the others miss, by their names."""
        inspect = functools.cache(lambda key: self._store.generation(key).inspect())
        missing: dict[str, tuple[str, ...]] = {}
        for chain in chains:
            study = self._points[chain.name]
            if left := missing_keys(chain, study=study, inspect=inspect):
                if chain.name not in skip:
                    missing[chain.name] = left
                continue

            def observe(event: Event, chain: Chain = chain) -> None:
                self._observe(InChain(chain.name, event))

            runner = _NoRunner(self._store)
            self.rows += run_chain(chain, study=study, store=self._store, runner=runner, observe=observe)
        return missing


class _NoRunner:
    """For chains that are finished: nothing is left to train."""

    def __init__(self, store: RunStore) -> None:
        self.lease = lease_by_lock(store)

    def run_generation(self, spec: GenerationSpec, *, weights_done: bool = False) -> None:
        raise StoreError(f"generation {spec.generation} ({spec.key}) vanished meanwhile; run the same command again")


def _for_sweeps(study: Study) -> Study:
    """Give a worker one CPU where the study doesn't say: chains side by side use the cores better than threads do."""
    if study.cpus_per_worker is None and study.device != "cuda" and not study.gpus_per_worker:
        return study.model_copy(update={"cpus_per_worker": 1})
    return study


def recording(record: StudyRecord, observe: Observer) -> Observer:
    """Return an observer that puts finished generations into the study's table before it passes them on."""

    def both(event: Event) -> None:
        inner = event.event if isinstance(event, InChain) else event
        if isinstance(inner, GenerationDone):
            record.add([inner.row])
        observe(event)

    return both


def _told_dashboard(url: str) -> Note:
    if not url:
        return Note("Ray has no dashboard here")
    return Note(f"Ray's dashboard: http://{url} (it asks for the token that `ray get-auth-token` prints)")


def _ray_log(store: RunStore, study: Study) -> Path:
    return store.data.parent / "studies" / study.name / "ray.log"
