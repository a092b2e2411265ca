"""A study, from its settings to the rows of results.parquet: one path for one chain and for a grid of them."""

from __future__ import annotations

import math
import os
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from gentrain.data.prepare.dataset import PreparedData
from gentrain.data.prepare.manifest import Manifest
from gentrain.data.prepare.share import keep_manifest, prepare_shared
from gentrain.errors import GentrainError, StoreError, TrainingError
from gentrain.events import Event, FinishedBefore, GenerationDone, InChain, Note, Observer, SweepStarted
from gentrain.results.chain import Generations, finished_rows
from gentrain.running.chain import missing_keys, observe_finished
from gentrain.running.executor import Executor, Outcome
from gentrain.running.footprint import check_room, foretell
from gentrain.running.networks import check_networks
from gentrain.running.plan import make_plan, starting_order, urgencies
from gentrain.running.pretrained import PretrainedNetworks
from gentrain.running.records import mend_records, rows_of_other_chains
from gentrain.store.done import DATA
from gentrain.store.run import RunStore
from gentrain.store.study_record import StudyRecord
from gentrain.study.lineage import Chain, Forest, build_forest
from gentrain.study.schema import Study

OnChange = Literal["refuse", "extend", "keep"]
"""Where a study of this name wanted something else before: refuse; extend: chains may be added; keep: the other chains
stay beside these."""
NO_CLAIMS = (
    "nothing keeps two runs apart on this store, so start one at a time (a disk and s3:// refuse the second writer)"
)
Row = dict[str, Any]
"""Of results.parquet."""


@dataclass(frozen=True)
class Finished:
    """What a study's chains have come to."""

    chains: tuple[Chain, ...]
    rows: list[Row]
    """Of results.parquet, of all chains that are finished; by chain and generation."""
    failed: Mapping[str, GentrainError]
    """What stopped the others, by their names."""


def run_study(
    study: Study, *, store: RunStore, executor: Executor, observe: Observer, on_change: OnChange, force: bool = False
) -> list[Row]:
    """Bring every chain of a study to its end; return the rows of results.parquet.

    Chains that are finished are verified and read, nothing more: a study that is complete starts nothing. Events of a
    study without a grid, which is one chain, come as they are; those of several chains come as `InChain`.

    Raises:
        ConfigError: when the study can't be run, or was changed since its last run (`on_change`).
        ResourceError: when disk or memory are too small for what is left to train, unless `force`.
        TrainingError: when some of several chains could not be finished, naming each; the others are.
        GentrainError: when the one chain of a study without a grid could not be finished.
        KeyboardInterrupt: when the run was interrupted; the same call goes on where it stopped.
    """
    ended = finish_chains(study, store=store, executor=executor, observe=observe, on_change=on_change, force=force)
    if ended.failed:
        raise failure(study, len(ended.chains), ended.failed)
    return ended.rows


def finish_chains(
    study: Study,
    *,
    store: RunStore,
    executor: Executor,
    observe: Observer,
    on_change: OnChange,
    failed: Mapping[str, GentrainError] = MappingProxyType({}),
    force: bool = False,
) -> Finished:
    """Bring every chain of a study to its end, as far as it can be; see `run_study`.

    Args:
        study: as of `run_study`, and the arguments below.
        store: the run folder.
        executor: trains.
        observe: called with every event.
        on_change: where the study wanted something else before.
        failed: chains that this run has tried before in vain, which are left as they are.
        force: start where disk or memory seem too small, too.
    """
    store.check_writable()
    if not store.keeps_claims:
        observe(Note(f"{store.uri}: {NO_CLAIMS}", "warning"))
    executor.check(study)
    data = prepare_shared(study.dataset, store, notify=lambda text: observe(Note(text)))
    check_networks(study, data.manifest)
    study = one_core_each(study) if executor.concurrent else study
    pretrained = PretrainedNetworks(
        store,
        data=data.manifest.fingerprint,
        num_classes=data.num_classes,
        notify=lambda text: observe(Note(text)),
    )
    forest = build_forest(study, data=data.manifest.fingerprint, num_classes=data.num_classes, resolve=pretrained)
    record = StudyRecord(study, store=store)
    if on_change != "keep":
        record.check_unchanged(forest.chains, extend=on_change == "extend")
    before = stopped = record.stopped()
    pretrained.adopt()
    for line in record.damage(forest.chains):
        observe(Note(line, "warning"))
    failures = {name: str(error) for name, error in failed.items()}
    record.begin(forest.chains, stopped=stopped, failed=failures)
    observe = _shown(observe, study)
    _announce(study, forest, record, observe)
    generations = Generations(store, forest.chains)
    mend_records(forest.specs.values(), generations, store=store, observe=observe)
    _keep_manifests(forest, generations, data.manifest, store=store, observe=observe)

    rows, missing = _read(forest.chains, generations, skip=stopped | failed.keys(), store=store, observe=observe)
    outcome = Outcome({}, stopped, interrupted=False)
    if missing:
        if not force:
            _check_room(study, forest, missing, executor, store=store, data=data)
        _announce_finished(study, forest, missing, generations, observe)
        outcome = _execute(study, forest, missing, executor, record, store=store, data=data, observe=observe)
        stopped |= outcome.stopped
        run = [chain for chain in forest.chains if chain.name in missing]
        late, missing = _read(run, Generations(store, run), store=store)
        rows += late
        failures |= {name: str(error) for name, error in outcome.failed.items()}
        record.begin(forest.chains, stopped=before | (outcome.stopped & missing.keys()), failed=failures)
    record.add([*rows_of_other_chains(record, forest, store=store), *rows])
    if outcome.interrupted or missing.keys() - outcome.failed.keys() - stopped:
        raise KeyboardInterrupt
    return Finished(forest.chains, sorted(rows, key=lambda row: (row["chain"], row["generation"])), outcome.failed)


def _keep_manifests(
    forest: Forest, generations: Generations, manifest: Manifest, *, store: RunStore, observe: Observer
) -> None:
    """Write what their data is into the folders of finished generations that don't say it, as of version 0.1."""
    keys = [key for key, spec in forest.specs.items() if spec.data == manifest.fingerprint]
    written = [key for key in keys if generations.inspect(key).valid and keep_manifest(key, manifest, store)]
    if written:
        more = f" and {len(written) - 1:,} more" if len(written) > 1 else ""
        observe(Note(f"{store.generation(written[0])}/{DATA}{more}: missing or damaged; written again", "warning"))


def _announce(study: Study, forest: Forest, record: StudyRecord, observe: Observer) -> None:
    if study.grid.empty:
        return
    chains, trainings = forest.chains, len(forest.trainings)
    observe(Note(f"{study.name}: {len(chains)} chains of {forest.wanted} generations, {trainings} distinct trainings"))
    keys = {chain.name: chain.keys for chain in chains}
    usual = study.recipe.epochs
    epochs = {key: spec.recipe.epochs for key, spec in forest.specs.items() if spec.recipe.epochs != usual}
    observe(SweepStarted(study.name, usual, keys, str(record.folder), epochs))


def _announce_finished(
    study: Study,
    forest: Forest,
    missing: Mapping[str, tuple[str, ...]],
    generations: Generations,
    observe: Observer,
) -> None:
    """Call `observe` with what unfinished chains have already: their trials tell it only when they run."""
    keys = {key for chain in forest.chains if chain.name in missing for key in chain.keys}
    verified = {key: generations.inspect(key) for key in keys}
    errors = {key: seen.done.scores["top1_error"] for key, seen in verified.items() if seen.valid and seen.done}
    if errors and not study.grid.empty:
        observe(FinishedBefore(errors))


def _read(
    chains: Iterable[Chain],
    generations: Generations,
    *,
    skip: Container[str] = (),
    store: RunStore,
    observe: Observer | None = None,
) -> tuple[list[Row], dict[str, tuple[str, ...]]]:
    """Return the rows of the chains that are finished, and the keys that the others miss, by their names."""
    rows: list[Row] = []
    missing: dict[str, tuple[str, ...]] = {}
    for chain in chains:
        if keys := missing_keys(chain, inspect=generations.inspect):
            generations.skip(chain)
            if chain.name not in skip:
                missing[chain.name] = keys
            continue
        own = finished_rows(chain, generations)
        if own is None:
            raise StoreError(f"{chain.name}: a generation vanished while it was read; run the same command again")
        if observe is not None:
            observe_finished(chain, own, store=store, observe=_inside(chain, observe))
        rows += own
    return rows, missing


def _check_room(
    study: Study,
    forest: Forest,
    missing: Mapping[str, tuple[str, ...]],
    executor: Executor,
    *,
    store: RunStore,
    data: PreparedData,
) -> None:
    """Raise ResourceError where what is left to train doesn't fit the disk, or this machine's memory."""
    import torch

    keys = {key for left in missing.values() for key in left}
    at_once = min(len(missing), max(1, (os.cpu_count() or 1) // study.workers)) if executor.concurrent else 1
    footprint = foretell(study, forest, keys=keys, manifest=data.manifest, at_once=at_once)
    on_cpus = executor.here and not (study.device == "auto" and torch.cuda.is_available())
    check_room(footprint, study, store=store, here=on_cpus)


def _execute(
    study: Study,
    forest: Forest,
    missing: Mapping[str, tuple[str, ...]],
    executor: Executor,
    record: StudyRecord,
    *,
    store: RunStore,
    data: PreparedData,
    observe: Observer,
) -> Outcome:
    """Run the chains that miss generations, the longest remaining first; put what they finish into the record."""
    from gentrain.train.precision import slow_precision, worth_timing

    timed = executor.here and worth_timing(study, data.manifest)
    if timed and (warning := slow_precision(study, data.manifest)):
        observe(Note(warning, "warning"))
    if not study.grid.empty:
        left = {key for keys in missing.values() for key in keys}
        observe(
            Note(f"{len(left)} trainings to do{'' if executor.concurrent else ', one after the other in this process'}")
        )
    plan = make_plan(forest, study, store=store, devices=math.inf)

    def observe_and_record(event: Event) -> None:
        if isinstance(event, InChain) and isinstance(event.event, GenerationDone):
            record.add([event.event.row])
        observe(event)

    return executor.run(
        starting_order(plan, missing),
        store=store,
        data=data.folder.name,
        urgencies=urgencies(plan),
        observe=observe_and_record,
    )


def failure(study: Study, chains: int, failed: Mapping[str, GentrainError]) -> GentrainError:
    """Return the error of a study of which some chains can't be finished."""
    if study.grid.empty:
        return next(iter(failed.values()))
    reasons = "; ".join(f"{name}: {error}" for name, error in failed.items())
    return TrainingError(f"{len(failed)} of {chains} chains are not finished: {reasons}")


def _inside(chain: Chain, observe: Observer) -> Observer:
    return lambda event: observe(InChain(chain.name, event))


def _shown(observe: Observer, study: Study) -> Observer:
    """Return an observer that takes `InChain` events and passes on what the study's views show."""
    shown_once: set[str] = set()

    def shown(event: Event) -> None:
        inner = event.event if isinstance(event, InChain) else event
        if isinstance(inner, Note) and inner.once:
            if inner.text in shown_once:
                return
            shown_once.add(inner.text)
            event = inner
        elif isinstance(event, InChain) and study.grid.empty:
            event = inner
        elif isinstance(event, InChain) and isinstance(inner, Note):
            event = Note(f"{event.chain}: {inner.text}", inner.level)
        observe(event)

    return shown


def one_core_each(study: Study) -> Study:
    """Give each worker of a grid's chains one CPU where the study doesn't say.

    Chains side by side use the cores better than threads do.
    """
    if study.grid.empty or study.cpus_per_worker is not None or study.device == "cuda" or study.gpus_per_worker:
        return study
    return study.model_copy(update={"cpus_per_worker": 1})
