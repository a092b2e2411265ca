"""A study's status, from the run folder alone."""

import pytest

from gentrain.errors import ConfigError
from gentrain.results.status import study_status
from gentrain.store.run import RunStore
from gentrain.store.study_record import study_names
from gentrain.study.lineage import build_forest
from gentrain.study.loading import load_study
from tests.finished import SCORES, finish

DATA = "d" * 64


def study(*overrides):
    return load_study(overrides=["generations=2", "recipe.epochs=10", "recipe.milestones=[]", *overrides])


@pytest.fixture
def store(tmp_path):
    return RunStore(str(tmp_path))


def test_status_tells_done_running_interrupted_and_waiting(store):
    specs = list(build_forest(study("generations=3"), data=DATA, num_classes=10).specs.values())
    assert study_names(store) == []
    folder = store.study("s")
    folder.write("study.yaml", b"{name: s, recipe: {epochs: 10, milestones: []}}")
    keys = [spec.key for spec in specs]
    (folder / "chains").write_json("c.json", {"name": "c", "keys": keys})
    finish(store, specs[0], seconds=1.0)
    store.generation(keys[1]).save_checkpoint(7, b"state")
    store.generation(keys[2]).save_checkpoint(4, b"state")
    with store.generation(keys[1]).locked(waiting=pytest.fail):
        (chain,) = study_status(store, "s").chains.values()
    assert [(cell.state, cell.epoch) for cell in chain] == [
        ("done", 0), ("running", 7), ("interrupted", 4), ("waiting", 0)
    ]  # fmt: skip
    assert chain[0].top1_error == 0.25
    with pytest.raises(ConfigError, match=r"t: no such study in .*; there: s"):
        study_status(store, "t")


def test_status_says_what_failed_what_was_stopped_and_what_is_saturated(store):
    from gentrain.store.study_record import StudyRecord

    def begin(point, errors, **ended):
        settings = point.model_copy(update={"name": f"s{len(study_names(store))}"})
        chain = next(iter(build_forest(settings, data=DATA, num_classes=10).chains))
        for spec, error in zip(chain.specs, errors, strict=False):
            finish(store, spec, seconds=1.0, validation_scores=SCORES | {"top1_error": error})
        record = StudyRecord(settings, store=store)
        record.begin([chain], **{name: {chain.name: "why"} for name, given in ended.items() if given})
        state = study_status(store, settings.name)
        return [cell.state for cell in state.chains[chain.name]], state.failures

    held_out = ("dataset.validation=0.1", "generations=3")
    assert begin(study(), [0.3], failed=True)[0] == ["done", "failed", "waiting"]
    assert list(begin(study("seed=1"), [0.3], failed=True)[1].values()) == ["why"]
    assert begin(study(*held_out, "seed=2", "scheduler.name=asha"), [0.3, 0.2], stopped=True)[0][2:] == ["stopped"] * 2
    assert begin(study(*held_out, "seed=3", "patience=1"), [0.3, 0.2, 0.2])[0] == ["done"] * 3 + ["saturated"]
    assert begin(study(*held_out, "seed=4", "patience=2"), [0.3, 0.2, 0.2])[0] == ["done"] * 3 + ["waiting"]
