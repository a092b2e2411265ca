"""Open a study's trackers for a run, and close them at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from gentrain.errors import ConfigError, cut, first_line
from gentrain.events import Event, Note, Observer
from gentrain.store.done import EPOCHS
from gentrain.store.folder import decode_table
from gentrain.store.run import RunStore
from gentrain.study.schema import Study
from gentrain.trackers.feed import Feed
from gentrain.trackers.ledger import Ledger
from gentrain.trackers.sink import Sink

SINKS = {
    "tensorboard": ("TensorBoardSink", "tensorboardX"),
    "mlflow": ("MlflowSink", "mlflow"),
    "wandb": ("WandbSink", "wandb"),
    "trackio": ("TrackioSink", "trackio"),
}
"""By a tracker's name, which is its module's in this room and its extra's: its class, and the library it needs."""


@contextlib.contextmanager
def tracked(study: Study, store: RunStore, observe: Observer) -> Iterator[Observer]:
    """Yield an observer that passes events on to `observe` and to the study's trackers, and close these at the end.

    Libraries are imported here, before anything is trained, and in the caller's thread.

    Raises:
        ConfigError: where the library of a tracker isn't installed.
    """
    folder = store.log(study.name).parent
    feeds: list[Feed] = []
    for name in dict.fromkeys(study.trackers):
        kind, library = SINKS[name]
        if find_spec(library) is None:
            raise ConfigError(
                f"trackers: {name}: {library} isn't installed here; pip install {library}, or leave {name} out"
            )
        try:
            sink: Sink = getattr(import_module(f"gentrain.trackers.{name}"), kind)(folder)
        except Exception as error:  # an installation that is broken, a folder that can't be written
            observe(
                Note(f"tracker {name}: {type(error).__name__}: {cut(first_line(error))}; it is left out", "warning")
            )
            continue
        ledger = Ledger(folder / "trackers" / f"{name}.jsonl", sink.destination)
        feeds.append(
            Feed(name, sink, ledger=ledger, study=study.name, epochs=lambda key: _epochs(store, key), observe=observe)
        )

    def observe_all(event: Event) -> None:
        observe(event)
        for feed in feeds:
            feed(event)

    try:
        yield observe_all if feeds else observe
    finally:
        for feed in feeds:
            feed.close()


def _epochs(store: RunStore, key: str) -> Sequence[Mapping[str, Any]]:
    content = store.generation(key).read_intact(EPOCHS)
    return [] if content is None else decode_table(content)
