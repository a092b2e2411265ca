"""What a finished generation's own files say of its record: its scores, computed again from the predictions."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gentrain.scores.metrics import score
from gentrain.store.done import EPOCHS, PREDICTIONS, VALIDATION_PREDICTIONS, Done
from gentrain.store.folder import decode_table
from gentrain.store.generation import GenerationFolder
from gentrain.store.predictions import decode_predictions

CLOSE = 1e-6
"""Two results of the same computation differ by no more, relatively, whatever the versions of its libraries."""


def recorded_facts(folder: GenerationFolder, done: Done) -> dict[str, Any]:
    """Return the fields of a record that its files tell: scores, training score and seconds.

    A file that is damaged tells nothing; a pretrained network has no epochs, so neither training score nor seconds.
    """
    facts: dict[str, Any] = {}
    for field, name in (("scores", PREDICTIONS), ("validation_scores", VALIDATION_PREDICTIONS)):
        content = folder.read_intact(name, done=done)
        with contextlib.suppress(ValueError, KeyError):  # no such table, though it has its checksum
            facts |= {} if content is None else {field: asdict(score(*decode_predictions(content)))}
    content = folder.read_intact(EPOCHS, done=done)
    with contextlib.suppress(ValueError, KeyError):
        rows = [] if content is None else decode_table(content)
        if rows:
            facts |= {"train_primary": rows[-1]["primary_score"], "seconds": sum(row["seconds"] for row in rows)}
    return facts


def contradictions(done: Done, facts: Mapping[str, Any]) -> list[str]:
    """Return what of a record its files contradict, as "top1_error 0.1, not 0.2" with the record's value last."""
    recorded, computed = _flat(done.model_dump()), _flat(facts)
    return [
        f"{name.rpartition('.')[2]} {value:g}, not {recorded.get(name)}"
        for name, value in computed.items()
        if recorded.get(name) is None or not math.isclose(recorded[name], value, rel_tol=CLOSE, abs_tol=CLOSE)
    ]


def _flat(fields: Mapping[str, Any]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": number for inner, number in _flat(value).items()}
        elif isinstance(value, int | float):
            flat[name] = value
    return flat
