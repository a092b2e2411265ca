"""Test a search on small studies: budget, sharing, what scores, resuming, failures, the plan."""

import sys
from pathlib import Path

import pytest

from gentrain import api
from gentrain.cli import run
from gentrain.errors import ConfigError, DependencyError, TrainingError
from gentrain.report.gather import gather_study
from gentrain.running.executor import Outcome
from gentrain.running.local import LocalExecutor
from gentrain.running.search import held_out_errors, propose, run_search, with_proposals
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_forest
from gentrain.study.loading import load_study
from gentrain.study.search import values_of

SETTINGS = (
    "name=found", "dataset.source=digits", "dataset.limit=10", "dataset.validation=0.2", "network.name=resnet8",
    "recipe.epochs=1", "recipe.batch_size=32", "recipe.milestones=[]", "recipe.padding=1", "precision=fp32",
    "generations=1", "device=cpu", "cpus_per_worker=1", "compile=false", "search.budget=6",
    "search.seed=6",
    "search.space={lambda: {from: 0.3, to: 0.9}, f_a1: [0.6, 1.0]}",
)  # fmt: skip


def searching(*overrides):
    return load_study(overrides=[*SETTINGS, *overrides])


def search(study, runs, executor=None, observe=lambda _: None):
    store = RunStore(str(runs))
    return run_search(study, store=store, executor=executor or LocalExecutor(), observe=observe, on_change="refuse")


def proposed(runs, study="found"):
    return api.open_run(str(runs)).study(study).grid.process


def trained(runs):
    return {path.parent.name: path.stat().st_mtime_ns for path in Path(runs).glob("generations/*/DONE.json")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search that was never interrupted: its folder, its rows, its notes."""
    runs, notes = tmp_path_factory.mktemp("whole"), []
    rows = search(searching(), runs, observe=lambda event: notes.append(getattr(event, "text", "")))
    return runs, rows, notes


class Interrupted(LocalExecutor):
    """Is interrupted after the first chain, as by Ctrl-C."""

    def run(self, chains, **arguments):
        outcome = super().run(chains[:1], **arguments)
        return Outcome(outcome.failed, outcome.stopped, interrupted=True)


class Failing(LocalExecutor):
    """Can't finish the first chain that it is given; counts its attempts."""

    def __init__(self):
        self.failed, self.attempts = None, 0

    def run(self, chains, **arguments):
        self.failed = self.failed or chains[0].name
        self.attempts += sum(chain.name == self.failed for chain in chains)
        outcome = super().run([chain for chain in chains if chain.name != self.failed], **arguments)
        failed = {self.failed: TrainingError("it diverged")} if self.failed in {chain.name for chain in chains} else {}
        return Outcome({**outcome.failed, **failed}, outcome.stopped, interrupted=False)


def test_the_budget_is_spent_and_kept_and_patriarchs_are_shared(whole):
    runs, rows, _ = whole
    assert len(trained(runs)) == 6
    assert len({row["key"] for row in rows if row["generation"] == 0}) == 2
    assert len(proposed(runs)) == 4
    forest = build_forest(api.open_run(str(runs)).study("found"), data="d", num_classes=10)
    assert len(forest.trainings) == 6


def test_the_best_is_that_of_the_held_out_split(whole):
    _, rows, notes = whole
    last = [row for row in rows if row["generation"] == 1]
    best = min(last, key=lambda row: row["validation_error"])
    wanted = f"the best: {best['chain'].rpartition('-resnet8')[0]}, {100 * best['validation_error']:.2f} % on the held"
    assert any(wanted in note for note in notes)


def test_nothing_but_the_held_out_error_scores():
    """The test split says the opposite of the held-out split; so does generation 0."""
    study = with_proposals(searching(), propose(searching(), (), {}, RunStore("unused"))[:2])
    chains = build_forest(study, data="d", num_classes=10).chains
    rows = [
        {"chain": chain.name, "generation": g, "validation_error": error, "top1_error": 1 - error,
         "ensemble_top1_error": 1 - error}
        for chain, errors in zip(chains, ((0.1, 0.4), (0.2, 0.3)), strict=True) for g, error in enumerate(errors)
    ]  # fmt: skip
    first, second = study.grid.process
    assert held_out_errors(chains, rows) == {first: 0.4, second: 0.3}
    assert held_out_errors(chains, rows[:2]) == {first: 0.4, second: None}


def test_seeds_are_averaged():
    study = with_proposals(searching("grid.seed=[0, 1]"), searching().grid.process or (searching().process,))
    chains = build_forest(study, data="d", num_classes=10).chains
    rows = [
        {"chain": chain.name, "generation": 1, "validation_error": e}
        for chain, e in zip(chains, (0.2, 0.4), strict=True)
    ]
    assert held_out_errors(chains, rows) == {study.process: pytest.approx(0.3)}
    assert held_out_errors(chains, rows[:1]) == {study.process: None}


def test_an_interrupted_search_goes_on_to_the_same_proposals(whole, tmp_path, monkeypatch):
    runs, rows, _ = whole
    with pytest.raises(KeyboardInterrupt):
        search(searching(), tmp_path, Interrupted())
    before = trained(tmp_path)
    assert len(before) == 2
    monkeypatch.setattr("gentrain.running.search.random_proposals", lambda *_: iter(()))  # what is recorded stays
    resumed = search(searching(), tmp_path)
    assert proposed(tmp_path) == proposed(runs)
    assert [(row["key"], row["validation_error"]) for row in resumed] == [
        (row["key"], row["validation_error"]) for row in rows
    ]
    assert before.items() <= trained(tmp_path).items()


def test_a_larger_budget_goes_on_and_an_equal_one_trains_nothing(whole, tmp_path):
    runs, _, _ = whole
    search(searching("search.budget=3"), tmp_path)
    assert len(proposed(tmp_path)) == 2
    search(searching(), tmp_path)
    assert proposed(tmp_path) == proposed(runs)
    done = trained(tmp_path)
    assert len(done) == 6
    search(searching(), tmp_path)
    assert trained(tmp_path) == done


@pytest.mark.parametrize("lost", ["missing", "damaged"])
def test_a_lost_record_costs_no_training(tmp_path, monkeypatch, lost):
    monkeypatch.setattr("gentrain.running.search._optuna_proposals", one_after_another)
    monkeypatch.setattr("gentrain.running.search._optuna", lambda: None)
    study = searching("search.method=optuna", "search.batch=1", "search.budget=3")
    rows = search(study, tmp_path)
    before, done = proposed(tmp_path), trained(tmp_path)
    assert len(before) == 2
    record = tmp_path / "studies" / "found" / "study.yaml"
    if lost == "missing":
        record.unlink()
    else:
        record.write_bytes(record.read_bytes()[:-5])
    notes = []
    assert search(study, tmp_path, observe=lambda event: notes.append(getattr(event, "text", ""))) == rows
    assert any(f"study.yaml: {lost}" in note and "proposals are made again" in note for note in notes)
    assert (proposed(tmp_path), trained(tmp_path)) == (before, done)


def test_another_search_of_the_same_name_is_refused(whole):
    runs, _, _ = whole
    with pytest.raises(ConfigError, match=r"changed since its last run \(search.seed: 6 → 1\).*only search.budget may"):
        search(searching("search.seed=1"), runs)
    with pytest.raises(ConfigError, match=r"recipe.epochs: 1 → 2"):
        search(searching("recipe.epochs=2"), runs)
    with pytest.raises(ConfigError, match=r"search.budget: 1 is less than one proposal's 2 trainings"):
        search(searching("search.budget=1", "name=poor"), runs)


def test_one_that_fails_is_tried_once_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr("gentrain.running.search._optuna_proposals", one_after_another)
    monkeypatch.setattr("gentrain.running.search._optuna", lambda: None)
    executor = Failing()
    with pytest.raises(TrainingError, match=r"1 of 3 chains are not finished: .*it diverged"):
        search(searching("search.method=optuna", "search.batch=1", "search.budget=4"), tmp_path, executor)
    assert executor.attempts == 1
    assert len(trained(tmp_path)) == 3
    assert api.open_run(str(tmp_path)).status("found").failures[executor.failed] == "it diverged"


def one_after_another(process, search, known, errors):
    """Propose without Optuna, in order; each batch must know the errors of the one before."""
    assert all(process in errors for process in known)
    for lam in (0.3, 0.5, 0.7, 0.9):
        proposal = process.model_copy(update={"lam": lam})
        if proposal not in known:
            yield proposal


def test_without_optuna_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(DependencyError, match=r"pip install 'gentrain\[search\]', or set random"):
        search(searching("search.method=optuna"), tmp_path)
    settings = [part for override in SETTINGS for part in ("--set", override)]
    assert run(["sweep", "--runs", str(tmp_path), "--local", *settings, "--set", "search.method=optuna"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert trained(tmp_path) == {}


def test_optunas_proposals_follow_from_the_seed_and_the_results_alone():
    pytest.importorskip("optuna")
    study, store = searching("search.method=optuna", "search.budget=200"), RunStore("unused")
    known, errors = (), {}
    for _ in range(3):
        batch = propose(study, known, errors, store)
        assert batch == propose(study, known, dict(reversed(errors.items())), store)
        assert len(set(known) | set(batch)) == len(known) + 8
        known = (*known, *batch)
        errors = {process: abs(process.lam - 0.8) + 0.1 * (process.f_a1 == 1) for process in known}
    mirrored = {process: 1 - error for process, error in errors.items()}
    assert propose(study, known, errors, store) != propose(study, known, mirrored, store)
    assert propose(study, known, errors | {known[0]: None}, store)  # a failure is no error
    near = [values_of(process, study.search)["lambda"] for process in propose(study, known, errors, store)]
    assert sum(abs(lam - 0.8) < 0.15 for lam in near) >= 4  # of eight: it has learnt where errors are small
    small = searching("search.method=optuna", "search.budget=5")
    assert len(propose(small, (), {}, store)) <= 4
    few = searching("search.method=optuna", "search.budget=50", "search.space={lambda: [0.4, 0.6], f_a1: [0.6, 1.0]}")
    every = propose(few, (), {}, store)
    assert len(set(every)) == len(every) == 4
    assert propose(few, every, dict.fromkeys(every, 0.5), store) == ()


def test_the_plan_is_of_the_budget(whole, capsys):
    runs, _, _ = whole
    assert api.plan(searching("name=other"), runs=str(runs)).summary()["trainings"] == 6
    assert api.plan(searching(), runs=str(runs)).summary()["to_train"] == 0
    assert api.plan(searching("search.budget=9"), runs=str(runs)).summary()["to_train"] == 3
    settings = [part for override in SETTINGS for part in ("--set", override)]
    assert run(["plan", "--runs", str(runs), *settings]) == 0
    assert "A search of at most 6 trainings" in capsys.readouterr().out


def test_a_search_has_a_report_and_is_no_chain(whole, capsys):
    runs, _, _ = whole
    report = gather_study(RunStore(str(runs)), "found")
    assert {group.first.label for group in report.groups} == {process.label for process in proposed(runs)}
    assert (report.missing, report.notes) == ((), ())
    settings = [part for override in SETTINGS for part in ("--set", override)]
    assert run(["chain", "--runs", str(runs), *settings]) == 2
    assert "a study with a search is more than one chain; use gentrain sweep" in capsys.readouterr().err
