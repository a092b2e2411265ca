"""A search: proposals of a process, trained as a growing grid, scored by the held-out split until the budget is spent.

Proposals come in batches between sweeps, so that Ray and `--local` take the same way. All chains of a search are about
equally long, so a batch of as many as fit on the devices, or a multiple, leaves none idle; random proposals need no
results and are one batch. What was proposed is the `grid.process` of the study's record: a search that is resumed
finishes that first, then goes on, as the next proposals follow from the seed and the results so far.
"""

from __future__ import annotations

import itertools
import statistics
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gentrain.errors import ConfigError, DependencyError, GentrainError, StoreError
from gentrain.events import Event, FinishedBefore, GenerationDone, InChain, Note, Observer
from gentrain.running.executor import Executor
from gentrain.running.pretrained import PretrainedNetworks
from gentrain.running.study import OnChange, Row, failure, finish_chains
from gentrain.store.run import RunStore
from gentrain.store.study_record import STUDY, recorded_study, study_names
from gentrain.study.lineage import Chain, build_forest
from gentrain.study.loading import flat_settings
from gentrain.study.process import Process
from gentrain.study.schema import Study
from gentrain.study.search import (
    RangeConfig,
    SearchConfig,
    fits,
    random_proposals,
    rounded,
    valid_process,
    values_of,
)

MANY = 1_000_000
"""Stands for the number of classes where trainings are only counted."""
MOST_REPEATS = 100
"""Proposals of Optuna's in a row that were made before, after which they are drawn at random."""


def run_search(
    study: Study, *, store: RunStore, executor: Executor, observe: Observer, on_change: OnChange, force: bool = False
) -> list[Row]:
    """Propose and train until the budget is spent; return the rows of results.parquet of all proposals.

    Raises:
        ConfigError: when the study can't be run, the search was changed since its last run, or its budget is too small.
        DependencyError: where its method isn't installed.
        TrainingError: when some chains could not be finished, naming each; the search went on without them.
        KeyboardInterrupt: when the run was interrupted; the same call goes on where it stopped.
    """
    search = _search_of(study)
    if search.method == "optuna":
        _optuna()
    try:
        known = study.grid.process if on_change == "keep" else _recorded(study, store)
    except StoreError as error:
        observe(Note(f"{error}; the proposals are made again, which gives the same", "warning"))
        known, on_change = study.grid.process, "keep"
    batch = () if known else propose(study, known, {}, store)
    if not known and not batch:
        one = len(_trainings(study, store, study.process))
        raise ConfigError(f"search.budget: {search.budget} is less than one proposal's {one} trainings; raise it")
    failed: dict[str, GentrainError] = {}
    reported: set[str] = set()
    while True:
        known = (*known, *batch)
        ended = finish_chains(
            with_proposals(study, known),
            store=store,
            executor=executor,
            observe=_quiet_about(reported, observe),
            on_change="keep" if on_change == "keep" else "extend",
            failed=failed,
            force=force,
        )
        failed |= ended.failed
        reported |= {row["chain"] for row in ended.rows}
        errors = held_out_errors(ended.chains, ended.rows)
        observe(Note(_progress(study, ended.chains, errors)))
        batch = propose(study, known, errors, store)
        if not batch:
            break
    if failed:
        raise failure(with_proposals(study, known), len(ended.chains), failed)
    return ended.rows


def with_proposals(study: Study, processes: Sequence[Process]) -> Study:
    """Return a search's study as the grid of its proposals."""
    return study.model_copy(update={"grid": study.grid.model_copy(update={"process": tuple(processes)})})


def planned_study(study: Study, store: RunStore) -> Study:
    """Return a search's study as a grid: what was proposed, and random proposals up to its budget.

    It costs what the search will, whatever its method, as all chains are about equally long.
    """
    random = study.model_copy(update={"search": _search_of(study).model_copy(update={"method": "random"})})
    try:
        known = _recorded(study, store)
    except (ConfigError, StoreError):  # another search's, which running this one would refuse; or damaged
        known = study.grid.process
    return with_proposals(study, (*known, *propose(random, known, {}, store)))


def held_out_errors(chains: Iterable[Chain], rows: Iterable[Row]) -> dict[Process, float | None]:
    """Return the top-1 error of each process's last generation on the held-out split, its mean over seeds and networks.

    Nothing of the test split is looked at. A process whose chains aren't all finished has None.

    Args:
        chains: of the proposals.
        rows: of finished chains, of results.parquet.
    """
    last: dict[str, Row] = {}
    for row in rows:
        if row["chain"] not in last or row["generation"] > last[row["chain"]]["generation"]:
            last[row["chain"]] = row
    by_process: dict[Process, list[float | None]] = {}
    for chain in chains:
        error = last[chain.name]["validation_error"] if chain.name in last else None
        by_process.setdefault(chain.settings.process, []).append(error)
    known = {process: [error for error in own if error is not None] for process, own in by_process.items()}
    return {
        process: statistics.fmean(known[process]) if len(known[process]) == len(own) else None
        for process, own in by_process.items()
    }


def _search_of(study: Study) -> SearchConfig:
    search: SearchConfig | None = study.search
    assert search is not None, "only a study with `search` is searched"
    return search


def _recorded(study: Study, store: RunStore) -> tuple[Process, ...]:
    """Return the proposals that the study's record has; those of the grid, which come first, where there is none.

    Raises:
        ConfigError: where the search, or its grid, was another one.
        StoreError: where the record is missing or damaged.
    """
    own = study.grid.process
    if study.name not in study_names(store):
        return own
    if store.study(study.name).read(STUDY) is None:
        raise StoreError(f"{store.study(study.name)}/{STUDY}: missing")
    recorded = recorded_study(store, study.name)
    old, new = (_compared(each) for each in (recorded, study))
    differing = [f"{key}: {old.get(key)} → {new.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key)]
    if recorded.grid.process[: len(own)] != own:
        differing.append("grid.process")
    if differing:
        raise ConfigError(
            f"study {study.name} was changed since its last run ({'; '.join(differing)}); give the study a new name "
            f"(--set name={study.name}-2); only search.budget may change"
        )
    return recorded.grid.process


def _compared(study: Study) -> dict[str, Any]:
    """Return the settings that decide the proposals, by their dotted names."""
    dumped = study.dump()
    parts = {"search": dumped.get("search"), "grid": dumped["grid"], "process": dumped["process"]}
    return {key: value for key, value in flat_settings(parts).items() if key not in {"grid.process", "search.budget"}}


def propose(
    study: Study, known: Sequence[Process], errors: Mapping[Process, float | None], store: RunStore
) -> tuple[Process, ...]:
    """Return the next batch: as many new proposals as the method makes at once and the budget allows."""
    search = _search_of(study)
    if search.method == "random":
        proposals = random_proposals(study.process, search, known)
    else:
        proposals = itertools.islice(_optuna_proposals(study.process, search, known, errors), search.batch)
    keys = set().union(*(_trainings(study, store, process) for process in known))
    batch = []
    for process in proposals:
        keys |= _trainings(study, store, process)
        if len(keys) > search.budget:
            break
        batch.append(process)
    return tuple(batch)


def _trainings(study: Study, store: RunStore, process: Process) -> frozenset[str]:
    """Return what identifies the trainings of one process; the data play no part where they are only counted."""
    resolve = PretrainedNetworks(store, data=None, num_classes=None)
    return build_forest(with_proposals(study, (process,)), data="", num_classes=MANY, resolve=resolve).trainings


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise DependencyError(
            "search.method: optuna: Optuna isn't installed; pip install 'gentrain[search]', or set random"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _optuna_proposals(
    process: Process, search: SearchConfig, known: Sequence[Process], errors: Mapping[Process, float | None]
) -> Iterator[Process]:
    """Yield proposals of tree-structured Parzen estimators (Bergstra et al. 2011), none of them known.

    The sampler is made from the seed, the number of known proposals and their errors: nothing else is its state.
    """
    optuna = _optuna()
    space = {
        key: optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)
        if isinstance(values, RangeConfig)
        else optuna.distributions.CategoricalDistribution(values)
        for key, values in sorted(search.space.items())
    }
    seed = int(np.random.default_rng([search.seed, len(known)]).integers(2**31))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True))
    for each in known:
        values, error = values_of(each, search), errors.get(each)
        if all(fits(search.space[key], value) for key, value in values.items()):
            state = optuna.trial.TrialState.FAIL if error is None else optuna.trial.TrialState.COMPLETE
            study.add_trial(optuna.trial.create_trial(params=values, distributions=space, value=error, state=state))
    made = set(known)
    repeats = 0
    while repeats < MOST_REPEATS:
        asked = study.ask(space).params
        values = {key: rounded(search.space[key], value) for key, value in asked.items()}
        proposal = valid_process(process, values)
        repeats = repeats + 1 if proposal is None or proposal in made else 0
        if proposal is not None and not repeats:
            made.add(proposal)
            yield proposal
    yield from random_proposals(process, search, made)


def _progress(study: Study, chains: Sequence[Chain], errors: Mapping[Process, float | None]) -> str:
    scored = {process: error for process, error in errors.items() if error is not None}
    text = f"{study.name}: {len(scored)} of {len(errors)} proposals scored"
    if not scored:
        return text
    best = min(scored, key=lambda process: scored[process])
    return f"{text}, the best: {best.label}, {100 * scored[best]:.2f} % on the held-out split"


def _quiet_about(reported: set[str], observe: Observer) -> Observer:
    """Return an observer that doesn't report again, batch after batch, the generations of chains reported before."""

    def quiet(event: Event) -> None:
        if isinstance(event, InChain) and event.chain in reported:
            if isinstance(event.event, GenerationDone):
                observe(FinishedBefore({event.event.row["key"]: event.event.row["top1_error"]}))
            return
        observe(event)

    return quiet
