"""The Python interface: load a study, prepare, plan and run it, open a run folder, take networks out of it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import pyarrow as pa

from gentrain.data.prepare.dataset import PreparedData, find_manifest
from gentrain.data.prepare.share import prepare_shared
from gentrain.events import Note, Observer
from gentrain.results.curves import Curve, Curves
from gentrain.results.evaluate import Evaluation, evaluate_chain
from gentrain.results.html import html_table
from gentrain.results.status import StudyStatus, study_status
from gentrain.results.trained import TrainedChain
from gentrain.running.estimator import Estimator
from gentrain.running.executor import Executor
from gentrain.running.footprint import foretell
from gentrain.running.plan import Plan, make_plan
from gentrain.running.pretrained import PretrainedNetworks
from gentrain.running.search import planned_study, run_search
from gentrain.running.study import OnChange, one_core_each, run_study
from gentrain.store.run import RunStore
from gentrain.store.study_record import RESULTS, read_results, recorded_study, study_names
from gentrain.study.lineage import build_forest
from gentrain.study.loading import load_study
from gentrain.study.schema import Study
from gentrain.trackers.session import tracked

if TYPE_CHECKING:
    from gentrain.train.predicting import Prediction

__all__ = ["OnChange", "Progress", "Run", "RunFolder", "executor", "load_study", "open_run", "plan", "prepare", "run"]

Progress = Observer | bool | None
"""What shows a run: nothing (None); a live table, lines or a notebook's cell (True); a function, which is called with
every event of `gentrain.events`, from any thread."""


def _silent(_: object) -> None:
    pass


@contextlib.contextmanager
def _observer(progress: Progress, *, sweep: bool) -> Iterator[Observer]:
    """Give the function that gets the events; what is shown goes to standard error."""
    if progress is not True:
        yield progress or _silent
        return
    from gentrain.view import ChainLines, ChainTable, SweepLines, SweepTable, open_progress

    views = (SweepLines, SweepTable) if sweep else (ChainLines, ChainTable)
    with open_progress(*views, stream=sys.stderr) as view:
        yield view


def prepare(
    study: Study, *, runs: str = "runs", progress: Progress = None, observe: Observer | None = None
) -> PreparedData:
    """Return the study's prepared dataset, compiled now if it isn't there or is damaged.

    Args:
        study: whose dataset it is.
        runs: the run folder, a path or a URI.
        progress: see `Progress`.
        observe: the same as `progress`.

    Raises:
        DataError: for a source that is missing, broken or doesn't fit the settings.
        ResourceError: when the disk is full or can't be written.
    """
    with _observer(observe or progress, sweep=False) as notify:
        return prepare_shared(study.dataset, RunStore(runs), notify=lambda text: notify(Note(text)))


def plan(
    study: Study,
    *,
    runs: str = "runs",
    gpus: float = 1,
    price: float | None = None,
    measure: bool = False,
    card: str | None = None,
) -> Plan:
    """Return what the study's whole grid will cost; nothing is prepared, written or started, except to `measure`.

    A search is planned as a grid of random proposals up to its budget.

    Args:
        study: with or without a grid.
        runs: the run folder, whose finished generations tell how long an epoch takes.
        gpus: devices (GPUs, or groups of CPU cores) that train at the same time.
        price: of a device-hour.
        measure: whether to time a few steps of every network here.
        card: the GPU's name, such as "A100", by which to estimate what was never timed; default: this machine's.

    Raises:
        ConfigError: when the devices can't hold one training, or the card isn't known.
    """
    store = RunStore(runs)
    study = planned_study(study, store) if study.search else study
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
    guess = Estimator(one_core_each(study), store=store, manifest=manifest, card=card, measured=measured)
    made = make_plan(forest, study, store=store, devices=gpus, price=price, measured=measured, estimator=guess)
    return replace(made, footprint=foretell(study, forest, keys=made.seconds, manifest=manifest, at_once=made.at_once))


def executor(*, local: bool = False, address: str | None = None) -> Executor:
    """Return what brings chains to their end: this process, or Ray.

    Args:
        local: in this process, without Ray, one chain after the other.
        address: of a running Ray cluster ("auto" finds the one on this machine); default: the Ray that this process is
            connected to already (`ray.init`), which stays up, or else a private instance.
    """
    if local:
        from gentrain.running.local import LocalExecutor

        return LocalExecutor()
    from gentrain.cluster.executor import RayExecutor

    return RayExecutor(address)


class Run(Sequence[dict[str, Any]]):
    """What a study has come to: a sequence of the rows of its results.parquet, one for each finished generation.

    Args:
        store: the run folder.
        name: of the study.
        rows: sorted by chain and generation.
    """

    def __init__(self, store: RunStore, name: str, rows: Sequence[dict[str, Any]]) -> None:
        self.store, self.name = store, name
        self._rows = list(rows)

    def results(self) -> pa.Table:
        """Return the rows as an Arrow table; errors are fractions. `.to_pandas()` makes it a data frame."""
        return pa.Table.from_pylist(self._rows, RESULTS)

    @property
    def num_classes(self) -> int | None:
        """C, as the last generation's spec.json says; None where none is finished, or it is damaged."""
        spec = self.store.generation(self._rows[-1]["key"]).spec() if self._rows else None
        return None if spec is None else spec.num_classes

    def chain(self, name: str | None = None) -> TrainedChain:
        """Return the finished networks of a chain.

        Args:
            name: such as "D(0.6,0.6)-resnet20-s0"; not needed where the study has one chain.

        Raises:
            ConfigError: when there is no such chain, naming those there are.
            StoreError: when a generation of it is damaged.
        """
        return TrainedChain(self.store, self.name, name)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """Return a row, or some."""
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        return list(other) == self._rows if isinstance(other, list | Run) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        chains = len({row["chain"] for row in self._rows})
        return f"<study {self.name} in {self.store.root}: {len(self)} generations of {chains} chains finished>"

    def _repr_html_(self) -> str:
        return html_table(self._rows, title=self.name)


def run(
    study: Study,
    *,
    runs: str = "runs",
    local: bool = False,
    address: str | None = None,
    progress: Progress = None,
    observe: Observer | None = None,
    on_change: OnChange = "refuse",
    force: bool = False,
) -> Run:
    """Bring every chain of the study to its end; what is finished already is only read.

    Args:
        study: with or without a grid.
        runs: the run folder, a path or a URI.
        local: see `executor`.
        address: see `executor`.
        progress: see `Progress`.
        observe: the same as `progress`.
        on_change: where a study of this name wanted something else before: "refuse"; "extend": chains may be added;
            "keep": its other chains stay beside these.
        force: start where disk or memory seem too small, too.

    Returns:
        The study's results: its rows, an Arrow table of them, its networks.

    Raises:
        GentrainError, KeyboardInterrupt: see `run_study`.
    """
    store = RunStore(runs)
    with (
        _observer(observe or progress, sweep=study.several) as shown,
        tracked(study, store, shown) as shown_and_tracked,
    ):
        rows = (run_search if study.search else run_study)(
            study,
            store=store,
            executor=executor(local=local, address=address),
            observe=shown_and_tracked,
            on_change=on_change,
            force=force,
        )
    return Run(store, study.name, rows)


def predict(
    model: str | os.PathLike[str], images: Iterable[str | os.PathLike[str]], *, top: int = 5
) -> Iterator[Prediction]:
    """Yield the likeliest classes of image files by an exported model, in the images' order.

    Args:
        model: folder that `TrainedNetwork.export` or `gentrain export` wrote.
        images: files, and folders, which are searched for images. One that can't be decoded is yielded with `problem`.
        top: how many classes of each.

    Raises:
        ConfigError, StoreError: when there is no such model or image, or the model is damaged.
    """
    from gentrain.train.predicting import predict_files

    return predict_files(Path(model), map(Path, images), top=top)


class RunFolder:
    """What a run folder holds: its studies, how far they are, and their results."""

    def __init__(self, runs: str) -> None:
        self.store = RunStore(runs)
        self._curves = Curves(self.store)

    def studies(self) -> list[str]:
        """Return the names of the studies."""
        return study_names(self.store)

    def study(self, name: str) -> Study:
        """Return a study as its last run resolved it."""
        return recorded_study(self.store, name)

    def run(self, name: str) -> Run:
        """Return what a study has come to so far.

        Raises:
            ConfigError: when there is no such study, naming those there are.
            StoreError: when its table of results is missing or damaged.
        """
        return Run(self.store, name, read_results(self.store, name))

    def chain(self, study: str, name: str | None = None) -> TrainedChain:
        """Return the finished networks of a study's chain, by default of its only one (see `Run.chain`)."""
        return TrainedChain(self.store, study, name)

    def status(self, name: str) -> StudyStatus:
        """Return the state of every generation of a study."""
        return study_status(self.store, name)

    def curves(self, status: StudyStatus) -> dict[str, tuple[Curve, ...]]:
        """Return the learning curves of a study's generations by chain, as far as they are trained."""
        return self._curves.of(status)

    def evaluate(self, name: str, **options: Any) -> Evaluation:
        """Return what a generation or an ensemble of a study gets wrong (see `evaluate_chain`)."""
        return evaluate_chain(self.store, name, **options)


def open_run(runs: str = "runs") -> RunFolder:
    """Open a run folder, a path or a URI, to read it."""
    return RunFolder(runs)
