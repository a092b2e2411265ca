"""Records of finished generations: damaged specs are restored, records of version 0.1 get their digests."""

from __future__ import annotations

from collections.abc import Iterable

from gentrain.events import Note, Observer
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec


def mend_records(specs: Iterable[GenerationSpec], *, store: RunStore, observe: Observer) -> None:
    """Make every finished generation's DONE.json and spec.json vouch for each other; observe one line for each kind.

    Reads these two files alone. A damaged DONE.json is left: the generation is trained again (`ensure_generation`).

    Args:
        specs: of the generations, as they are planned.
        store: where they are.
        observe: called with what was done.
    """
    upgraded, restored = 0, []
    for spec in specs:
        folder = store.generation(spec.key)
        done = folder.done()
        if done is None:
            continue
        intact = folder.spec() is not None and (done.digest is None or folder.spec_intact(done))
        if done.digest is not None and intact:
            continue
        with folder.locked(waiting=lambda: None):
            if not folder.restore_spec(spec):
                continue
        upgraded += done.digest is None
        restored += [] if intact else [str(folder)]
    if upgraded:
        observe(Note(f"{upgraded} generations were recorded without digests by an older version: added to DONE.json"))
    if restored:
        observe(Note(f"spec.json was damaged and is restored from the study: {', '.join(restored)}", "warning"))
