"""A chain that uses all that goes beyond the paper's process: K by score, a schedule of λ, an ensemble as teacher."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gentrain import api, cli
from gentrain.events import EpochDone, GenerationDone, GenerationQueued, GenerationStarted
from gentrain.scores.ensembles import label_scores, mixture_weights, select_members, weighted_ensemble
from gentrain.scores.metrics import score
from gentrain.store.done import MODEL, PREDICTIONS, VALIDATION_PREDICTIONS
from gentrain.store.predictions import decode_predictions
from gentrain.store.run import RunStore
from gentrain.store.study_record import RESULTS, StudyRecord
from gentrain.study.lineage import predicted_scores
from gentrain.study.loading import load_study
from tests.conftest import SMALL

BEYOND = (
    *SMALL,
    "dataset.validation=0.2",
    "generations=2",
    "process={f_a1: 0.7, k: {mass: 0.9, by: class}, teacher: ensemble, temperature: 2}",
    "process.lambda={schedule: cosine, from: 0.8, to: 0.4}",
)


def launch(runs, *overrides, observe=lambda _: None):
    return api.run(load_study(overrides=[*BEYOND, *overrides]), runs=str(runs), observe=observe, local=True)


def weights_and_predictions(runs, rows):
    return [(runs / "generations" / row["key"] / name).read_bytes() for row in rows for name in (MODEL, PREDICTIONS)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    runs = tmp_path_factory.mktemp("beyond")
    return runs, launch(runs)


def test_interrupted_and_damaged_it_ends_in_the_same_bits(finished, tmp_path):
    """In the student that has two teachers, the first of which is damaged meanwhile: it's trained again before."""

    def interrupt(event):
        if isinstance(event, EpochDone) and (event.generation, event.row["epoch"]) == (2, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(tmp_path, observe=interrupt)
    (tmp_path / "generations" / finished[1][0]["key"] / MODEL).write_bytes(b"rubbish")
    events = []
    rows = launch(tmp_path, observe=events.append)
    assert [e.generation for e in events if isinstance(e, GenerationQueued)] == [0, 2]
    assert [e.reused for e in events if isinstance(e, GenerationDone)] == [False, True, False]
    assert [e.epoch for e in events if isinstance(e, GenerationStarted)] == [0, 2]
    timed = {"train_seconds"}
    assert [{k: v for k, v in row.items() if k not in timed} for row in rows] == [
        {k: v for k, v in row.items() if k not in timed} for row in finished[1]
    ]
    assert weights_and_predictions(tmp_path, rows) == weights_and_predictions(*finished)


def test_rows_tell_what_the_theory_predicts(finished):
    _, rows = finished
    assert rows[0]["chain"] == "D(0.7,cosine-0.8-0.4,K0.9-class-20,T2.0,ensemble)-resnet8-s0"
    assert [row["lambda"] for row in rows] == [None, 0.8, 0.4]
    energies = [0.3, 0.8 * 0.3, 0.4 * (0.3 + 0.8 * 0.3) / 2]
    predicted = [1 - energy for energy in energies]
    settings = load_study(overrides=[*BEYOND, "process.temperature=1"])
    assert predicted_scores(settings, ()) == pytest.approx(predicted)
    assert [row["primary_predicted"] for row in rows] == [predicted[0], None, None]  # the temperature is 2


def test_another_teacher_makes_another_student_of_the_same_generation(finished):
    runs, rows = finished
    events = []
    other = launch(runs, "name=other", "process.teacher=previous", observe=events.append)
    assert [row["key"] for row in other[:2]] == [row["key"] for row in rows[:2]]
    assert [e.generation for e in events if isinstance(e, GenerationQueued)] == [2]
    assert weights_and_predictions(runs, other)[4] != weights_and_predictions(runs, rows)[4]


def test_ensembles_are_fitted_on_held_out_images_and_scored_on_the_test(finished):
    runs, rows = finished
    assert rows[0]["weighted_nll"] is rows[0]["ensemble_weights"] is rows[0]["selected_generations"] is None
    folders = [RunStore(str(runs)).generation(row["key"]) for row in rows]
    held_out = [label_scores(*decode_predictions(f.read_verified(VALIDATION_PREDICTIONS))) for f in folders]
    test, labels = zip(*(decode_predictions(f.read_verified(PREDICTIONS)) for f in folders), strict=True)
    for last in (1, 2):
        row, scores, members = rows[last], np.stack(held_out[: last + 1]), np.stack(test[: last + 1])
        assert row["ensemble_weights"] == pytest.approx(mixture_weights(scores))
        assert tuple(row["selected_generations"]) == select_members(scores)
        wanted = score(weighted_ensemble(members, row["ensemble_weights"]), labels[0])
        assert row["weighted_top1_error"] == pytest.approx(wanted.top1_error)
        assert row["weighted_nll"] == pytest.approx(wanted.nll)
        wanted = score(members[list(row["selected_generations"])].mean(axis=0), labels[0])
        assert row["selected_nll"] == pytest.approx(wanted.nll)
    stored = pq.read_table(runs / "studies" / "small" / "results.parquet")
    assert stored.schema.equals(RESULTS)
    own = [row for row in stored.to_pylist() if row["chain"] == rows[0]["chain"]]
    assert own == [{name: row.get(name) for name in own[0]} for row in rows]


@pytest.mark.parametrize("kind", ["mean", "weighted", "selected"])
def test_evaluate_tells_the_tables_ensembles(finished, capsys, kind):
    runs, rows = finished
    options = ["evaluate", "small", "--runs", str(runs), "--chain", rows[0]["chain"], "--ensemble-kind", kind]
    assert cli.run([*options, "--json"]) == 0
    name = "ensemble" if kind == "mean" else kind
    assert json.loads(capsys.readouterr().out)["nll"] == pytest.approx(rows[2][f"{name}_nll"])
    assert cli.run(options) == 0
    assert "ensemble of generations" in capsys.readouterr().out


def test_the_table_shows_them_where_there_are_any(finished, capsys):
    from gentrain.view import results_table, show

    show(results_table(finished[1]))
    shown = capsys.readouterr().out
    for text in ("+ weighted", "+ selected", "weights of the ensemble", "generations selected"):
        assert text in shown
    show(results_table([{k: v for k, v in row.items() if "ed_" not in k} for row in finished[1][:1]]))
    assert "+ weighted" not in capsys.readouterr().out


def test_results_from_before_there_were_such_columns_are_kept(tmp_path, small):
    record = StudyRecord(small(), store=RunStore(str(tmp_path)))
    old = {"chain": "a", "generation": 0, "key": "k0", "top1_error": 0.5}
    columns = [name for name in RESULTS.names if not name.startswith(("weighted", "selected", "ensemble_weights"))]
    record.folder.write_table(
        "results.parquet", pa.Table.from_pylist([old], pa.schema([RESULTS.field(name) for name in columns]))
    )
    record.add([{"chain": "a", "generation": 1, "key": "k1", "selected_generations": [0, 1]}])
    rows = pq.read_table(tmp_path / "studies" / "small" / "results.parquet").to_pylist()
    assert [(row["key"], row["top1_error"], row["selected_generations"]) for row in rows] == [
        ("k0", 0.5, None), ("k1", None, [0, 1])
    ]  # fmt: skip
