from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gentrain.errors import ConfigError
from gentrain.study import lineage
from gentrain.study.lineage import build_chain, build_forest, predicted_scores
from gentrain.study.loading import load_study
from gentrain.study.schema import Study
from gentrain.study.tasks import AdaptiveKSpec


def chain(*overrides, data="d" * 64, num_classes=100):
    return build_chain(load_study(overrides=overrides), data=data, num_classes=num_classes)


def keys(*overrides, **dataset):
    return [spec.key for spec in chain(*overrides, **dataset).specs]


def test_a_chain_is_a_path_of_teachers():
    built = chain()
    assert built.name == "D(0.6,0.6)-resnet20-s0"
    assert len(built.specs) == 6
    assert built.specs[0].teacher is None
    for teacher, student in zip(built.specs, built.specs[1:], strict=False):
        assert student.teacher == teacher.key
    assert len(set(keys())) == 6
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys())


def test_patriarchs_are_shared_between_lambdas():
    one, other = keys("process.lambda=0.5"), keys("process.lambda=0.7")
    assert one[0] == other[0]
    assert not set(one[1:]) & set(other[1:])


def test_the_baseline_is_the_born_again_patriarch_whatever_k():
    baseline = keys("process.f_a1=1.0", "process.lambda=0.0", "process.k=3")
    assert len(baseline) == 1
    assert baseline[0] == keys("process.f_a1=1.0", "process.lambda=0.5")[0]


def test_fewer_generations_are_a_prefix():
    assert keys("generations=2") == keys()[:3]


def test_k_above_the_number_of_classes_is_refused():
    with pytest.raises(ConfigError, match=r"process\.k: 5 is more than the dataset's 4 classes"):
        chain(num_classes=4)


@settings(deadline=None)
@given(st.floats(0.21, 1.0), st.floats(0.01, 1.0))
def test_targets_rise_towards_one(f_a1, lam):
    targets = predicted_scores(chain(f"process.f_a1={f_a1!r}", f"process.lambda={lam!r}").settings, ())
    assert targets[0] == pytest.approx(f_a1)
    assert list(targets) == sorted(targets)
    assert targets[-1] <= 1


# The grid

PAPER = (
    "grid.process=[{f_a1: 1.0, lambda: 0.0}, {f_a1: 1.0, lambda: 0.5}, {f_a1: 0.6, lambda: 0.5},"
    " {f_a1: 0.6, lambda: 0.6}, {f_a1: 0.6, lambda: 0.7}]"
)


def forest(*overrides):
    return build_forest(load_study(overrides=overrides), data="d" * 64, num_classes=100)


def test_figure_2_of_one_network_shares_its_patriarchs():
    built = forest(PAPER)
    assert [chain.name for chain in built.chains] == [
        f"D({point})-resnet20-s0" for point in ("1.0,0.0", "1.0,0.5", "0.6,0.5", "0.6,0.6", "0.6,0.7")
    ]
    assert (built.wanted, len(built.specs)) == (25, 22)  # four chains of six and the baseline: three patriarchs saved
    patriarchs = [built.wanted_by[key] for key, spec in built.specs.items() if spec.generation == 0]
    assert sorted(map(len, patriarchs)) == [2, 3]


def test_the_whole_of_figure_2():
    built = forest(PAPER, "grid.network=[resnet20, resnet32, resnet44, resnet56, resnet74, resnet92, resnet110]")
    assert (len(built.chains), built.wanted, len(built.specs)) == (35, 175, 154)


def test_seeds_networks_and_extra_points():
    built = forest(
        "grid.seed=[0, 1]", "grid.points=[{network: resnet32, process: {f_a1: 0.8, lambda: 0.5}}, {seed: 1}]"
    )
    names = [chain.name for chain in built.chains]
    assert names == ["D(0.6,0.6)-resnet20-s0", "D(0.6,0.6)-resnet20-s1", "D(0.8,0.5)-resnet32-s0"]
    assert len(built.specs) == 18


def test_lambda_schedules_share_their_common_beginning():
    built = forest(
        "generations=2", "process.lambda=[0.5, 0.6]", "grid.process=[{lambda: [0.5, 0.6]}, {lambda: [0.5, 0.7]}]"
    )
    assert [chain.name for chain in built.chains] == ["D(0.6,0.5-0.6)-resnet20-s0", "D(0.6,0.5-0.7)-resnet20-s0"]
    assert (built.wanted, len(built.specs)) == (6, 4)
    assert predicted_scores(built.chains[0].settings, ()) == pytest.approx((0.6, 1 - 0.4 * 0.5, 1 - 0.4 * 0.5 * 0.6))
    constant = forest("generations=2", "process.lambda=0.5").chains[0]
    assert constant.specs[1] == built.chains[0].specs[1]


def test_teachers_come_before_their_students():
    seen = set()
    for key, spec in forest(PAPER).specs.items():
        assert spec.teacher is None or spec.teacher in seen
        seen.add(key)


def test_points_that_make_no_study_are_named():
    with pytest.raises(ConfigError, match=r"grid: unknown network 'resnet21'; did you mean"):
        forest("grid.network=[resnet21]")
    with pytest.raises(ConfigError, match=r"grid: unknown network 'resnet21'; did you mean"):
        forest("grid.points=[{seed: 1}, {network: resnet21}]")
    with pytest.raises(ConfigError, match=r"grid\.process\.1: `lambda` has 2 values but `generations` is 5"):
        forest("grid.process=[{lambda: 0.6}, {lambda: [0.5, 0.6]}]")
    with pytest.raises(ConfigError, match=r"grid\.points\.0\.process: `lambda` has 2 values but `generations` is 5"):
        forest("grid.points=[{process: {lambda: [0.5, 0.6]}}]")
    with pytest.raises(ConfigError, match=r"grid: two different points are named D\(0\.6,0\.6\)-resnet20-s0"):
        forest("generations=1", "grid.process=[{lambda: 0.6}, {lambda: [0.6]}]")


def test_students_may_have_another_network():
    built = chain("network.students=resnet14", "generations=2")
    assert [spec.network.name for spec in built.specs] == ["resnet20", "resnet14", "resnet14"]
    assert built.name == "D(0.6,0.6)-resnet20-resnet14-s0"
    assert built.keys[0] == keys()[0]
    assert built.keys[1] != keys()[1]
    assert chain("network.name=torchvision/resnet18").name == "D(0.6,0.6)-torchvision-resnet18-s0"


# Beyond the paper


def test_a_schedule_is_the_list_of_its_numbers():
    linear = chain("process.lambda={schedule: linear, from: 0.8, to: 0.4}")
    assert [spec.task.lam for spec in linear.specs[1:]] == [0.8, 0.7, 0.6, 0.5, 0.4]
    assert linear.keys == chain("process.lambda=[0.8, 0.7, 0.6, 0.5, 0.4]").keys
    assert linear.name == "D(0.6,linear-0.8-0.4)-resnet20-s0"
    assert predicted_scores(linear.settings, ())[-1] == pytest.approx(1 - 0.4 * 0.8 * 0.7 * 0.6 * 0.5 * 0.4)
    cosine = chain("process.lambda={schedule: cosine, from: 0.8, to: 0.4}")
    assert cosine.keys[:2] == linear.keys[:2]  # the same first λ
    assert not set(cosine.keys[2:]) & set(linear.keys[2:])


def test_what_goes_beyond_the_paper_stands_in_the_name():
    built = forest(
        "grid.process=[{k: 4}, {k: {top_p: 0.95}}, {k: {top_p: 0.95, by: class}}, {k: {top_p: 0.95, k_max: 10}},"
        " {temperature: 2}, {teacher: ensemble}, {lambda: {schedule: cosine, from: 0.8, to: 0.4}, teacher: ensemble}]"
    )
    names = [chain.name.removesuffix("-resnet20-s0") for chain in built.chains]
    assert names == [
        "D(0.6,0.6,K4)", "D(0.6,0.6,K0.95-sample-20)", "D(0.6,0.6,K0.95-class-20)", "D(0.6,0.6,K0.95-sample-10)",
        "D(0.6,0.6,T2.0)", "D(0.6,0.6,ensemble)", "D(0.6,cosine-0.8-0.4,ensemble)",
    ]  # fmt: skip
    assert len({chain.keys for chain in built.chains}) == 7
    assert built.chains[4].keys[0] == built.chains[5].keys[0]  # temperature and teacher are the students' affair


def test_an_adaptive_k_is_part_of_the_patriarch_and_cut_to_the_classes():
    task = chain("process.k={top_p: 0.9, by: class, k_max: 50}", num_classes=10).specs[0].task
    assert (task.eta, task.k) == (None, None)
    assert task.adaptive == AdaptiveKSpec(f_a1=0.6, top_p=0.9, by="class", k_max=10)
    assert keys("process.k={top_p: 0.9}") == keys("process.k={top_p: 0.9, k_max: 20}")
    plain = keys("process.f_a1=1.0", "process.k={top_p: 0.9}")
    assert plain == keys("process.f_a1=1.0")  # cross-entropy has no secondary classes


def test_an_ensemble_that_teaches_is_named_by_all_its_members():
    built, plain = chain("process.teacher=ensemble", "generations=3"), keys("generations=3")
    assert list(built.keys[:2]) == plain[:2]  # the first student's teacher is the patriarch either way
    assert not set(built.keys[2:]) & set(plain)
    for generation, spec in enumerate(built.specs[2:], start=2):
        assert spec.task.teachers == built.keys[:generation]
        assert spec.teacher == built.keys[generation - 1]
    e = [0.4, 0.24]
    e.append(0.6 * (e[0] + e[1]) / 2)
    e.append(0.6 * sum(e) / 3)
    assert predicted_scores(built.settings, ()) == pytest.approx([1 - energy for energy in e])


# What a chain carries


def test_a_chain_carries_the_study_of_its_own_point():
    for point, built in zip(load_study(overrides=[PAPER]).points(), forest(PAPER).chains, strict=True):
        assert built.settings == point
        assert built.settings.grid.empty
        assert build_chain(built.settings, data="d" * 64, num_classes=100) == built


def test_a_large_grid_costs_each_point_and_each_spec_once(monkeypatch):
    """Work is counted, since time depends on the machine: 60 chains of 6 share 20 patriarchs."""
    processes = ", ".join(f"{{f_a1: {0.5 + i / 50}, lambda: {lam}}}" for i in range(20) for lam in (0.4, 0.5, 0.6))
    study = load_study(overrides=[f"grid.process=[{processes}]"])
    hashed, validated = Counter(), []
    stored_form = lineage.stored_form
    monkeypatch.setattr(lineage, "stored_form", lambda spec, **how: hashed.update([spec]) or stored_form(spec, **how))
    monkeypatch.setattr(Study, "model_validate", lambda *_, **__: validated.append(1))
    built = build_forest(study, data="d" * 64, num_classes=100)
    assert (len(built.chains), built.wanted, len(built.specs)) == (60, 360, 320)
    assert [built.wanted_by[key] for chain in built.chains for key in chain.keys]
    assert set(hashed.values()) == {1}
    assert len(hashed) == 320
    assert validated == []
    assert len({id(spec) for chain in built.chains for spec in chain.specs}) == 320  # equal specs are one object
