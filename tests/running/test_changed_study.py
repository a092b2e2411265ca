"""A study without a grid that was changed since its last run is refused, as a sweep is; what fits it may be added."""

import pytest

from gentrain import api
from gentrain.errors import ConfigError
from gentrain.events import FinishedBefore, InChain
from gentrain.store.run import RunStore
from gentrain.store.study_record import StudyRecord, recorded_study
from gentrain.study.lineage import build_chain

FAST = ("recipe.epochs=1", "recipe.milestones=[]", "generations=0")


@pytest.fixture
def run(small, tmp_path):
    """Return a function that runs the small study with more settings; one generation of it is finished."""

    def call(*overrides, on_change="refuse"):
        return api.run(small(*FAST, *overrides), runs=str(tmp_path), local=True, on_change=on_change)

    call()
    return call


def test_other_settings_are_refused_with_the_difference_and_leave_the_first_run_as_it_was(run, tmp_path):
    folder = api.open_run(str(tmp_path))
    study, status = folder.study("small"), folder.status("small")
    for on_change in ("refuse", "extend"):
        with pytest.raises(ConfigError) as error:
            run("recipe.epochs=2", on_change=on_change)
        assert str(error.value) == (
            "study small was changed since its last run (recipe.epochs: 1 → 2); give the study a new name "
            "(--set name=small-2)"
        )
        with pytest.raises(ConfigError, match=r"\(seed: 0 → 1; precision: fp32 → bf16\); give the study a new name"):
            run("seed=1", "precision=bf16", on_change=on_change)
    with pytest.raises(ConfigError, match=r"\(grid\.seed: \[\] → \[0, 1\]\); use --extend to add chains, or"):
        run("grid.seed=[0, 1]")
    assert (folder.study("small"), folder.status("small")) == (study, status)
    assert len(run("cpus_per_worker=2")) == 1  # the same generations, however computed


@pytest.mark.parametrize(("change", "chains"), [("generations=1", 1), ("seed=1", 2), ("process.f_a1=0.7", 2)])
def test_chains_and_generations_are_added_with_extend(run, change, chains, tmp_path):
    name, _, value = change.partition("=")
    before = {"generations": "0", "seed": "0", "process.f_a1": "0.6"}[name]
    with pytest.raises(ConfigError, match=rf"\({name}: {before} → {value}\); use --extend to add chains or"):
        run(change)
    run(change, on_change="extend")
    status = api.open_run(str(tmp_path)).status("small")
    assert len(status.chains) == chains
    assert {cell.state for cells in status.chains.values() for cell in cells} == {"done"}
    run(change)  # known now
    if chains == 1:
        with pytest.raises(ConfigError, match=r"\(generations: 1 → 0\); give the study a new name"):
            run(on_change="extend")


def test_what_a_sweeps_unfinished_chains_have_already_is_observed_before_they_run(small, tmp_path):
    events = []
    rows = api.run(small(*FAST, "grid.seed=[0]"), runs=str(tmp_path), local=True)
    more = small(*FAST, "grid.seed=[0]", "generations=1")
    api.run(more.model_copy(update={"name": "more"}), runs=str(tmp_path), local=True, observe=events.append)
    started = next(i for i, event in enumerate(events) if isinstance(event, InChain))
    (before,) = [event for event in events[:started] if isinstance(event, FinishedBefore)]
    assert before.errors == {rows[0]["key"]: rows[0]["top1_error"]}


@pytest.mark.parametrize("before", [False, True])
def test_workers_are_pinned_otherwise_than_in_older_studies_without_a_change(before, small, tmp_path):
    """Before `auto`, the default was false."""

    def chains(study):
        return [build_chain(study, data="d" * 64, num_classes=10)]

    old, new, store = small(f"pin_workers={before}"), small("seed=1"), RunStore(str(tmp_path))
    StudyRecord(old, store=store).begin(chains(old))
    assert recorded_study(store, "small").pin_workers is before
    StudyRecord(small(), store=store).check_unchanged(chains(small()), extend=False)
    with pytest.raises(ConfigError) as error:
        StudyRecord(new, store=store).check_unchanged(chains(new), extend=False)
    said = "seed: 0 → 1; pin_workers: True → auto" if before else "seed: 0 → 1"
    assert f"({said}); use --extend" in str(error.value)
