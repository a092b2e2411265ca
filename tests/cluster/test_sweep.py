"""A grid through Ray Tune: every shared generation is trained once, failures are reported, nothing is repeated."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gentrain import api
from gentrain.errors import ConfigError, TrainingError
from gentrain.events import GenerationStarted, InChain, Note
from gentrain.store.done import MODEL
from gentrain.study.loading import load_study
from tests.conftest import SMALL

GRID = (*SMALL, "name=grid", "grid.process=[{f_a1: 1.0, lambda: 0.0}, {f_a1: 1.0, lambda: 0.5}, {lambda: 0.5}]")
NAMES = ["D(0.6,0.5)-resnet8-s0", "D(1.0,0.0)-resnet8-s0", "D(1.0,0.5)-resnet8-s0"]


def done(runs):
    return {path: path.stat().st_mtime_ns for path in Path(runs).glob("generations/*/DONE.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    runs, notes, actors = tmp_path_factory.mktemp("sweep"), [], set()

    def observe(event):
        if isinstance(event, Note):
            notes.append(event.text)
        if isinstance(event, InChain) and isinstance(event.event, GenerationStarted):
            import ray
            from ray.util.state import list_actors

            listed = list_actors(address=ray.get_runtime_context().gcs_address, detail=True)
            # one that isn't up yet has no name so far
            actors.update(actor.repr_name for actor in listed if actor.class_name == "ChainTrial" and actor.repr_name)

    rows = api.run(load_study(overrides=GRID), runs=str(runs), observe=observe)
    return runs, rows, notes, actors


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_every_chain_is_finished_and_shared_generations_are_trained_once(finished):
    runs, rows, notes, actors = finished
    assert sorted({row["chain"] for row in rows}) == NAMES
    assert len(rows) == 5
    assert len({row["key"] for row in rows}) == len(done(runs)) == 4
    assert any("3 chains of 5 generations, 4 distinct trainings" in text for text in notes)
    assert any("side by side" in text for text in notes)
    assert actors == set(NAMES)  # as the dashboard lists them
    stored = pq.read_table(runs / "studies" / "grid" / "results.parquet").to_pylist()
    assert [(row["chain"], row["generation"], row["key"]) for row in stored] == sorted(
        (row["chain"], row["generation"], row["key"]) for row in rows
    )


@pytest.mark.ray
def test_a_sweeps_networks_are_those_of_single_chains(finished, tmp_path):
    runs, rows, *_ = finished
    single = api.run(
        load_study(overrides=[*SMALL, "process.lambda=0.5"]), runs=str(tmp_path), observe=lambda _: None, local=True
    )
    assert [row["key"] for row in single] == [row["key"] for row in rows if row["chain"] == NAMES[0]]
    for row in single:
        one, other = (root / "generations" / row["key"] / MODEL for root in (runs, tmp_path))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.ray
def test_the_debug_sweep_ends_in_the_same_bits_reports_failures_and_goes_on(finished, tmp_path):
    runs, rows, *_ = finished
    study, notes = load_study(overrides=GRID), []
    checkpoints = tmp_path / "generations" / rows[1]["key"] / "train"
    checkpoints.parent.mkdir(parents=True)
    checkpoints.write_text("a file where a folder should be")
    with pytest.raises(TrainingError, match=r"1 of 3 chains are not finished: D\(0\.6,0\.5\)-resnet8-s0: .*"):
        api.run(study, runs=str(tmp_path), observe=lambda _: None, local=True)
    checkpoints.unlink()
    again = api.run(study, runs=str(tmp_path), observe=notes.append, local=True)
    assert Note("1 trainings to do, one after the other in this process") in notes
    assert [(row["chain"], row["key"]) for row in again] == [(row["chain"], row["key"]) for row in rows]
    for row in rows:
        one, other = (root / "generations" / row["key"] / MODEL for root in (runs, tmp_path))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.ray
def test_a_second_sweep_trains_nothing_and_starts_no_ray(finished, monkeypatch):
    runs, rows, *_ = finished
    monkeypatch.setattr("gentrain.cluster.session.ray_session", lambda **_: pytest.fail("started Ray"))
    before = done(runs)
    assert api.run(load_study(overrides=GRID), runs=str(runs), observe=lambda _: None) == rows
    assert done(runs) == before


@pytest.mark.ray
def test_a_changed_study_is_refused_with_the_difference(finished):
    runs, *_ = finished

    def refused(*overrides, extend=False):
        study, on_change = load_study(overrides=[*GRID, *overrides]), "extend" if extend else "refuse"
        with pytest.raises(ConfigError) as error:
            api.run(study, runs=str(runs), observe=lambda _: None, on_change=on_change)
        return str(error.value)

    before = sorted(runs.glob("studies/grid/chains/*"))
    for extend in (False, True):
        message = refused("recipe.epochs=4", extend=extend)
        assert "study grid was changed since its last run (recipe.epochs: 3 → 4); give the study a new name" in message
    assert "(grid.seed: [] → [0, 1]); use --extend to add chains" in refused("grid.seed=[0, 1]")
    assert "give the study a new name" in refused("grid.seed=[1]", extend=True)  # --extend only adds
    assert sorted(runs.glob("studies/grid/chains/*")) == before
    assert json.loads(before[0].read_text())["name"] == NAMES[0]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_chain_that_fails_is_reported_and_the_others_finish(tmp_path, monkeypatch):
    """The second chain's only generation can't write its checkpoints."""
    from gentrain.data.prepare.dataset import prepare
    from gentrain.study.lineage import build_forest

    study = load_study(overrides=[*SMALL, "generations=0", "grid.network=[resnet8, resnet14]"])
    data = prepare(study.dataset, tmp_path / "data")
    forest = build_forest(study, data=data.manifest.fingerprint, num_classes=data.num_classes)
    key = forest.chains[1].keys[0]
    (tmp_path / "generations" / key).mkdir(parents=True)
    (tmp_path / "generations" / key / "train").write_text("a file where a folder should be")
    with pytest.raises(TrainingError, match=r"1 of 2 chains are not finished: D\(0\.6,0\.6\)-resnet14-s0: .*" + key):
        api.run(study, runs=str(tmp_path), observe=lambda _: None)
    assert len(done(tmp_path)) == 1
