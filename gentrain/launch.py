"""From a study to its results: prepare the data, build the chain, choose the runner, run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gentrain.chain import run_chain
from gentrain.config import Study
from gentrain.data.prepare import PreparedData, find_manifest, prepare
from gentrain.errors import ConfigError, StoreError, TrainingError
from gentrain.events import Event, GenerationDone, Note, Observer
from gentrain.lineage import Forest, GenerationSpec, build_chain, build_forest
from gentrain.plan import Plan, make_plan
from gentrain.record import StudyRecord
from gentrain.store import RunStore


def prepare_data(study: Study, *, store: RunStore, observe: Observer) -> PreparedData:
    """Return the study's prepared dataset, compiled now if it isn't there or is damaged."""
    return prepare(study.dataset, store.data, notify=lambda text: observe(Note(text)))


def plan_study(study: Study, *, runs: str, devices: float, price: float | None) -> Plan:
    """Return what the study's whole grid will cost; nothing is prepared, written or started."""
    store = RunStore(runs)
    manifest = find_manifest(study.dataset, store.data)
    return make_plan(
        study,
        store=store,
        data=manifest.fingerprint if manifest else None,
        num_classes=len(manifest.classes) if manifest else None,
        devices=devices,
        price=price,
    )


def launch_chain(
    study: Study, *, runs: str, observe: Observer, address: str | None = None, local: bool = False
) -> list[dict[str, Any]]:
    """Run the study's chain to its end on Ray, or in this process; return the rows of results.parquet."""
    if not study.grid.empty:
        raise ConfigError(f"{study.name}: a study with a grid is more than one chain; take `grid` out of it")
    store = RunStore(runs)
    store.check_writable()
    if local:
        from gentrain.local import LocalRunner

        LocalRunner.check(study)
    else:
        from gentrain.cluster.session import fit_resources, own_resources, probe, ray_session

        if address is None:  # what can be refused is refused before minutes go into preparing the data
            fit_resources(study, own_resources())
        else:
            probe(address)
    data = prepare_data(study, store=store, observe=observe)
    chain = build_chain(study, data=data.manifest.fingerprint, num_classes=data.num_classes)
    record = StudyRecord(study, store=store)
    record.begin([chain])
    observe = recording(record, observe)
    if local:
        debug = LocalRunner(study, store=store, data=data.folder, observe=observe)
        return run_chain(chain, study=study, store=store, runner=debug, observe=observe)

    log = _ray_log(store, study)
    observe(Note(f"{f'connecting to Ray at {address}' if address else 'starting Ray'}; what it says goes to {log}"))
    with ray_session(address=address, log=log):
        from gentrain.cluster.trainer import RayRunner

        runner = RayRunner(study, store=store, data=data.folder, chain=chain.name, observe=observe)
        return run_chain(chain, study=study, store=store, runner=runner, observe=observe)


def launch_sweep(
    study: Study, *, runs: str, observe: Observer, address: str | None = None, extend: bool = False
) -> list[dict[str, Any]]:
    """Run every chain of the study's grid to its end on Ray; return the rows of results.parquet.

    Chains that are finished are verified and read here, without Ray: a sweep that is complete ends in seconds.

    Raises:
        ConfigError: when a sweep of this name wanted something else before.
        TrainingError: when chains could not be finished, naming each; the others are.
    """
    from gentrain.cluster.session import fit_resources, own_resources, probe, ray_session

    study = _for_sweeps(study)
    store = RunStore(runs)
    if not store.local:
        raise ConfigError(f"--runs {runs}: a sweep needs a disk that all nodes share; object stores have no locks yet")
    store.check_writable()
    if address is None:
        fit_resources(study, own_resources())
    else:
        probe(address)
    data = prepare_data(study, store=store, observe=observe)
    forest = build_forest(study, data=data.manifest.fingerprint, num_classes=data.num_classes)
    points = dict(zip((chain.name for chain in forest.chains), study.points(), strict=True))
    record = StudyRecord(study, store=store)
    record.check_unchanged(forest.chains, extend=extend)
    record.begin(forest.chains)
    observe(
        Note(
            f"{study.name}: {len(forest.chains)} chains of {forest.wanted} generations, "
            f"{len(forest.specs)} distinct trainings"
        )
    )
    left = _unfinished(forest, store)
    failures: dict[str, str] = {}
    if left:
        log = _ray_log(store, study)
        observe(Note(f"{len(left)} trainings to do; starting Ray, what it says goes to {log}"))
        with ray_session(address=address, log=log):
            from gentrain.cluster.sweep import run_trials

            chains = [chain for chain in forest.chains if set(chain.keys) & left]
            chains.sort(key=lambda chain: -len(set(chain.keys) & left))
            failures = run_trials(chains, points, store=store, data=data.folder, observe=recording(record, observe))
    left = _unfinished(forest, store)
    rows = []
    for chain in forest.chains:
        if not set(chain.keys) & left:
            rows += run_chain(chain, study=points[chain.name], store=store, runner=_NoRunner(), observe=lambda _: None)
    record.add(rows)
    if any(set(chain.keys) & left for chain in forest.chains if chain.name not in failures):
        raise KeyboardInterrupt  # Tune answers Ctrl-C by returning as if all were well
    if failures:
        told = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise TrainingError(f"{len(failures)} of {len(forest.chains)} chains are not finished: {told}")
    return rows


class _NoRunner:
    """For chains that are finished: nothing is left to train."""

    def run_generation(self, spec: GenerationSpec, *, weights_done: bool = False) -> None:
        raise StoreError(f"generation {spec.generation} ({spec.key}) vanished meanwhile; run the same command again")


def _for_sweeps(study: Study) -> Study:
    """Give a worker one CPU where the study doesn't say: chains side by side use the cores better than threads do."""
    if study.cpus_per_worker is None and study.device != "cuda" and not study.gpus_per_worker:
        return study.model_copy(update={"cpus_per_worker": 1})
    return study


def _unfinished(forest: Forest, store: RunStore) -> set[str]:
    """Return the keys whose generations are not there, whole and verified."""
    return {key for key in forest.specs if not store.generation(key).inspect().sound}


def recording(record: StudyRecord, observe: Observer) -> Observer:
    """Return an observer that puts finished generations into the study's table before it passes them on."""

    def both(event: Event) -> None:
        if isinstance(event, GenerationDone):
            record.add([event.row])
        observe(event)

    return both


def _ray_log(store: RunStore, study: Study) -> Path:
    return store.data.parent / "studies" / study.name / "ray.log"
