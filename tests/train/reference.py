"""Distillation in generations as the paper states it, in plain torch and NumPy, float64, without anything of gentrain.

Optimiser, losses and statistics are written out; the random draws are those that gentrain documents.
tests/train/test_reference.py holds the engine to it.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tests.data.test_augment import reference as augmented


@dataclass(frozen=True)
class Recipe:
    """What a generation is trained with."""

    epochs: int
    batch: int
    rate: float
    milestones: tuple[int, ...]
    momentum: float
    weight_decay: float
    padding: int
    decay: float = 0.1
    warmup: int = 0
    nesterov: bool = True
    flip: bool = True
    clip: float | None = None
    """Largest norm of all gradients together."""


@dataclass(frozen=True)
class Images:
    """A source's images (N, H, W, 3) uint8 and labels, to train and to test."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray

    def pixels(self, images):
        """Return normalised pixels (N, 3, H, W) of images (N, 3, H, W), by the training images' mean and std."""
        whole = self.train.reshape(-1, 3) / 255
        mean, std = (values.reshape(1, 3, 1, 1) for values in (whole.mean(axis=0), whole.std(axis=0)))
        return torch.tensor((images / 255 - mean) / std)


class BatchNorm(nn.Module):
    """Normalises by the batch in training, and counts its statistics where `counts` says so."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.counts = True

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            count = x.numel() // x.shape[1]
            mean = x.mean(dim=(0, 2, 3))
            var = (x - mean.view(1, -1, 1, 1)).square().mean(dim=(0, 2, 3))
            if self.counts:
                self.running_mean = 0.9 * self.running_mean + 0.1 * mean.detach()
                self.running_var = 0.9 * self.running_var + 0.1 * var.detach() * count / (count - 1)
                self.num_batches_tracked = self.num_batches_tracked + 1
        mean, var, weight, bias = (values.view(1, -1, 1, 1) for values in (mean, var, self.weight, self.bias))
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias


class Network(nn.Module):
    """Two convolutions, normalised, with an activation that has no kink: where one has, rounding may change a gradient.

    The engine trains it with torch's BatchNorm, the reference with its own.
    """

    def __init__(self, num_classes, norm):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), norm(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 12, 3, padding=1, bias=False), norm(12)
        self.linear = nn.Linear(12, num_classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).tanh()
        x = self.bn2(self.conv2(nn.functional.avg_pool2d(x, 2))).tanh()
        return self.linear(x.mean(dim=(2, 3)))


def build_for_the_engine(num_classes):
    """Return the network as a study names it: `tests.train.reference:build_for_the_engine`."""
    return Network(num_classes, nn.BatchNorm2d)


def seed_of(seed, generation):
    """Return the seed of a generation's weights, orders and augmentation."""
    return int(np.random.SeedSequence((seed, generation)).generate_state(1, np.uint64)[0]) >> 2


def scores_of(logits):
    """Return the softmax (N, C)."""
    exponents = (logits - logits.max(dim=1, keepdim=True).values).exp()
    return exponents / exponents.sum(dim=1, keepdim=True)


def hard_part(scores, labels):
    """Return the cross-entropy with the labels."""
    return -scores[range(len(labels)), labels].log().mean()


def patriarch_terms(scores, labels, *, f_a1, k):
    """Return eq. (3), with the η whose optimum is f_a1, and its two parts."""
    eta = 0.0 if f_a1 == 1 else (k - 1) / (k * f_a1 + k - 1)
    ranked = scores.sort(dim=1, descending=True).values
    hard, soft = hard_part(scores, labels), (ranked[:, 0] - ranked[:, 1:k].sum(dim=1) / (k - 1)).mean()
    return (1 - eta) * hard + eta * soft, hard, soft


def softened(scores, temperature):
    """Return f^(1/T), summing to 1 again."""
    roots = scores ** (1 / temperature)
    return roots / roots.sum(dim=1, keepdim=True)


def student_terms(scores, labels, teachers, *, lam, temperature):
    """Return eq. (4), with T² · KL of the softened scores, and its two parts; the teacher is the mean of several."""
    teacher = softened(sum(teachers) / len(teachers), temperature)
    student = softened(scores, temperature)
    hard = hard_part(scores, labels)
    soft = temperature**2 * (teacher * (teacher.log() - student.log())).sum(dim=1).mean()
    return (1 - lam) * hard + lam * soft, hard, soft


class Sgd:
    """Momentum v = μ·v + (g + decay·w), a step by g + decay·w + μ·v with Nesterov's, by v without."""

    def __init__(self, network, recipe):
        self.weights, self.recipe, self.speeds = list(network.parameters()), recipe, None

    @torch.no_grad()
    def step(self, gradients, rate):
        recipe = self.recipe
        if recipe.clip is not None:
            norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
            gradients = [g * min(1.0, recipe.clip / norm) for g in gradients]
        slopes = [g + recipe.weight_decay * w for g, w in zip(gradients, self.weights, strict=True)]
        before = self.speeds or [torch.zeros_like(slope) for slope in slopes]
        self.speeds = [recipe.momentum * v + slope for v, slope in zip(before, slopes, strict=True)]
        for weight, slope, speed in zip(self.weights, slopes, self.speeds, strict=True):
            weight.sub_(rate * (slope + recipe.momentum * speed if recipe.nesterov else speed))


def rate_at(step, steps, recipe):
    """Return the learning rate of a step, counted from 0 over the whole training."""
    if step < recipe.warmup * steps:
        return recipe.rate * (step + 1) / (recipe.warmup * steps)
    return recipe.rate * recipe.decay ** sum(step // steps >= milestone for milestone in recipe.milestones)


def top1_error(network, images):
    """Return the fraction of test images whose largest score isn't their label's."""
    return float((predict(network, images).argmax(axis=1) != images.test_labels).mean())


@torch.no_grad()
def predict(network, images):
    """Return the scores (N, C) of the test images."""
    return scores_of(network.eval()(images.pixels(images.test.transpose(0, 3, 1, 2)))).numpy()


def train(images, *, seed, generation, recipe, loss, teachers=(), workers=1):
    """Return a trained generation and the rows of its epochs.

    Args:
        images: of the source.
        seed: of the study.
        generation: counted from 0.
        recipe: how it is trained.
        loss: (scores, labels) to (loss, hard, soft) of a patriarch; of a student with the teachers' scores.
        teachers: networks whose scores the loss gets.
        workers: among which each batch is divided; each normalises its part, and the first one's statistics count.
    """
    own = seed_of(seed, generation)
    torch.manual_seed(own)
    network = Network(int(images.train_labels.max()) + 1, BatchNorm).double()
    sgd, rows = Sgd(network, recipe), []
    count = len(images.train)
    steps = math.ceil(count / recipe.batch)
    for epoch in range(recipe.epochs):
        order = np.random.Generator(np.random.PCG64(np.random.SeedSequence((own, epoch)))).permutation(count)
        sums = np.zeros(5)
        for step in range(steps):
            rate = rate_at(epoch * steps + step, steps, recipe)
            batch = order[step * recipe.batch : (step + 1) * recipe.batch]
            total = 0.0
            for worker, part in enumerate(np.array_split(batch, workers)):
                if len(part):
                    mean, measured = _worker_terms(network, images, part, worker, (own, epoch), recipe, loss, teachers)
                    total = total + mean * len(part) / len(batch)
                    sums += measured
            sgd.step(torch.autograd.grad(total, sgd.weights), rate)
        names = ("loss", "hard", "soft", "train_error", "primary_score")
        rows.append(dict(zip(names, sums / count, strict=True)) | {"learning_rate": rate, "images": count})
        rows[-1]["test_error"] = top1_error(network, images)
    return network, rows


def _worker_terms(network, images, part, worker, draws, recipe, loss, teachers):
    """Return the mean loss of a worker's part of a batch, and the sums of what the row of its epoch holds."""
    seed, epoch = draws
    changed = [
        augmented(image, int(index), seed=seed, epoch=epoch, padding=recipe.padding, flip=recipe.flip)
        for image, index in zip(images.train[part].transpose(0, 3, 1, 2), part, strict=True)
    ]
    pixels, labels = images.pixels(np.stack(changed)), torch.tensor(images.train_labels[part])
    for module in network.train().modules():
        if isinstance(module, BatchNorm):
            module.counts = worker == 0
    scores = scores_of(network(pixels))
    with torch.no_grad():
        taught = [scores_of(teacher.eval()(pixels)) for teacher in teachers]
    terms = loss(scores, labels, taught) if teachers else loss(scores, labels)
    top = scores.detach().max(dim=1)
    wrong, primary = (top.indices != labels).double().sum(), top.values.sum()
    sums = [*(len(part) * term.item() for term in terms), wrong.item(), primary.item()]
    return terms[0], np.array(sums)
