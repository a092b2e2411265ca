"""Provide the test case that every task (a loss with what it needs) passes: inherit `TaskCase` and build yours."""

import torch
import torch.nn.functional as F

from gentrain.models.registry import build_model
from gentrain.train.losses import LossTerms
from gentrain.train.tasks import PatriarchTask, StudentTask

CLASSES = 5


class TaskCase:
    """Test one task; a subclass's `build` returns it."""

    def build(self):
        raise NotImplementedError

    def batch(self):
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(16, 3, 8, 8, generator=generator)
        return torch.randn(16, CLASSES, generator=generator), images, torch.arange(16) % CLASSES

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
        step = torch.zeros_like(logits)
        step[3, 1] = 1e-2
        with torch.no_grad():
            difference = task(logits + step, images, labels).loss - task(logits - step, images, labels).loss
        torch.testing.assert_close(logits.grad[3, 1].float(), (difference / 2e-2).float(), rtol=0.05, atol=1e-4)

    def test_a_loss_of_half_precision_logits_is_float32(self):
        logits, images, labels = self.batch()
        assert self.build()(logits.bfloat16(), images, labels).loss.dtype == torch.float32


class TestPatriarch(TaskCase):
    def build(self):
        return PatriarchTask(eta=0.5, k=3)


class TestStudent(TaskCase):
    def build(self):
        torch.manual_seed(0)
        return StudentTask(build_model("resnet8", num_classes=CLASSES), lam=0.6)


class LabelSmoothingTask:
    """The task of docs/architecture.md."""

    def __call__(self, logits, images, labels):
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=0.1)
        return LossTerms(loss, hard=loss, soft=torch.zeros_like(loss))


class TestATaskOfYours(TaskCase):
    def build(self):
        return LabelSmoothingTask()
