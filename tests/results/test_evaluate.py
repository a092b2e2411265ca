import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gentrain import api, cli
from gentrain.scores.confusion import agreement, class_errors, confusion_matrix, group_errors, top_confusions
from gentrain.scores.metrics import top_k_error

ONE_HOT = np.eye(4)


def test_by_hand():
    labels = np.array([0, 0, 1, 2, 2, 2])
    probabilities = ONE_HOT[[0, 1, 1, 3, 3, 0]]
    confusion = confusion_matrix(probabilities, labels)
    assert confusion.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 2], [0, 0, 0, 0]]
    assert class_errors(confusion)[:3].tolist() == [0.5, 0.0, 1.0]
    assert np.isnan(class_errors(confusion)[3])
    assert top_confusions(confusion, count=9) == [(2, 3, 2), (0, 1, 1), (2, 0, 1)]
    groups = group_errors(confusion, np.array([0, 0, 1, 1]))
    assert groups.within == pytest.approx(3 / 6)
    assert groups.outside == pytest.approx(1 / 6)
    assert groups.share_within == pytest.approx(0.75)
    assert groups.chance == pytest.approx(1 / 3)
    assert agreement(np.stack([probabilities, ONE_HOT[[0, 1, 1, 3, 3, 1]]])).tolist() == [[1, 5 / 6], [5 / 6, 1]]


@given(
    arrays.arrays(np.float64, (12, 4), elements=st.floats(0, 1)), st.lists(st.integers(0, 3), min_size=12, max_size=12)
)
def test_all_errors_tell_the_same_story(scores, labels):
    labels = np.array(labels)
    confusion = confusion_matrix(scores, labels)
    error = top_k_error(scores, labels, k=1)
    groups = group_errors(confusion, np.array([0, 1, 0, 1]))
    assert confusion.sum() == 12
    assert groups.within + groups.outside == pytest.approx(error)
    weights = confusion.sum(axis=1) / 12
    assert np.nansum(class_errors(confusion) * weights) == pytest.approx(error)
    assert sum(count for *_, count in top_confusions(confusion, count=99)) == round(error * 12)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    from gentrain.study.loading import load_study
    from tests.conftest import SMALL

    folder = tmp_path_factory.mktemp("evaluate")
    study = load_study(overrides=[*SMALL, "dataset.validation=0.2"])
    return folder, api.run(study, runs=str(folder), observe=lambda _: None, local=True)


def evaluated(runs, capsys, *options):
    assert cli.run(["evaluate", "small", "--runs", str(runs[0]), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_stored_and_recomputed_predictions_agree_with_the_table(runs, capsys):
    rows = runs[1]
    assert evaluated(runs, capsys)["top1_error"] == pytest.approx(rows[1]["top1_error"])
    assert evaluated(runs, capsys, "--generation", "0")["nll"] == pytest.approx(rows[0]["nll"])
    assert evaluated(runs, capsys, "--ensemble")["top1_error"] == pytest.approx(rows[1]["ensemble_top1_error"])
    held_out = evaluated(runs, capsys, "--split", "validation")
    assert held_out["top1_error"] == pytest.approx(rows[1]["validation_error"])
    train = evaluated(runs, capsys, "--split", "train")
    assert train["within_group_error"] is None
    assert len(train["class_errors"]) == 10


def test_weights_give_the_predictions_that_were_stored(runs):
    from gentrain.results.evaluate import evaluate_chain
    from gentrain.store.done import PREDICTIONS, SPEC
    from gentrain.store.predictions import decode_predictions
    from gentrain.store.run import RunStore
    from gentrain.study.lineage import GenerationSpec
    from gentrain.train.inference import predict_split

    store = RunStore(str(runs[0]))
    folder = store.generation(runs[1][1]["key"])
    spec = GenerationSpec.model_validate_json(folder.read(SPEC))
    data = next((runs[0] / "data").glob("digits-*")).name
    predicted, labels = predict_split(spec, "test", store=store, data=data, threads=1)
    stored, stored_labels = decode_predictions(folder.read_verified(PREDICTIONS))
    assert np.array_equal(predicted, stored)
    assert np.array_equal(labels, stored_labels)
    assert evaluate_chain(store, "small").agreement.shape == (2, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--generation", "7"], "has generations 0 to 1 finished"), (["--split", "tset"], "the dataset has train"),
     (["--chain", "D"], "not in small; there: D(0.6,0.6)-resnet8-s0")],
)  # fmt: skip
def test_what_is_not_there_is_refused_with_what_is(runs, capsys, options, message):
    assert cli.run(["evaluate", "small", "--runs", str(runs[0]), *options]) == 2
    assert message in capsys.readouterr().err


def test_the_tables_are_for_people(runs, capsys):
    assert cli.run(["evaluate", "small", "--runs", str(runs[0])]) == 0
    shown = capsys.readouterr().out
    for text in ("worst classes", "commonest mistakes", "same prediction", "Gen #1", "top-1 error"):
        assert text in shown
