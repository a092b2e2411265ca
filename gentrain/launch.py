"""From a study to its results: prepare the data, build the chain, choose the runner, run."""

from __future__ import annotations

from typing import Any

from gentrain.chain import run_chain
from gentrain.config import Study
from gentrain.data.prepare import PreparedData, find_manifest, prepare
from gentrain.errors import ConfigError
from gentrain.events import Note, Observer
from gentrain.lineage import build_chain
from gentrain.plan import Plan, make_plan
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
    if local:
        debug = LocalRunner(study, store=store, data=data.folder, observe=observe)
        return run_chain(chain, study=study, store=store, runner=debug, observe=observe)

    log = store.data.parent / "studies" / study.name / "ray.log"
    observe(Note(f"{f'connecting to Ray at {address}' if address else 'starting Ray'}; what it says goes to {log}"))
    with ray_session(address=address, log=log):
        from gentrain.cluster.trainer import RayRunner

        runner = RayRunner(study, store=store, data=data.folder, chain=chain.name, observe=observe)
        return run_chain(chain, study=study, store=store, runner=runner, observe=observe)
