"""The last student alone from the whole ensemble, or on a smaller network: names, lineage, keys, predictions."""

import pytest

from gentrain import api
from gentrain.errors import ConfigError
from gentrain.report.gather import gather_study
from gentrain.results.published import deviations
from gentrain.running.plan import make_plan
from gentrain.store.run import RunStore
from gentrain.study.documents import read_yaml
from gentrain.study.lineage import build_chain, build_forest, predicted_scores
from gentrain.study.loading import dump_study, load_study, parse_study


def chain(*overrides):
    return build_chain(load_study(overrides=["generations=3", *overrides]), data="d" * 64, num_classes=100)


def test_only_the_last_student_learns_from_all():
    plain, last = chain(), chain("process.last=ensemble")
    assert last.name == "D(0.6,0.6,last-ensemble)-resnet20-s0"
    assert last.keys[:3] == plain.keys[:3]
    assert last.keys[3] != plain.keys[3]
    assert [len(spec.task.teachers) for spec in last.specs[1:]] == [1, 1, 3]
    assert last.specs[3].task.teachers == last.keys[:3]
    assert [spec.work for spec in last.specs] == ["patriarch", "student", "student", "student of 3"]
    e = [0.4, 0.24, 0.144]
    assert predicted_scores(last.settings, ()) == pytest.approx([1 - x for x in [*e, 0.6 * sum(e) / 3]])
    assert chain("process.last={teacher: ensemble}").keys == last.keys
    assert chain("process.last=ensemble", "generations=1").keys == chain("generations=1").keys  # an ensemble of one


def test_the_last_of_an_ensembles_students_may_learn_from_the_one_before_it():
    teachers = chain("process.teacher=ensemble", "process.last=previous").specs
    assert [len(spec.task.teachers) for spec in teachers[1:]] == [1, 2, 1]


def test_the_last_student_may_be_smaller():
    study = chain("process.last={network: resnet8}", "network.students=resnet14").settings
    built = chain("process.last={teacher: ensemble, network: resnet8}", "network.students=resnet14")
    assert built.name == "D(0.6,0.6,last-ensemble-resnet8)-resnet20-resnet14-s0"
    assert [spec.network.name for spec in built.specs] == ["resnet20", "resnet14", "resnet14", "resnet8"]
    assert built.keys[:3] == chain("network.students=resnet14").keys[:3]
    assert built.settings.trained_networks == ("resnet20", "resnet14", "resnet8")
    assert study.teaching_networks == ("resnet20", "resnet14")
    assert parse_study(read_yaml(dump_study(study)), where="x") == study


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("process.last=all", "process.last: must be ensemble, or a mapping such as {teacher: ensemble"),
        ("process.last={}", "process.last: give `teacher`, `network` or both; leave `last` out where neither differs"),
        ("process.last={network: resnet9}", "process.last.network: unknown network 'resnet9'"),
        ("process.last={size: 8}", "process.last.size: unknown key"),
        ("process={lambda: 0, last: ensemble}", "process: last is given but lambda is 0, which has no students"),
    ],
)  # fmt: skip
def test_what_makes_no_last_student_is_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError) as error:
        load_study(overrides=[settings])
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_plan_run_and_report_show_the_last_student(small, tmp_path):
    grid = "grid.process=[{f_a1: 0.6}, {f_a1: 0.6, last: {teacher: ensemble, network: resnet14}}]"
    study = small("generations=2", "recipe.epochs=1", "recipe.milestones=[]", grid)
    forest = build_forest(study, data="d" * 64, num_classes=10)
    plan = make_plan(forest, study, store=RunStore(str(tmp_path)), devices=1)
    assert (plan.summary()["generations"], plan.summary()["trainings"]) == (6, 4)  # all but the last ones are shared
    rows = [dict(row) for row in api.run(study, runs=str(tmp_path), local=True)]
    ours = [row for row in rows if "last" in row["chain"]]
    assert [row["network"] for row in ours] == ["resnet8", "resnet8", "resnet14"]
    assert ours[1]["key"] == rows[1]["key"]
    record = gather_study(RunStore(str(tmp_path)), study.name)
    (shown,) = [chain for chain in record.chains if "last" in chain.name]
    assert (shown.label, shown.network) == ("D(0.6,0.6,last-ensemble-resnet14)", "resnet8 → resnet14")


def test_what_is_not_the_papers_is_named_beside_its_figures():
    settings = ("recipe.ema={decay: 0.9}", "recipe.mixup=0.2", "process.last=ensemble")
    assert deviations(load_study(overrides=settings), num_classes=100, images=50_000) == (
        "recipe.mixup is 0.2 (the paper: 0)",
        "recipe.ema is decay 0.9, as result (the paper: not set)",
        "process.last is ensemble (the paper: as the others)",
    )
