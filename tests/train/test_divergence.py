"""Trainings that diverge: rolled back to the same bits whatever happens in between; gradients clipped by hand."""

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from gentrain import api
from gentrain.errors import TrainingError
from gentrain.events import EpochDone, Note
from gentrain.store.done import MODEL
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_chain
from gentrain.study.loading import load_study
from gentrain.train import epoch as epoch_module
from gentrain.train import optimizer as optimizer_module
from gentrain.train.epoch import train_epoch
from gentrain.train.losses import LossTerms
from gentrain.train.optimizer import SGD
from tests.conftest import SMALL
from tests.train.test_workers import ALONE, batch

WARM = ("generations=0", "recipe.warmup_epochs=2", "recipe.on_divergence=rollback")
"""Seven steps an epoch: the rate is 0.05 after the first one, and rises to 0.1 in the second."""


class Killed(BaseException):
    pass


@pytest.fixture
def fragile(monkeypatch):
    """Return a function that makes every step above a learning rate end in weights that aren't finite."""

    def break_above(limit):
        class FragileSGD(SGD):
            def step(self, closure=None):
                super().step(closure)
                if self.param_groups[0]["lr"] > limit:
                    self.param_groups[0]["params"][0].data[0] = float("nan")

        monkeypatch.setattr(optimizer_module, "SGD", FragileSGD)

    return break_above


def trained(study, runs, observe=lambda _: None):
    """Return the generation's folder, weights and epochs."""
    (row,) = api.run(study, runs=str(runs), observe=observe, local=True)
    folder = RunStore(str(runs)).generation(row["key"])
    return folder, folder.read_verified(MODEL)


def rollbacks(events):
    return [event.text for event in events if isinstance(event, Note) and "(rollback " in event.text]


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    """Return the weights of a training whose rate is half the schedule's from the second epoch on."""
    original = epoch_module.learning_rate

    def halved_rate(*, step, **of):
        return original(step=step, **of) * (0.5 if step >= 7 else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epoch_module, "learning_rate", halved_rate)
        return trained(load_study(overrides=[*SMALL, *WARM]), tmp_path_factory.mktemp("halved"))[1]


def test_a_rollback_goes_back_to_the_last_checkpoint_with_half_the_rate(small, tmp_path, fragile, halved):
    fragile(0.06)
    events = []
    folder, weights = trained(small(*WARM), tmp_path, events.append)
    assert weights == halved
    (line,) = rollbacks(events)
    assert line.startswith(f"generation 0 ({folder.key}), epoch 2, ")
    assert line.endswith(
        "is not finite; going back to the checkpoint after epoch 1, learning rate × 0.5 (rollback 1 of 3)"
    )
    rates = [event.row["learning_rate"] for event in events if isinstance(event, EpochDone)]
    assert rates == pytest.approx([0.05, 0.05, 0.005])
    (rollback,) = json.loads(folder.read("DONE.json"))["rollbacks"]
    assert rollback["epoch"] == 2
    assert "is not finite" in rollback["reason"]
    assert folder.inspect().valid


def kill_at_the_rollback(event, folder):
    if isinstance(event, Note) and "rollback 1 of 3" in event.text:
        raise Killed


def kill_after_it(event, folder):
    if isinstance(event, EpochDone) and event.row["epoch"] == 2:
        raise Killed


def damage_the_checkpoint(event, folder):
    """Damage the checkpoint that the rollback would go back to, when it is just written."""
    if isinstance(event, EpochDone) and event.row["epoch"] == 1 and not (folder / "damaged").exists():
        (folder / "damaged").touch()
        (path,) = folder.glob("generations/*/train/epoch-00001*")
        path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("disturb", [kill_at_the_rollback, kill_after_it, damage_the_checkpoint])
def test_a_training_with_rollbacks_ends_in_the_same_bits_whatever_happens(small, tmp_path, fragile, halved, disturb):
    fragile(0.06)
    try:
        trained(small(*WARM), tmp_path, lambda event: disturb(event, tmp_path))
    except Killed:
        if disturb is kill_after_it:
            newest = max(tmp_path.glob("generations/*/train/epoch-*"))
            with safe_open(newest, "pt") as file:
                assert [r["epoch"] for r in json.loads(file.metadata()["gentrain"])["rollbacks"]] == [2]
    folder, weights = trained(small(*WARM), tmp_path)
    assert weights == halved
    assert [rollback.epoch for rollback in folder.done().rollbacks] == [2]


def test_where_no_epoch_was_finished_it_begins_with_the_initial_weights(small, tmp_path, fragile):
    cold = ("generations=0", "recipe.on_divergence=rollback")
    _, wanted = trained(small(*cold, "recipe.learning_rate=0.025"), tmp_path / "wanted")
    fragile(0.03)
    events = []
    folder, weights = trained(small(*cold), tmp_path, events.append)
    assert weights == wanted
    assert [rollback.epoch for rollback in folder.done().rollbacks] == [1, 1]
    assert "going back to the initial weights, learning rate × 0.25 (rollback 2 of 3)" in rollbacks(events)[-1]


def test_after_three_rollbacks_it_ends_in_one_line(small, tmp_path, fragile):
    fragile(0.0)
    events = []
    with pytest.raises(TrainingError) as error:
        trained(small("generations=0", "recipe.on_divergence=rollback"), tmp_path, events.append)
    assert str(error.value).endswith(
        "is not finite after 3 rollbacks; no epoch was finished. Remedies: lower recipe.learning_rate, add "
        "recipe.warmup_epochs, or set recipe.clip_gradients: 1"
    )
    assert [line.split("learning rate × ")[1] for line in rollbacks(events)] == [
        "0.5 (rollback 1 of 3)", "0.25 (rollback 2 of 3)", "0.125 (rollback 3 of 3)",
    ]  # fmt: skip


def test_predictions_that_are_not_finite_are_rolled_back_too(small, tmp_path, monkeypatch):
    """Weights of 1e30 are finite numbers; the last epoch's checkpoint isn't kept."""
    original = epoch_module.learning_rate
    monkeypatch.setattr(
        epoch_module, "learning_rate", lambda *, step, **of: 1e30 if step == 20 else original(step=step, **of)
    )
    events = []
    with pytest.raises(TrainingError, match="predictions of the test split are not finite after 3 rollbacks"):
        trained(small("generations=0", "recipe.on_divergence=rollback"), tmp_path, events.append)
    assert "epoch 3, after its last step: predictions of the test split are not finite; going" in rollbacks(events)[0]
    assert sorted(p.name[:11] for p in tmp_path.glob("generations/*/train/epoch-*")) == ["epoch-00001", "epoch-00002"]


def test_nothing_is_recorded_where_nothing_diverged(small, tmp_path):
    folder, _ = trained(small("generations=0", "recipe.on_divergence=rollback"), tmp_path)
    assert "rollbacks" not in json.loads(folder.read("DONE.json"))
    assert folder.done().rollbacks == ()


class Logits(nn.Module):
    """Gives two weights as the logits of every image."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(2))

    def forward(self, images):
        return self.weights.expand(len(images), 2)


class OneStep:
    num_samples = 2

    def __len__(self):
        return 1

    def epoch(self, epoch):
        return iter([batch([0, 1], of=2)])


@pytest.mark.parametrize(
    ("clip", "step"), [(None, [3.0, 4.0]), (1.0, [0.6, 0.8]), (2.5, [1.5, 2.0]), (6.0, [3.0, 4.0])]
)
def test_gradients_are_scaled_down_to_the_norm(small, clip, step):
    """The gradient is (3, 4), of norm 5, and the rate 1."""
    change = "null" if clip is None else str(clip)
    study = small("recipe.learning_rate=1", f"recipe.clip_gradients={change}")
    network = Logits()

    def task(logits, images, labels):
        loss = (logits.mean(dim=0) * torch.tensor([3.0, 4.0])).sum()
        return LossTerms(loss, hard=loss, soft=loss)

    train_epoch(
        0,
        spec=build_chain(study, data="0" * 16, num_classes=10).specs[0],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        task=task,
        loader=OneStep(),
        pixels=lambda read, _: read.images.float(),
        workers=ALONE,
        post=lambda _: None,
    )
    assert (-network.weights).tolist() == pytest.approx(step, abs=1e-6)
