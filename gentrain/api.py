"""The Python interface: load a study, prepare, plan and run it, open a run folder."""

from __future__ import annotations

from typing import Any

from gentrain.data.prepare.dataset import PreparedData, find_manifest
from gentrain.data.prepare.share import prepare_shared
from gentrain.events import Note, Observer
from gentrain.results.evaluate import Evaluation, evaluate_chain
from gentrain.results.status import StudyStatus, study_status
from gentrain.running.executor import Executor
from gentrain.running.plan import Plan, make_plan
from gentrain.running.pretrained import PretrainedNetworks
from gentrain.running.study import OnChange, one_core_each, run_study
from gentrain.store.run import RunStore
from gentrain.store.study_record import recorded_study, study_names
from gentrain.study.lineage import build_forest
from gentrain.study.loading import load_study
from gentrain.study.schema import Study

__all__ = ["OnChange", "RunFolder", "executor", "load_study", "open_run", "plan", "prepare", "run"]


def _silent(_: object) -> None:
    pass


def prepare(study: Study, *, runs: str = "runs", observe: Observer = _silent) -> PreparedData:
    """Return the study's prepared dataset, compiled now if it isn't there or is damaged."""
    return prepare_shared(study.dataset, RunStore(runs), notify=lambda text: observe(Note(text)))


def plan(
    study: Study, *, runs: str = "runs", devices: float = 1, price: float | None = None, measure: bool = False
) -> Plan:
    """Return what the study's whole grid will cost; nothing is prepared, written or started, except to `measure`.

    Args:
        study: with or without a grid.
        runs: the run folder, whose finished generations tell how long an epoch takes.
        devices: GPUs (or groups of CPU cores) that train at the same time.
        price: of a device-hour.
        measure: whether to time a few steps of every network here.

    Raises:
        ConfigError: when the devices can't hold one training.
    """
    store = RunStore(runs)
    if measure:
        prepare_shared(study.dataset, store)
    manifest = find_manifest(study.dataset, store.data)
    data, num_classes = (manifest.fingerprint, len(manifest.classes)) if manifest else (None, None)
    forest = build_forest(
        study,
        data=data or "not prepared",
        num_classes=num_classes or max(point.process.classes_needed for point in study.points()),
        resolve=PretrainedNetworks(store, data=data, num_classes=num_classes),
    )
    measured = None
    if measure and manifest:
        from gentrain.running.measure import measure_study

        measured = measure_study(one_core_each(study), manifest)
    return make_plan(forest, study, store=store, devices=devices, price=price, measured=measured)


def executor(*, local: bool = False, address: str | None = None) -> Executor:
    """Return what brings chains to their end: this process, or Ray.

    Args:
        local: in this process, without Ray, one chain after the other.
        address: of a running Ray cluster ("auto" finds the one on this machine); default: a private instance.
    """
    if local:
        from gentrain.running.local import LocalExecutor

        return LocalExecutor()
    from gentrain.cluster.executor import RayExecutor

    return RayExecutor(address)


def run(
    study: Study,
    *,
    runs: str = "runs",
    local: bool = False,
    address: str | None = None,
    observe: Observer = _silent,
    on_change: OnChange = "refuse",
) -> list[dict[str, Any]]:
    """Bring every chain of the study to its end, and return the rows of results.parquet (see `run_study`).

    Args:
        study: with or without a grid.
        runs: the run folder, a path or a URI.
        local: see `executor`.
        address: see `executor`.
        observe: called with every event, from any thread.
        on_change: where a study of this name wanted something else before: "refuse"; "extend": chains may be added;
            "keep": its other chains stay beside these.

    Raises:
        GentrainError, KeyboardInterrupt: see `run_study`.
    """
    return run_study(
        study,
        store=RunStore(runs),
        executor=executor(local=local, address=address),
        observe=observe,
        on_change=on_change,
    )


class RunFolder:
    """What a run folder holds: its studies, how far they are, and their results."""

    def __init__(self, runs: str) -> None:
        self.store = RunStore(runs)

    def studies(self) -> list[str]:
        """Return the names of the studies."""
        return study_names(self.store)

    def study(self, name: str) -> Study:
        """Return a study as its last run resolved it."""
        return recorded_study(self.store, name)

    def status(self, name: str) -> StudyStatus:
        """Return the state of every generation of a study."""
        return study_status(self.store, name)

    def evaluate(self, name: str, **options: Any) -> Evaluation:
        """Return what a generation or an ensemble of a study gets wrong (see `evaluate_chain`)."""
        return evaluate_chain(self.store, name, **options)


def open_run(runs: str = "runs") -> RunFolder:
    """Open a run folder, a path or a URI, to read it."""
    return RunFolder(runs)
