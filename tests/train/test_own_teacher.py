"""PS-KD and snapshot distillation: formulas by hand, who teaches when, the same bits after a stop, plan and names."""

import math

import pytest
import safetensors.torch
import torch
from torch import nn

from gentrain import api
from gentrain.errors import ConfigError
from gentrain.events import EpochDone
from gentrain.results.status import study_status
from gentrain.running.cost import chain_costs
from gentrain.running.plan import make_plan
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_chain, build_forest, predicted_scores
from gentrain.study.loading import load_study
from gentrain.train.companions import Companions
from gentrain.train.schedule import learning_rate
from gentrain.train.tasks.own_teacher import PSKD, Snapshot
from tests.train.stops import stopped_everywhere
from tests.train.test_task_case import SAMPLES, StudentCase, Taught

ALONE = ("generations=0", "recipe.epochs=4", "recipe.milestones=[]")
PS_KD = "process={patriarch: {name: ps_kd}, lambda: 0}"
SNAPSHOT = "process={patriarch: {name: snapshot, cycles: 2}, lambda: 0}"


def softmax(logits, temperature=1.0):
    powers = [math.exp(z / temperature) for z in logits]
    return [power / sum(powers) for power in powers]


class TestPSKD(StudentCase):
    def make(self, teacher, *, lam):
        return PSKD(teacher, epochs=10, alpha=lam)

    def by_hand(self, student, teacher, labels):
        pairs = [(softmax(s), softmax(t)) for s, t in zip(student, teacher, strict=True)]
        return sum(-p * math.log(q) for s, t in pairs for q, p in zip(s, t, strict=True)) / SAMPLES

    def at_the_teacher(self, logits, labels):
        return self.by_hand(logits.tolist(), logits.tolist(), labels)

    def test_the_loss_is_the_cross_entropy_with_the_refined_targets(self):
        task, (logits, images, labels) = self.build(), self.batch()
        task.begin_epoch(4)  # t = 5 of 10: α_t is half of α_T, 0.3
        targets = 0.7 * torch.eye(logits.shape[1])[labels] + 0.3 * self.teacher_logits().softmax(dim=1)
        wanted = -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
        torch.testing.assert_close(task(logits, images, labels).loss, wanted)


class TestSnapshot(StudentCase):
    def make(self, teacher, *, lam):
        return Snapshot(teacher, period=3, weight=lam, temperature=2.0)

    def by_hand(self, student, teacher, labels):
        pairs = [(softmax(s), softmax(t, 2.0)) for s, t in zip(student, teacher, strict=True)]
        return sum(p * math.log(p / q) for s, t in pairs for q, p in zip(s, t, strict=True)) / SAMPLES

    def at_the_teacher(self, logits, labels):
        return self.by_hand(logits.tolist(), logits.tolist(), labels)  # it is smoother than the student


def test_the_teachers_weight_by_epoch():
    ps_kd, snapshot = (
        PSKD(nn.Identity(), epochs=4, alpha=0.8),
        Snapshot(nn.Identity(), period=2, weight=0.3, temperature=1),
    )
    weights = []
    for epoch in range(4):
        for task in (ps_kd, snapshot):
            task.begin_epoch(epoch)
        weights.append((ps_kd.lam, snapshot.lam))
    assert [weight for weight, _ in weights] == pytest.approx([0, 0.4, 0.6, 0.8])  # none before the first epoch's end
    assert [weight for _, weight in weights] == [0, 0, 0.3, 0.3]


def test_without_weight_the_teacher_is_not_asked():
    teacher = Taught(torch.zeros(1, 5))
    teacher.forward = pytest.fail
    task = PSKD(teacher, epochs=4, alpha=0.8)
    task.begin_epoch(0)
    logits, labels = torch.randn(3, 5), torch.tensor([0, 1, 2])
    assert task(logits, torch.zeros(3), labels).loss.equal(nn.functional.cross_entropy(logits, labels))


def test_every_cycle_is_a_cosine():
    settings = {"steps_per_epoch": 10, "base": 0.1, "milestones": (), "decay": 1.0, "cosine_epochs": 6}
    rates = [learning_rate(step=step, cycles=3, **settings) for step in range(60)]
    assert rates[:20] == rates[20:40] == rates[40:]
    assert rates[:20] == [learning_rate(step=step, **settings | {"cosine_epochs": 2}) for step in range(20)]
    assert rates[10] == pytest.approx(0.05)
    warm = [learning_rate(step=step, cycles=3, warmup_epochs=1, **settings) for step in range(60)]
    assert warm[9] == warm[10] == warm[20] == 0.1
    assert warm[15] == pytest.approx(0.05)  # the first cycle's cosine begins after the warm-up
    assert warm[20:] == rates[20:]


class TwoWorkers:
    """Stands for workers whose first has other statistics."""

    def share_buffers(self, network):
        network[1].running_mean.fill_(7)


def test_the_model_becomes_its_teacher_at_the_end_of_a_period_with_the_first_workers_statistics():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    study = load_study(overrides=["recipe.epochs=6", "process={patriarch: {name: snapshot, cycles: 3}, lambda: 0}"])
    companions = Companions(network, build_chain(study, data="d" * 64, num_classes=2).specs[0])
    first = network[0].weight.detach().clone()
    for epoch in range(1, 5):
        with torch.no_grad():
            network[0].weight.fill_(float(epoch))
        companions.after_epoch(epoch, TwoWorkers())
        wanted = (first, torch.full((2, 2), 2.0), torch.full((2, 2), 4.0))[epoch // 2]
        assert companions.teacher[0].weight.equal(wanted)
    assert companions.teacher[1].running_mean.tolist() == [7, 7]
    assert not companions.teacher.training


@pytest.mark.parametrize(("process", "teachers"), [(PS_KD, [1, 2, 3, 4]), (SNAPSHOT, [None, 2, 2, 4])])
def test_the_checkpoints_hold_the_teacher_and_every_epoch_resumes_in_the_same_bits(small, tmp_path, process, teachers):
    """`teachers`: after which epoch the network was what the checkpoint after each epoch has as its teacher."""
    study, store, models, held = small(*ALONE, process), RunStore(str(tmp_path / "watched")), {}, []

    def watch(event):
        if isinstance(event, EpochDone):
            path = max((tmp_path / "watched").glob("generations/*/train/epoch-*"))
            tensors = safetensors.torch.load(path.read_bytes())
            parts = [
                {name.removeprefix(which): t for name, t in tensors.items() if name.startswith(which)}
                for which in ("model/", "teacher/")
            ]
            models[event.row["epoch"]] = parts[0]
            same = [e for e, model in models.items() if all(model[name].equal(t) for name, t in parts[1].items())]
            held.append(same[0] if same else None)

    (row,) = api.run(study, runs=str(store.root), local=True, observe=watch)
    assert held == teachers
    assert (row["f_a1"], row["primary_predicted"]) == (None, None)
    whole, parts = stopped_everywhere(study, tmp_path)
    assert whole == parts


def chain(*overrides):
    return build_chain(load_study(overrides=overrides), data="d" * 64, num_classes=100)


def test_names_keys_and_recipes():
    ps_kd = chain("process={patriarch: {name: ps_kd, trainings: 6}, lambda: 0}")
    assert ps_kd.name == "D(ps_kd-trainings6,0.0)-resnet20-s0"
    (spec,) = ps_kd.specs
    assert (spec.recipe.epochs, spec.recipe.milestones, spec.recipe.schedule) == (984, (492, 738), "milestones")
    assert (spec.work, spec.task.loss.settings) == ("patriarch by ps_kd", (("alpha", 0.8),))
    assert predicted_scores(ps_kd.settings, ()) == (None,)
    (other,) = chain("process={patriarch: {name: snapshot, cycles: 4, trainings: 2}, lambda: 0}").specs
    assert (other.recipe.epochs, other.recipe.schedule, other.recipe.cycles) == (328, "cosine", 4)
    assert other.task.loss.settings == (("temperature", 2.0), ("weight", 0.5))
    for one in (spec, other):
        assert type(one).parse(one.model_dump_json().encode(), key=one.key) == one
    with_students = chain("process={patriarch: {name: ps_kd, trainings: 2}, lambda: 0.5}").specs
    assert [s.recipe.epochs for s in with_students] == [328, *[164] * 5]
    assert chain("recipe.cycles=1", "recipe.schedule=cosine").keys == chain("recipe.schedule=cosine").keys
    assert chain("recipe.cycles=2", "recipe.schedule=cosine").keys[0] != chain("recipe.schedule=cosine").keys[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("recipe.cycles=2",), "recipe: `cycles` (2) needs `schedule: cosine`"),
        (("recipe.cycles=3", "recipe.schedule=cosine"), "`cycles` (3) must divide `epochs` (164)"),
        (
            ("process={patriarch: {name: snapshot, cycles: 3}, lambda: 0}",),
            "process: `patriarch.cycles` (3) must divide its 164 epochs",
        ),
        (
            ("grid.process=[{patriarch: {name: snapshot, cycles: 5, trainings: 2}, lambda: 0}]",),
            "grid.process.0: `patriarch.cycles` (5) must divide its 328 epochs",
        ),
        (
            ("process.patriarch={name: ps_kd, alpha: 2}",),
            "process.patriarch: alpha: input should be less than or equal to 1",
        ),
    ],
)
def test_what_is_no_cycle_is_refused(settings, message):
    with pytest.raises(ConfigError) as error:
        load_study(overrides=settings)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


RIVALS = (
    "grid.process=[{f_a1: 0.6, lambda: 0.6}, {patriarch: {name: ps_kd, trainings: 2}, lambda: 0}, "
    "{patriarch: {name: snapshot, trainings: 2, cycles: 2}, lambda: 0}]"
)


def test_a_grid_holds_rivals_at_equal_epochs(small, tmp_path):
    study = small(RIVALS, "recipe.epochs=2", "recipe.milestones=[]")
    lines = []
    rows = api.run(study, runs=str(tmp_path), local=True, observe=lines.append)
    assert len(rows) == 4
    store = RunStore(str(tmp_path))
    forest = build_forest(study, data=store.generation(rows[0]["key"]).spec().data, num_classes=10)
    plan = make_plan(forest, study, store=store, devices=1, price=3600)
    costs = chain_costs(plan)
    assert [(cost.trainings, cost.epochs) for cost in costs] == [(2, 4), (1, 4), (1, 4)]
    taken = {row["key"]: row["train_seconds"] for row in rows}
    assert [cost.cost for cost in costs] == pytest.approx(
        [sum(taken[key] for key in chain.keys) for chain in forest.chains]
    )
    cells = [cell for cells in study_status(store, study.name).chains.values() for cell in cells]
    assert sorted(cell.epochs for cell in cells) == [2, 2, 4, 4]


def test_a_plan_takes_an_own_teachers_steps_for_a_students(small, tmp_path):
    study = small(RIVALS, "recipe.epochs=2", "recipe.milestones=[]")
    forest = build_forest(study, data="d" * 64, num_classes=10)
    measured = {("resnet8", "patriarch"): 1.0, ("resnet8", "student"): 1.5}
    plan = make_plan(forest, study, store=RunStore(str(tmp_path)), devices=1, measured=measured)
    assert [cost.device_seconds for cost in chain_costs(plan)] == [5.0, 6.0, 6.0]
    assert [cost.cost for cost in chain_costs(plan)] == [None] * 3
