"""Records of version 0.1, which have no digest, are compared with their own files before they get one."""

import json

import numpy as np
import pyarrow as pa
import pytest

from gentrain.events import Note
from gentrain.results.chain import Generations
from gentrain.running.records import mend_records
from gentrain.scores.metrics import score
from gentrain.store.done import DONE, EPOCHS, MODEL, PREDICTIONS, SPEC, VALIDATION_PREDICTIONS
from gentrain.store.folder import encode_table
from gentrain.store.generation import encode_spec
from gentrain.store.predictions import encode_predictions
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_chain
from gentrain.study.loading import load_study
from tests.conftest import SMALL

PRIMARY, SECONDS = 0.61, 3.5


def predictions(seed):
    random = np.random.default_rng(seed)
    return random.dirichlet(np.ones(10), 50).astype(np.float32), random.integers(0, 10, 50)


@pytest.fixture
def old(tmp_path):
    """Return a store, a spec, and the record that version 0.1 wrote of its finished generation."""
    store = RunStore(str(tmp_path))
    spec = build_chain(load_study(overrides=[*SMALL]), data="d", num_classes=10).specs[0]
    folder = store.generation(spec.key)
    test, validation = predictions(0), predictions(1)
    rows = [{"epoch": 0, "primary_score": 0.5, "seconds": 1.5}, {"epoch": 1, "primary_score": PRIMARY, "seconds": 2.0}]
    files = {
        SPEC: encode_spec(spec),
        MODEL: b"weights",
        EPOCHS: encode_table(pa.Table.from_pylist(rows)),
        PREDICTIONS: encode_predictions(*test),
        VALIDATION_PREDICTIONS: encode_predictions(*validation),
    }
    folder.finish(
        files,
        scores=vars(score(*test)),
        validation_scores=vars(score(*validation)),
        train_primary=PRIMARY,
        seconds=SECONDS,
        workers=1,
        threads=1,
        device="cpu",
        versions={},
    )
    record = json.loads(folder.read(DONE))
    del record["digest"], record["files"][SPEC]
    folder.write_json(DONE, record)
    return store, spec, record


def mended(store, spec):
    events = []
    mend_records([spec], Generations(store, []), store=store, observe=events.append)
    assert store.generation(spec.key).inspect().valid
    return [event.text for event in events if isinstance(event, Note) and event.level == "warning"]


def test_a_record_that_its_files_confirm_is_sealed_as_it_is(old):
    store, spec, record = old
    assert mended(store, spec) == []
    sealed = json.loads(store.generation(spec.key).read(DONE))
    assert {name: sealed[name] for name in record if name != "files"} == {
        name: value for name, value in record.items() if name != "files"
    }
    assert sealed["digest"]


@pytest.mark.parametrize(
    ("field", "name"),
    [("scores", "top1_error"), ("scores", "top5_error"), ("scores", "nll"), ("scores", "ece"), ("scores", "primary"),
     ("validation_scores", "top1_error"), ("train_primary", None), ("seconds", None)],
)  # fmt: skip
def test_an_altered_value_is_corrected_from_the_files_and_said(old, field, name):
    store, spec, record = old
    sound = json.loads(json.dumps(record))
    if name is None:
        record[field] = record[field] * 0.9
    else:
        record[field][name] = record[field][name] * 0.9
    folder = store.generation(spec.key)
    folder.write_json(DONE, record)
    (line,) = mended(store, spec)
    assert f"{folder}/{DONE}: was altered" in line
    assert (name or field) in line
    done = folder.done()
    assert done.scores == pytest.approx(sound["scores"], rel=1e-9)
    assert done.validation_scores == pytest.approx(sound["validation_scores"], rel=1e-9)
    assert (done.train_primary, done.seconds) == (PRIMARY, SECONDS)
    assert mended(store, spec) == []


def test_validation_scores_that_were_removed_are_restored(old):
    store, spec, record = old
    store.generation(spec.key).write_json(DONE, record | {"validation_scores": None})
    assert len(mended(store, spec)) == 1
    assert store.generation(spec.key).done().validation_scores is not None


def test_files_that_are_damaged_say_nothing_and_are_seen_by_their_checksums(old):
    store, spec, record = old
    folder = store.generation(spec.key)
    folder.write(PREDICTIONS, b"damaged")
    mend_records([spec], Generations(store, []), store=store, observe=lambda _: None)
    assert folder.done().scores == record["scores"]
    assert folder.inspect().damaged == (PREDICTIONS,)  # so it is evaluated again, and the scores with it
