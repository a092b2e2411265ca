"""Training on mixed images: one mix for teacher and student, what is measured, the same bits after a stop."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gentrain import api
from gentrain.data.prepare.share import prepare_shared
from gentrain.errors import ConfigError
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_chain, predicted_scores
from gentrain.study.loading import load_study
from gentrain.train.epoch import train_epoch
from gentrain.train.inference import predict_split
from gentrain.train.losses import LossTerms
from gentrain.train.meter import Meter
from gentrain.train.splits import Splits
from gentrain.train.tasks.kl import KL
from gentrain.train.workers import Workers
from tests.train.stops import stopped_everywhere

ALONE = Workers(rank=0, world_size=1, device=torch.device("cpu"), threads=1)


class Seeing(nn.Module):
    """Keeps the images that it is given."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(3 * 8 * 8, 10), []

    def forward(self, images):
        self.seen.append(images.clone())
        return self.linear(images.flatten(1))


def test_the_teacher_sees_the_very_mix_that_the_student_sees(small, tmp_path):
    study = small("recipe.mixup=1", "recipe.cutmix=1")
    data = prepare_shared(study.dataset, RunStore(str(tmp_path)))
    spec = build_chain(study, data=data.manifest.fingerprint, num_classes=10).specs[0]
    splits, network, teacher = Splits(data, spec=spec, workers=ALONE), Seeing(), Seeing()
    plain, labels = [], []
    task = KL(teacher, lam=0.5)

    def pixels(batch, epoch):
        plain.append(splits.augmented(batch, epoch))
        return plain[-1]

    def watched(logits, images, wanted):
        labels.append(wanted)
        return task(logits, images, wanted)

    train_epoch(
        0,
        spec=spec,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        task=watched,
        loader=splits.loader("train"),
        pixels=pixels,
        workers=ALONE,
        post=lambda _: None,
        mixed=splits.mixed,
    )
    assert len(network.seen) == len(teacher.seen) == len(plain) == 7
    for student, other, before, wanted in zip(network.seen, teacher.seen, plain, labels, strict=True):
        assert student.equal(other)
        assert (student != before).any(dim=(1, 2, 3)).float().mean() > 0.5
        assert wanted.shape == (len(student), 10)
        torch.testing.assert_close(wanted.sum(dim=1), torch.ones(len(student)))


def test_a_mixed_images_class_is_the_one_with_the_larger_part():
    meter, logits = Meter(ALONE), torch.eye(3)[[0, 1, 2, 2]] * 5
    labels = torch.tensor([[0.6, 0.4, 0], [0.6, 0.4, 0], [0, 0.3, 0.7], [1.0, 0, 0]])
    loss = torch.zeros(())
    meter.add(0, type("Batch", (), {"labels": labels}), logits, LossTerms(loss, loss, loss))
    assert meter.means()["train_error"] == 0.5
    assert meter.means()["count"] == 4


def test_every_epoch_resumes_in_the_same_bits(small, tmp_path):
    study = small("recipe.epochs=2", "recipe.mixup=0.4", "recipe.cutmix=1", "process.student={name: dkd, beta: 2}")
    whole, parts = stopped_everywhere(study, tmp_path)
    assert whole == parts


def test_the_primary_score_is_measured_on_images_that_are_not_mixed(small, tmp_path):
    study, store = small("recipe.mixup=4", "generations=0"), RunStore(str(tmp_path))
    (row,) = api.run(study, runs=str(tmp_path), local=True)
    data = prepare_shared(study.dataset, store)
    spec = store.generation(row["key"]).spec()
    scores, _ = predict_split(spec, "train", store=store, data=data.folder.name, threads=1)
    assert row["primary_measured"] == pytest.approx(scores.max(axis=1).mean(), abs=1e-5)
    assert row["primary_predicted"] is None
    assert predicted_scores(load_study(overrides=["recipe.cutmix=1"]), ()) == (None,) * 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("recipe.mixup=-1",), "recipe.mixup: input should be greater than or equal to 0 (got -1)"),
        (
            ("recipe.cutmix=1", "recipe.batch_size=30", "workers=2"),
            "`recipe.batch_size` (30) must be a multiple of 2 × ",
        ),
        (("recipe.mixup=1", "process.k={top_p: 0.9, by: class}"), "process: `k` by class needs one label an image"),
        (
            ("recipe.mixup=1", "grid.process=[{f_a1: 0.6, k: {top_p: 0.9, by: class}}]"),
            "grid.process.0: `k` by class needs one label an image",
        ),
    ],
)
def test_what_cannot_be_mixed_is_refused(small, settings, message):
    with pytest.raises(ConfigError) as error:
        small(*settings)
    assert message in str(error.value)


class OneLabel:
    """A student of a user's own that knows nothing of mixed labels."""

    def __init__(self, teacher, *, lam):
        pass

    def __call__(self, logits, images, labels):
        loss = F.nll_loss(logits.log_softmax(dim=1), labels)
        return LossTerms(loss, loss, loss)


def test_a_loss_of_ones_own_that_takes_one_label_is_one_line(small, tmp_path):
    name = "tests.train.test_mixes:OneLabel"
    study = small("recipe.epochs=1", "recipe.milestones=[]", "recipe.mixup=1", f"process.student={{name: '{name}'}}")
    with pytest.raises(Exception, match="OneLabel fails on a batch of two blank images with mixed labels"):
        api.run(study, runs=str(tmp_path), local=True)
