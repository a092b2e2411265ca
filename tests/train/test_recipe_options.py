"""The recipe's options beyond the paper: they train otherwise, and resume in the same bits."""

import pytest
import torch
import torch.nn.functional as F

from gentrain import api
from gentrain.errors import GentrainError
from gentrain.events import EpochDone
from gentrain.study.lineage import build_chain, predicted_scores
from gentrain.study.loading import load_study
from gentrain.train.losses import LossTerms
from gentrain.train.tasks.kl import KL
from tests.train.test_task_case import Taught

OPTIONS = (
    "recipe.schedule=cosine",
    "recipe.optimizer=adamw",
    "recipe.learning_rate=0.01",
    "recipe.label_smoothing=0.2",
)
"""All at once, with a student that isn't the paper's."""


def weights(runs):
    return {path.parent.name: path.read_bytes() for path in runs.glob("generations/*/model*.safetensors")}


def test_an_interrupted_training_goes_on_in_the_same_bits(small, tmp_path):
    study = small(*OPTIONS, "process.patriarch.name=mse", "process.student={name: dkd, beta: 2}")
    whole = [dict(row) for row in api.run(study, runs=str(tmp_path / "whole"), local=True)]
    stops = iter([(0, 1), (1, 2)])
    stop = next(stops)

    def interrupt(event):
        if isinstance(event, EpochDone) and (event.generation, event.row["epoch"]) == stop:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            api.run(study, runs=str(tmp_path / "parts"), local=True, observe=interrupt)
        stop = next(stops, None)
    rows = [dict(row) for row in api.run(study, runs=str(tmp_path / "parts"), local=True, observe=interrupt)]
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert len(weights(tmp_path / "whole")) == 2
    assert [row["top1_error"] for row in rows] == [row["top1_error"] for row in whole]
    plain = api.run(small(), runs=str(tmp_path / "plain"), local=True)
    assert [row["key"] for row in plain] != [row["key"] for row in whole]


def test_students_learn_from_smoothed_labels():
    generator = torch.Generator().manual_seed(0)
    logits, teacher = (torch.randn(6, 4, generator=generator) for _ in range(2))
    labels, images = torch.arange(6) % 4, torch.zeros(6)
    task = KL(Taught(teacher), lam=0.5)
    plain = task(logits, images, labels)
    task.label_smoothing = 0.2
    smoothed = task(logits, images, labels)
    assert smoothed.hard.equal(F.cross_entropy(logits, labels, label_smoothing=0.2))
    assert smoothed.soft.equal(plain.soft)
    assert not smoothed.loss.equal(plain.loss)


def test_smoothed_labels_are_of_students_and_without_a_prediction():
    built = build_chain(load_study(overrides=["recipe.label_smoothing=0.1"]), data="d" * 64, num_classes=100)
    assert [spec.recipe.label_smoothing for spec in built.specs] == [0, *[0.1] * 5]
    assert predicted_scores(built.settings, ()) == (0.6, *[None] * 5)


class Bare:
    """A student without the base."""

    def __init__(self, teacher, *, lam):
        pass

    def __call__(self, logits, images, labels):
        loss = F.cross_entropy(logits.float(), labels)
        return LossTerms(loss, loss, loss)


class Failing(Bare):
    def __call__(self, logits, images, labels):
        return logits.no_such


class Sum(Bare):
    def __call__(self, logits, images, labels):
        return logits.sum()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Bare", "recipe.label_smoothing is for students that inherit StudentTask; "),
        ("Failing", "Failing fails on a batch of two blank images: AttributeError: 'Tensor' object has no attribute"),
        ("Sum", "Sum must return LossTerms(loss, hard, soft), three scalars; it returned Tensor"),
    ],
)
def test_a_class_of_ones_own_that_is_no_task_is_one_line(kind, message, small, tmp_path):
    name = f"tests.train.test_recipe_options:{kind}"
    study = small("recipe.epochs=1", "recipe.label_smoothing=0.1", f"process.student={{name: '{name}'}}")
    with pytest.raises(GentrainError) as error:
        api.run(study, runs=str(tmp_path), local=True)
    assert message in str(error.value)
