"""Records of finished generations: damaged specs are restored, records of version 0.1 get their digests."""

from __future__ import annotations

from collections.abc import Iterable

from gentrain.events import Note, Observer
from gentrain.results.chain import Generations
from gentrain.store.done import SPEC
from gentrain.store.generation import restore_spec
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec


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
        inspection = generations.inspect(spec.key)
        done, intact = inspection.done, SPEC not in inspection.damaged
        if done is None or (done.digest is not None and intact):
            continue
        folder = store.generation(spec.key)
        with folder.locked(waiting=lambda: None):
            if not restore_spec(folder, spec):
                continue
        generations.forget(spec.key)
        upgraded += done.digest is None
        restored += [] if intact else [str(folder)]
    if upgraded:
        observe(Note(f"{upgraded} generations were recorded without digests by an older version: added to DONE.json"))
    if restored:
        observe(Note(f"spec.json was damaged and is restored from the study: {', '.join(restored)}", "warning"))
