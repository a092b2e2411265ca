import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentrain.errors import ConfigError
from gentrain.running.plan import RAY_START, TRAINING_START, make_plan, simulate, starting_order, urgencies
from gentrain.running.pretrained import PretrainedNetworks
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_forest
from gentrain.study.loading import load_study
from tests.finished import finish

POINTS = "grid.process=[{f_a1: 1.0, lambda: 0.0}, {f_a1: 1.0, lambda: 0.5}, {lambda: 0.5}, {lambda: 0.6}]"
DATA = "d" * 64


def study(*overrides):
    return load_study(overrides=["generations=2", "recipe.epochs=10", "recipe.milestones=[]", *overrides])


def plan(store, *overrides, devices=1.0, **settings):
    wanted = study(*overrides)
    resolve = PretrainedNetworks(store, data=DATA, num_classes=10)
    forest = build_forest(wanted, data=DATA, num_classes=10, resolve=resolve)
    return make_plan(forest, wanted, store=store, devices=devices, **settings)


@pytest.fixture
def store(tmp_path):
    return RunStore(str(tmp_path))


def test_what_is_not_known_is_unknown_never_zero(store):
    planned = plan(store, POINTS, price=2.0)
    assert (len(planned.seconds), planned.unknown) == (8, 8)
    assert planned.device_seconds is planned.makespan is planned.lower_bound is planned.cost is None


def test_seconds_are_those_of_like_generations_scaled_to_the_epochs(store):
    short = build_forest(study("recipe.epochs=2"), data=DATA, num_classes=10)
    patriarch, student = list(short.specs.values())[:2]
    finish(store, patriarch, seconds=20.0)
    assert plan(store, POINTS).unknown == 6  # students were not measured
    finish(store, student, seconds=30.0)
    planned = plan(store, POINTS, devices=2, price=3.6)
    assert planned.unknown == 0
    assert sorted(planned.seconds.values()) == [100.0] * 2 + [150.0] * 6  # 10 s and 15 s an epoch, 10 epochs
    assert planned.device_seconds == 1100
    assert planned.cost == pytest.approx(1.1)
    assert planned.lower_bound == 550  # all work over two devices; the longest chain takes 400
    assert planned.makespan == 550
    assert plan(store, POINTS, devices=8).makespan == plan(store, POINTS, devices=8).lower_bound == 400
    assert plan(store, POINTS, "workers=2", devices=2).unknown == 8  # another number of workers is another speed


def test_compiled_and_eager_epochs_are_kept_apart(store):
    """A compiled generation stands for compiled ones, an eager one for eager ones; one that was both for neither."""
    short = next(iter(build_forest(study("recipe.epochs=2"), data=DATA, num_classes=10).specs.values()))
    other = short.model_copy(update={"seed": 1})
    finish(store, short, seconds=20.0)
    assert set(plan(store, POINTS).to_train.values()) == {100.0, None}  # what is known, while nothing else is
    finish(store, other, seconds=10.0, compiled_epochs=2)
    finish(store, other.model_copy(update={"seed": 2}), seconds=1.0, compiled_epochs=1)
    assert set(plan(store, POINTS).to_train.values()) == {50.0, None}
    assert set(plan(store, POINTS, "compile=false").to_train.values()) == {100.0, None}
    assert set(plan(store, POINTS, "compile=true").to_train.values()) == {50.0, None}


def test_finished_generations_cost_nothing(store):
    specs = list(build_forest(study(), data=DATA, num_classes=10).specs.values())
    for spec in specs[:2]:
        finish(store, spec, seconds=100.0)
    planned = plan(store)
    assert (len(planned.finished), list(planned.seconds)) == (2, [specs[2].key])
    assert planned.makespan == 100


def test_workers_and_shares_of_a_gpu_count(store):
    assert plan(store, "workers=4", devices=9).at_once == 2
    assert plan(store, "gpus_per_worker=0.25").at_once == 4
    with pytest.raises(ConfigError, match=r"--gpus 1: one training takes 4 \(workers × gpus_per_worker\); give more"):
        plan(store, "workers=4")


@given(st.data(), st.integers(1, 6))
def test_the_simulated_schedule_is_between_its_bounds(data, at_once):
    forest = build_forest(study(POINTS, "grid.seed=[0, 1, 2]"), data=DATA, num_classes=10)
    left = data.draw(st.sets(st.sampled_from(sorted(forest.specs))))
    for key in list(forest.specs):  # what follows from one that is left is left
        if forest.specs[key].teacher in left:
            left.add(key)
    seconds = {key: data.draw(st.floats(0.1, 100)) for key in forest.specs if key in left}
    makespan = simulate(forest, seconds, at_once=at_once)
    paths = {}
    for key, own in seconds.items():
        paths[key] = own + paths.get(forest.specs[key].teacher, 0.0)
    longest, total = max(paths.values(), default=0.0), sum(seconds.values())
    assert max(longest, total / at_once) <= makespan + 1e-6
    assert makespan <= total / at_once + longest + 1e-6  # Graham's bound for list schedules


def test_measured_seconds_stand_in_where_the_store_knows_nothing(tmp_path, small):
    from gentrain import api

    grid = "grid.process=[{lambda: 0.5}, {lambda: 0.7}]"
    study = small("recipe.epochs=10", "recipe.milestones=[]", grid)
    assert api.plan(study, runs=str(tmp_path), gpus=1, price=None).unknown == 3
    planned = api.plan(study, runs=str(tmp_path), gpus=1, price=None, measure=True)
    assert planned.unknown == 0
    assert planned.measured_here
    assert len(set(planned.seconds.values())) == 2  # a patriarch, and two students alike
    assert all(seconds > 0 for seconds in planned.seconds.values())
    assert RunStore(str(tmp_path)).generation("x").names() == []
    assert not (tmp_path / "generations").exists()


@pytest.mark.parametrize(
    ("settings", "threads"),
    [
        (["workers=2", "cpus_per_worker=null"], 2),  # of four CPUs
        (["cpus_per_worker=3"], 3),
        (["grid.seed=[0,1]", "cpus_per_worker=null"], 1),
    ],
)
def test_measured_steps_have_the_threads_of_a_worker_of_the_study(tmp_path, small, monkeypatch, settings, threads):
    from gentrain import api
    from gentrain.running import measure

    seen = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(measure, "LocalRunner", lambda study, **_: seen.append((study.workers, study.cpus_per_worker)))
    monkeypatch.setattr(measure, "run_chain", lambda *_, **__: [])
    api.plan(small(*settings), runs=str(tmp_path), gpus=2, measure=True)
    assert seen == [(1, threads)]


def test_the_most_urgent_is_what_most_work_waits_for(store):
    planned = plan(store, POINTS)
    urgency, forest = urgencies(planned), planned.forest
    shared = next(
        key for key, names in forest.wanted_by.items() if len(names) == 2 and forest.specs[key].teacher is None
    )
    assert urgency[shared] == 30.0
    assert {urgency[spec.key] for spec in forest.specs.values() if spec.generation == 2} == {10.0}


def test_chains_that_begin_with_the_same_generation_start_in_rounds(store):
    planned = plan(store, POINTS)
    missing = {chain.name: chain.keys for chain in planned.forest.chains}
    order = [chain.name for chain in starting_order(planned, missing)]
    assert order == [
        "D(0.6,0.5)-resnet20-s0", "D(1.0,0.5)-resnet20-s0", "D(0.6,0.6)-resnet20-s0", "D(1.0,0.0)-resnet20-s0",
    ]  # fmt: skip
    del missing["D(0.6,0.5)-resnet20-s0"]
    missing["D(0.6,0.5)-resnet20-s0"] = ()
    assert order[0] not in [chain.name for chain in starting_order(planned, missing)]


def test_seeds_come_one_after_another_where_the_study_says_so(store):
    grid = ("grid.process=[{f_a1: 1.0, lambda: 0}, {f_a1: 0.6}]", "grid.seed=[2, 0]", "generations=2")
    plain, in_turn = plan(store, *grid), plan(store, *grid, "scheduler.order=seeds")
    assert in_turn.forest.specs.keys() == plain.forest.specs.keys()  # the order is no part of a key
    forest, urgency = in_turn.forest, urgencies(in_turn)
    first, second = ([urgency[key] for key, spec in forest.specs.items() if spec.seed == seed] for seed in (2, 0))
    assert min(first) > max(second)
    for seed, most in ((2, max(first)), (0, max(second))):
        one = {key: work for key, work in urgencies(plain).items() if forest.specs[key].seed == seed}
        assert {key: urgency[key] - most for key in one} == {key: work - max(one.values()) for key, work in one.items()}
    missing = {chain.name: chain.keys for chain in forest.chains}
    assert [chain.name for chain in starting_order(in_turn, missing)] == [
        "D(0.6,0.6)-resnet20-s2", "D(1.0,0.0)-resnet20-s2", "D(0.6,0.6)-resnet20-s0", "D(1.0,0.0)-resnet20-s0",
    ]  # fmt: skip
    assert [chain.name for chain in starting_order(plain, missing)][:2] == [
        "D(0.6,0.6)-resnet20-s0", "D(0.6,0.6)-resnet20-s2",
    ]  # fmt: skip


def test_students_of_several_teachers_take_longer_than_those_of_one(store):
    plain, several = (study(f"process.teacher={teacher}") for teacher in ("previous", "ensemble"))
    forest = build_forest(plain, data=DATA, num_classes=10)
    for spec in forest.specs.values():
        finish(store, spec, seconds=10.0)
    planned = plan(store, "process.teacher=ensemble")
    assert (len(planned.finished), len(planned.to_train), planned.unknown) == (
        2,
        1,
        1,
    )  # of two teachers nothing is known
    (last,) = planned.to_train
    assert planned.forest.specs[last].work == "student of 2"
    finish(store, build_forest(several, data=DATA, num_classes=10).specs[last], seconds=30.0)
    assert plan(store, "process.teacher=ensemble", "seed=1").unknown == 0


def test_a_given_generation_is_a_root_of_the_tree_and_costs_nothing(store):
    from gentrain.view import forest_tree, plan_table, show

    student = list(build_forest(study(), data=DATA, num_classes=10).specs.values())[1]
    finish(store, student, seconds=10.0)
    entry = f"pretrained=[{{checkpoint: {student.key}}}]"
    planned = plan(store, entry, "generations=3")
    assert next(iter(planned.forest.specs)) == student.key  # before its students, though it was a student elsewhere
    assert planned.summary()["trainings"] == planned.summary()["to_train"] == 3
    assert planned.unknown == 0
    assert planned.makespan == planned.lower_bound == 30  # three students of 10 epochs, a second each
    show(forest_tree(planned, name="s"), plan_table(planned, name="s"))


def test_small_studies_are_advised_to_stay_local_and_the_start_of_ray_counts(store):
    from gentrain.view import plan_assumptions

    first, *_ = build_forest(study(), data=DATA, num_classes=10).specs.values()
    finish(store, first, seconds=2.0)
    grid = "grid.seed=[1, 2, 3, 4]", "generations=0"
    small = plan(store, *grid)
    assert (small.makespan, small.local_seconds) == (8.0, 8.0)
    assert small.ray_seconds == RAY_START + 4 * (2 + TRAINING_START)
    assert "sooner with --local, without Ray: in about 8.0s" in plan_assumptions(small)
    other, *_ = build_forest(study("seed=9"), data=DATA, num_classes=10).specs.values()
    finish(store, other, seconds=2.0, workers=2)
    divided = plan(store, *grid, "workers=2", devices=2)
    assert divided.better_local
    assert "--local" not in plan_assumptions(divided)  # which has one worker
    large = plan(store, *grid, "recipe.epochs=1000", devices=4)
    assert large.local_seconds > large.ray_seconds
    assert "--local" not in plan_assumptions(large)
