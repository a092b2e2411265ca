"""Records that are damaged or of version 0.1: restored from the study and the generations, given their digests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gentrain.events import Note, Observer
from gentrain.results.chain import Generations, RecordedChain, finished_rows
from gentrain.results.facts import contradictions, recorded_facts
from gentrain.results.legacy import chain_settings
from gentrain.store.done import DONE, SPEC
from gentrain.store.generation import GenerationFolder, restore_spec
from gentrain.store.run import RunStore
from gentrain.store.study_record import StudyRecord
from gentrain.study.lineage import Forest, GenerationSpec


def mend_records(
    specs: Iterable[GenerationSpec], generations: Generations, *, store: RunStore, observe: Observer
) -> None:
    """Make every finished generation's DONE.json and spec.json vouch for each other; observe one line for each kind.

    A damaged DONE.json is left: the generation is trained again (`ensure_generation`).

    Args:
        specs: of the generations, as they are planned.
        generations: their verification; it forgets those whose record is written.
        store: where they are.
        observe: called with what was done.
    """
    upgraded, restored = 0, []
    for spec in specs:
        store.generation(spec.key).sweep()
        inspection = generations.inspect(spec.key)
        done, intact = inspection.done, SPEC not in inspection.damaged
        if done is None or (done.digest is not None and intact):
            continue
        folder = store.generation(spec.key)
        with folder.locked(waiting=lambda: None):
            if not mend_record(folder, spec, observe=observe):
                continue
        generations.forget(spec.key)
        upgraded += done.digest is None
        restored += [] if intact else [str(folder)]
    if upgraded:
        observe(Note(f"{upgraded} generations were recorded without digests by an older version: added to DONE.json"))
    if restored:
        observe(Note(f"spec.json was damaged and is restored from the study: {', '.join(restored)}", "warning"))


def mend_record(folder: GenerationFolder, spec: GenerationSpec, *, observe: Observer) -> bool:
    """Make a finished generation's DONE.json and spec.json vouch for each other; return whether anything was written.

    A record without a digest is compared with the generation's files before it gets one; where they contradict it, it
    gets what they say, and one line says so. Hold the generation's lock.
    """
    done, facts = folder.done(), {}
    if done is not None and done.digest is None:
        facts = recorded_facts(folder, done)
        if differences := contradictions(done, facts):
            text = f"{folder}/{DONE}: was altered: by the generation's files {'; '.join(differences)}; it is corrected"
            observe(Note(text, "warning"))
        else:
            facts = {}
    return restore_spec(folder, spec, **facts)


def rows_of_other_chains(record: StudyRecord, forest: Forest, *, store: RunStore) -> list[dict[str, Any]]:
    """Return the rows of recorded chains that this run doesn't want, read from their generations.

    There are none to restore where results.parquet was valid: it still has them.

    Args:
        record: of the study, as it was before this run.
        forest: of the chains that this run wants.
        store: where the generations are.
    """
    wanted = {chain.name for chain in forest.chains}
    rows = []
    for entry in record.before.values() if record.table_lost else ():
        settings = None if entry.name in wanted else chain_settings(entry, record.study, store)
        if settings is not None:
            chain = RecordedChain(entry.name, entry.keys, settings)
            rows += finished_rows(chain, Generations(store, [chain])) or []
    return rows
