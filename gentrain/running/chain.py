"""A chain, patriarch to last student, as idempotent logic over a runner; it decides and doesn't execute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

from gentrain.errors import GentrainError, StoreError
from gentrain.events import (
    ChainSaturated,
    ChainStarted,
    GenerationDone,
    GenerationQueued,
    GenerationWaiting,
    Note,
    Observer,
    TargetsKnown,
)
from gentrain.results.chain import Generations, read_chain
from gentrain.running.records import mend_record
from gentrain.store.claims import Waiting
from gentrain.store.done import AVERAGE, EPOCHS, MODEL, SPEC
from gentrain.store.generation import Inspection
from gentrain.store.locks import name_holder
from gentrain.store.record import Claim
from gentrain.store.run import RunStore
from gentrain.study.lineage import Chain, GenerationSpec, predicted_scores
from gentrain.study.loading import flat_settings
from gentrain.study.process import saturated
from gentrain.study.tasks import StudentSpec


class Lease(Protocol):
    """Waits for the right to train a generation alone and holds that right for a block."""

    def __call__(self, spec: GenerationSpec, *, waiting: Waiting) -> AbstractContextManager[Claim | None]:
        """Return the block's context manager, which yields the claim; None where `spec` is finished by now.

        `waiting` is called when another is training `spec`, with who it is, where that is known.
        """


def lease_by_claim(store: RunStore, *, study: str = "gentrain") -> Lease:
    """Return leases that are the generations' claims in the store; `study` names the holder to those who wait."""

    def lease(spec: GenerationSpec, *, waiting: Waiting) -> AbstractContextManager[Claim]:
        return store.generation(spec.key).claimed(name_holder(study), waiting=waiting)

    return lease


class Runner(Protocol):
    """Trains one generation to its DONE, from nothing or from its newest checkpoint."""

    @property
    def lease(self) -> Lease:
        """Its way to the right to train a generation."""

    def run_generation(self, spec: GenerationSpec, *, claim: Claim, weights_done: bool = False) -> None:
        """Train `spec`, whose teacher is finished.

        Args:
            spec: of the generation.
            claim: under which it is trained.
            weights_done: whether only its predictions are to be made again.
        """


def run_chain(chain: Chain, *, store: RunStore, runner: Runner, observe: Observer) -> list[dict[str, Any]]:
    """Bring every generation of the chain to its end; return its rows of results.parquet.

    A finished generation is verified and reused. Calling this again after any interruption goes on where it stopped.
    With `patience`, a chain that has saturated ends early (see `saturated`).

    Raises:
        StoreError: when a generation that was finished is gone when its results are read.
        GentrainError: what the runner raises.
    """
    settings = chain.settings
    _begin(chain, store, observe)
    rows: list[dict[str, Any]] = []
    results = read_chain(chain, Generations(store, [chain]))
    for place, spec in enumerate(chain.specs):
        pretrained = place < len(settings.pretrained)
        reused = ensure_generation(
            spec, store=store, runner=runner, observe=observe, generation=place, pretrained=pretrained
        )
        result = next(results)
        if result is None:
            raise StoreError(f"generation {place} ({spec.key}): vanished after it was finished; run the command again")
        rows.append(result.row)
        _observe_result(chain, rows, reused=reused, ends=result.ends, observe=observe)
        if result.ends:
            break
    return rows


def attempt_chain(chain: Chain, *, store: RunStore, runner: Runner, observe: Observer) -> GentrainError | None:
    """Run the chain to its end (see `run_chain`); return the error that stopped it, None when it is finished."""
    try:
        run_chain(chain, store=store, runner=runner, observe=observe)
    except GentrainError as error:
        return error
    return None


def observe_finished(chain: Chain, rows: Sequence[Mapping[str, Any]], *, store: RunStore, observe: Observer) -> None:
    """Call `observe` with the events of a chain that was finished already, as `run_chain` would."""
    _begin(chain, store, observe)
    for end in range(1, len(rows) + 1):
        _observe_result(chain, rows[:end], reused=True, ends=end == len(rows), observe=observe)


def _begin(chain: Chain, store: RunStore, observe: Observer) -> None:
    settings = chain.settings
    targets = predicted_scores(settings, ())
    runs, flat = str(store.study(settings.name)), flat_settings(settings.dump())
    epochs = tuple(settings.epochs_of(generation) for generation in range(len(chain.specs)))
    usual = settings.recipe.epochs
    event = ChainStarted(chain.name, usual, targets, chain.keys, runs, _teachers(chain), flat)
    observe(event if set(epochs) == {usual} else replace(event, epochs_by_generation=epochs))


def _teachers(chain: Chain) -> tuple[tuple[int, ...], ...]:
    """Return for each generation the places in the chain of those that teach it."""
    places = {key: place for place, key in enumerate(chain.keys)}
    teachers = (spec.task.teachers if isinstance(spec.task, StudentSpec) else () for spec in chain.specs)
    return tuple(tuple(places[key] for key in keys if key in places) for keys in teachers)


def _observe_result(
    chain: Chain, rows: Sequence[Mapping[str, Any]], *, reused: bool, ends: bool, observe: Observer
) -> None:
    """Call `observe` with what the last of the rows so far means for the chain."""
    place, settings = len(rows) - 1, chain.settings
    if len(rows) == len(settings.pretrained):
        targets = predicted_scores(settings, [row["primary_measured"] for row in rows])
        observe(TargetsKnown(targets))
    observe(GenerationDone(place, rows[-1], reused))
    if ends and len(rows) < len(chain.keys):
        observe(ChainSaturated(chain.name, place))


def missing_keys(chain: Chain, *, inspect: Callable[[str], Inspection]) -> tuple[str, ...]:
    """Return the keys that the chain still has to train; `inspect` verifies what the store has of one."""
    errors: list[float] = []
    for index, spec in enumerate(chain.specs):
        inspection = inspect(spec.key)
        if inspection.done is None or not inspection.valid:
            return tuple(key for key in chain.keys[index:] if key == spec.key or not inspect(key).valid)
        scores = inspection.done.validation_scores
        errors += [scores["top1_error"]] if scores else []
        if saturated(errors, patience=chain.settings.patience):
            break
    return ()


def ensure_generation(
    spec: GenerationSpec,
    *,
    store: RunStore,
    runner: Runner,
    observe: Observer,
    generation: int | None = None,
    pretrained: bool = False,
) -> bool:
    """Train what is missing or damaged of a generation; return whether it was finished and valid already.

    Args:
        spec: of the generation, whose teachers are finished.
        store: where it is.
        runner: trains it.
        observe: called with every event.
        generation: its place in the chain; a pretrained one had another place elsewhere.
        pretrained: whether the chain begins with it as it is: its weights are there, or can't be had here.

    Raises:
        StoreError: when training ends without a result, or a pretrained generation is damaged.
    """
    generation = spec.generation if generation is None else generation
    folder = store.generation(spec.key)
    if folder.inspect().valid and not folder.training:
        return True
    with runner.lease(spec, waiting=lambda who: observe(GenerationWaiting(generation, spec.key, who))) as claim:
        folder.make_ready()
        inspection = folder.inspect()
        if inspection.damaged == (SPEC,) and mend_record(folder, spec, observe=observe):
            observe(Note(f"generation {generation} ({folder}): {SPEC} was damaged; it is restored", "warning"))
            inspection = folder.inspect()
        if inspection.valid:
            folder.clear_training()  # left by a command that was killed at the very end
            return True
        weights_done = spec.pretrained or (
            inspection.done is not None and not {MODEL, AVERAGE, EPOCHS} & set(inspection.damaged)
        )
        if pretrained and not weights_done:
            raise StoreError(f"{folder}: a pretrained generation is damaged; run the study that trained it again")
        if inspection.damaged:
            remedy = "evaluated again from its weights" if weights_done else "trained again"
            names = ", ".join(inspection.damaged)
            text = f"generation {generation} ({folder}): {names} damaged or missing; it is {remedy}"
            observe(Note(text, "warning"))
        if claim is None:
            raise StoreError(f"{folder}: was damaged while it was read; run the same command again")
        observe(GenerationQueued(generation))
        runner.run_generation(spec, claim=claim, weights_done=weights_done)
        if not folder.inspect().valid:
            raise StoreError(f"{folder}: training ended without a valid result; run the same command again")
        folder.clear_training()
        return False
