"""Generations that are finished without being trained."""

import json

from gentrain.store.done import EPOCHS, MODEL, SPEC

SCORES = {"top1_error": 0.25, "top5_error": 0.1, "nll": 1.0, "ece": 0.1, "primary": 0.6}


def finish(store, spec, *, seconds, workers=1, **more):
    """Write a generation that counts as finished; `more` is for its record, such as `validation_scores`."""
    folder = store.generation(spec.key)
    facts = {"scores": SCORES, "train_primary": 0.6, "threads": 1, "device": "cpu", "versions": {}}
    files = {MODEL: b"m", EPOCHS: b"e", SPEC: json.dumps(spec.model_dump(mode="json")).encode()}
    folder.finish(files, seconds=seconds, workers=workers, **facts, **more)
