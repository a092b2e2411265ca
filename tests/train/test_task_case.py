"""Provide the test cases that every task passes: inherit `PatriarchCase` or `StudentCase` and build yours."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gentrain.train.losses import LossTerms
from gentrain.train.tasks.score_difference import ScoreDifference

CLASSES = 5
SAMPLES = 16


class Taught(nn.Module):
    """Teaches its logits whatever the images, again to a batch of twice as many."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return torch.cat([self.logits, self.logits])[: len(images)]


class TaskCase:
    """Test one task; a subclass's `build` returns it."""

    def build(self):
        raise NotImplementedError

    def batch(self):
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(SAMPLES, 3, 8, 8, generator=generator)
        return 2 * torch.randn(SAMPLES, CLASSES, generator=generator), images, torch.arange(SAMPLES) % CLASSES

    def test_loss_and_parts_are_finite_scalars(self):
        terms = self.build()(*self.batch())
        assert [term.shape for term in terms] == [()] * 3
        assert all(term.isfinite() for term in terms)

    def test_the_loss_is_a_mean_over_the_batch(self):
        task, (logits, images, labels) = self.build(), self.batch()
        twice = [torch.cat([part, part]) for part in (logits, images, labels)]
        torch.testing.assert_close(task(*twice).loss, task(logits, images, labels).loss)

    def test_the_gradient_is_that_of_the_loss(self):
        task, (logits, images, labels) = self.build(), self.batch()
        logits = logits.double().requires_grad_()
        task(logits, images, labels).loss.backward()
        assert logits.grad.abs().sum() > 0
        for sample, place in ((3, 1), (3, 3), (8, 0)):
            step = torch.zeros_like(logits)
            step[sample, place] = 1e-2
            with torch.no_grad():
                difference = task(logits + step, images, labels).loss - task(logits - step, images, labels).loss
            gradient = logits.grad[sample, place].float()
            torch.testing.assert_close(gradient, (difference / 2e-2).float(), rtol=0.02, atol=1e-4)

    def test_a_loss_of_mixed_labels_is_the_mix_of_its_losses(self):
        task, (logits, images, labels) = self.build(), self.batch()
        others = (labels + 2) % CLASSES
        hot, other = (F.one_hot(part, CLASSES).float() for part in (labels, others))
        wanted = 0.75 * task(logits, images, labels).loss + 0.25 * task(logits, images, others).loss
        torch.testing.assert_close(task(logits, images, 0.75 * hot + 0.25 * other).loss, wanted)
        first = (torch.arange(SAMPLES) < 5)[:, None]  # a weight for each sample
        wanted = task(logits, images, torch.where(first[:, 0], labels, others)).loss
        torch.testing.assert_close(task(logits, images, torch.where(first, hot, other)).loss, wanted)

    def test_a_loss_of_half_precision_logits_is_float32(self):
        logits, images, labels = self.batch()
        with torch.autocast("cpu", torch.bfloat16):
            loss = self.build()(logits.bfloat16(), images, labels).loss
        assert loss.dtype == torch.float32
        assert loss.equal(self.build()(logits.bfloat16().float(), images, labels).loss)

    def test_logits_that_are_sure_keep_loss_and_gradient_finite(self):
        _, images, labels = self.batch()
        logits = (200.0 * F.one_hot((labels + 1) % CLASSES, CLASSES)).requires_grad_()
        loss = self.build()(logits, images, labels).loss
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


class PatriarchCase(TaskCase):
    """Test one patriarch; `by_hand` returns a sample's loss, of its scores and label, as plain numbers."""

    def by_hand(self, scores, label):
        raise NotImplementedError

    def test_the_loss_is_the_mean_of_what_is_computed_by_hand(self):
        logits, images, labels = self.batch()
        rows = [
            self.by_hand(scores, label)
            for scores, label in zip(logits.double().softmax(dim=1).tolist(), labels.tolist(), strict=True)
        ]
        assert self.build()(logits, images, labels).loss.item() == pytest.approx(sum(rows) / SAMPLES, rel=1e-4)


class StudentCase(TaskCase):
    """Test one student; `make` returns it, of a teacher and λ.

    `by_hand` returns the part that teaches, of the logits of student and teacher (N rows of C) and the labels, as plain
    numbers; `at_the_teacher` what it is where the student is the teacher; `symmetric` says that student and teacher
    may be swapped.
    """

    lam = 0.6
    symmetric = False

    def make(self, teacher, *, lam):
        raise NotImplementedError

    def by_hand(self, student, teacher, labels):
        raise NotImplementedError

    def at_the_teacher(self, logits, labels):
        return 0.0

    def teacher_logits(self):
        return 2 * torch.randn(SAMPLES, CLASSES, generator=torch.Generator().manual_seed(1))

    def build(self):
        return self.make(Taught(self.teacher_logits()), lam=self.lam)

    def test_the_loss_is_what_is_computed_by_hand(self):
        logits, images, labels = self.batch()
        soft = self.by_hand(logits.tolist(), self.teacher_logits().tolist(), labels.tolist())
        terms = self.build()(logits, images, labels)
        hard = F.cross_entropy(logits, labels).item()
        assert terms.soft.item() == pytest.approx(soft, rel=1e-4)
        assert terms.hard.item() == pytest.approx(hard, rel=1e-5)
        assert terms.loss.item() == pytest.approx((1 - self.lam) * hard + self.lam * soft, rel=1e-4)

    def test_another_teacher_is_another_loss_and_another_gradient(self):
        logits, images, labels = self.batch()
        losses, gradients = [], []
        for teacher in (self.teacher_logits(), self.teacher_logits().flip(1)):
            own = logits.clone().requires_grad_()
            loss = self.make(Taught(teacher), lam=self.lam)(own, images, labels).loss
            loss.backward()
            losses.append(loss.item())
            gradients.append(own.grad)
        assert abs(losses[0] - losses[1]) > 1e-3
        assert (gradients[0] - gradients[1]).abs().max() > 1e-4

    def test_student_and_teacher_are_not_swapped(self):
        logits, images, labels = self.batch()
        swapped = self.make(Taught(logits), lam=self.lam)(self.teacher_logits(), images, labels).soft.item()
        soft = self.build()(logits, images, labels).soft.item()
        assert (abs(soft - swapped) < 1e-5) is self.symmetric

    def test_without_weight_the_teacher_is_ignored_to_the_bit(self):
        logits, images, labels = self.batch()
        assert self.make(Taught(self.teacher_logits()), lam=0.0)(logits, images, labels).loss.equal(
            F.cross_entropy(logits, labels)
        )

    def test_where_the_student_is_the_teacher(self):
        logits, images, labels = self.batch()
        soft = self.make(Taught(logits), lam=self.lam)(logits, images, labels).soft.item()
        assert soft == pytest.approx(self.at_the_teacher(logits, labels), abs=1e-5)

    def test_the_order_of_classes_plays_no_part(self):
        logits, images, labels = self.batch()
        order = torch.tensor([3, 0, 4, 1, 2])
        one = self.build()(logits, images, labels).loss
        other = self.make(Taught(self.teacher_logits()[:, order]), lam=self.lam)
        torch.testing.assert_close(other(logits[:, order], images, order.argsort()[labels]).loss, one)

    def test_no_gradient_reaches_the_teacher(self):
        logits, images, labels = self.batch()
        teacher = Taught(nn.Parameter(self.teacher_logits()))
        self.make(teacher, lam=self.lam)(logits.requires_grad_(), images, labels).loss.backward()
        assert teacher.logits.grad is None


class TestScoreDifference(PatriarchCase):
    def build(self):
        return ScoreDifference(eta=0.5, k=3)

    def by_hand(self, scores, label):
        first, second, third = sorted(scores, reverse=True)[:3]
        return 0.5 * -torch.tensor(scores[label]).log().item() + 0.5 * (first - (second + third) / 2)


class LabelSmoothingTask:
    """A task without a base."""

    def __call__(self, logits, images, labels):
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=0.1)
        return LossTerms(loss, hard=loss, soft=torch.zeros_like(loss))


class TestATaskOfYours(TaskCase):
    def build(self):
        return LabelSmoothingTask()
