"""The students by name: values by hand, limits, invariants, and that their test case notices what goes wrong."""

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gentrain.study.losses import STUDENTS
from gentrain.train.tasks.build import STUDENTS as CLASSES_BY_NAME
from gentrain.train.tasks.dist import DIST
from gentrain.train.tasks.dkd import DKD
from gentrain.train.tasks.kl import KL
from gentrain.train.tasks.logit_standardised import LogitStandardised
from gentrain.train.tasks.nkd import NKD
from gentrain.train.tasks.task import StudentTask
from tests.train.test_task_case import StudentCase, Taught


def softmax(logits, temperature=1.0):
    powers = [math.exp(z / temperature) for z in logits]
    return [power / sum(powers) for power in powers]


def divergence(teacher, student):
    return sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True))


def z_scores(logits):
    return [(z - statistics.mean(logits)) / statistics.stdev(logits) for z in logits]


def without(row, label):
    return [value for place, value in enumerate(row) if place != label]


def decoupled(student, teacher, label, *, alpha, beta, temperature):
    s, t = softmax(student, temperature), softmax(teacher, temperature)
    target = divergence([t[label], 1 - t[label]], [s[label], 1 - s[label]])
    rest = divergence(*(softmax(without(row, label), temperature) for row in (teacher, student)))
    return temperature**2 * (alpha * target + beta * rest)


def mean_of(rows):
    rows = list(rows)
    return sum(rows) / len(rows)


class TestKL(StudentCase):
    make = staticmethod(lambda teacher, lam: KL(teacher, lam=lam, temperature=2.0))

    def by_hand(self, student, teacher, labels):
        pairs = zip(student, teacher, strict=True)
        return mean_of(4 * divergence(softmax(t, 2), softmax(s, 2)) for s, t in pairs)


class TestLogitStandardised(StudentCase):
    make = staticmethod(LogitStandardised)

    def by_hand(self, student, teacher, labels):
        pairs = zip(map(z_scores, student), map(z_scores, teacher), strict=True)
        return mean_of(4 * divergence(softmax(t, 2), softmax(s, 2)) for s, t in pairs)

    def test_shift_and_spread_of_either_play_no_part(self):
        logits, images, labels = self.batch()
        soft = self.build()(logits, images, labels).soft
        moved = self.make(Taught(0.5 * self.teacher_logits() - 2), lam=0.6)(3 * logits + 1, images, labels).soft
        torch.testing.assert_close(moved, soft, rtol=1e-4, atol=1e-6)


class TestDKD(StudentCase):
    make = staticmethod(DKD)

    def by_hand(self, student, teacher, labels):
        rows = zip(student, teacher, labels, strict=True)
        return mean_of(decoupled(s, t, y, alpha=1, beta=8, temperature=4) for s, t, y in rows)

    def test_weighted_as_the_teacher_says_it_is_kl(self):
        """KL = TCKD + (1 - f_T,y)·NCKD, eq. (6) of the source, for one sample."""
        logits, images, labels = (part[:1] for part in self.batch())
        teacher = self.teacher_logits()[:1]
        beta = 1 - teacher.softmax(dim=1)[0, labels[0]].item()
        one = DKD(Taught(teacher), lam=1.0, beta=beta, temperature=1.0)(logits, images, labels).loss
        torch.testing.assert_close(one, KL(Taught(teacher), lam=1.0)(logits, images, labels).loss)


class TestDKDOfStandardisedLogits(StudentCase):
    make = staticmethod(lambda teacher, lam: DKD(teacher, lam=lam, beta=2.0, temperature=2.0, standardise=True))

    def by_hand(self, student, teacher, labels):
        rows = zip(map(z_scores, student), map(z_scores, teacher), labels, strict=True)
        return mean_of(decoupled(s, t, y, alpha=1, beta=2, temperature=2) for s, t, y in rows)


class TestDIST(StudentCase):
    make = staticmethod(lambda teacher, lam: DIST(teacher, lam=lam, beta=2.0, gamma=3.0, temperature=4.0))
    symmetric = True

    def by_hand(self, student, teacher, labels):
        s, t = ([softmax(row, 4) for row in rows] for rows in (student, teacher))
        inter = mean_of(1 - statistics.correlation(*pair) for pair in zip(s, t, strict=True))
        columns = zip(zip(*s, strict=True), zip(*t, strict=True), strict=True)
        return 16 * (2 * inter + 3 * mean_of(1 - statistics.correlation(*pair) for pair in columns))

    def test_a_batch_of_one_has_no_relations_between_samples(self):
        logits, images, labels = (part[:1] for part in self.batch())
        logits.requires_grad_()
        DIST(Taught(self.teacher_logits()[:1]), lam=1.0)(logits, images, labels).loss.backward()
        assert logits.grad.isfinite().all()


class TestNKD(StudentCase):
    make = staticmethod(lambda teacher, lam: NKD(teacher, lam=lam, temperature=2.0))

    def by_hand(self, student, teacher, labels):
        def row(s, t, label):
            others = [softmax(without(z, label), 2) for z in (s, t)]
            rest = -sum(q * math.log(p) for p, q in zip(*others, strict=True))
            return -softmax(t)[label] * math.log(softmax(s)[label]) + 1.5 * 4 * rest

        return mean_of(row(s, t, y) for s, t, y in zip(student, teacher, labels, strict=True))

    def at_the_teacher(self, logits, labels):
        return self.by_hand(logits.tolist(), logits.tolist(), labels.tolist())


def test_by_hand():
    """Scores in round numbers: student 1/2, 1/4, 1/4, teacher 1/4, 1/2, 1/4, the first class is true."""
    student, teacher = (torch.tensor([scores]).log() for scores in ([0.5, 0.25, 0.25], [0.25, 0.5, 0.25]))

    def soft(kind, **parameters):
        return kind(Taught(teacher), lam=0.5, **parameters)(student, torch.zeros(1), torch.tensor([0])).soft.item()

    two = math.log(2)
    target = 0.25 * -two + 0.75 * math.log(1.5)
    rest = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert soft(KL) == pytest.approx(0.25 * two, rel=1e-5)  # -1/4·log 2 + 1/2·log 2
    assert soft(DKD, alpha=3.0, beta=0.0, temperature=1.0) == pytest.approx(3 * target, rel=1e-5)
    assert soft(DKD, alpha=0.0, beta=2.0, temperature=1.0) == pytest.approx(2 * rest, rel=1e-4)
    assert soft(NKD) == pytest.approx(0.25 * two + 1.5 * two, rel=1e-5)  # the others share 1/2 and 1/2
    assert soft(DIST, gamma=0.0) == pytest.approx(1.5, rel=1e-5)  # ρ of (2, -1, -1) and (-1, 2, -1) is -1/2
    z = [2 / math.sqrt(3), -1 / math.sqrt(3)]
    s, t = softmax([z[0], z[1], z[1]], 2), softmax([z[1], z[0], z[1]], 2)
    assert soft(LogitStandardised) == pytest.approx(4 * divergence(t, s), rel=1e-4)


values = hnp.arrays(float, (4, 6), elements=st.floats(-6, 6))


def spread(*logits):
    """Return the least relative deviation of a sample's, or a class's, scores, and the least of a sample's logits."""
    scores = [each.softmax(dim=1) for each in logits]
    relative = [(each.std(dim=dim) / each.mean(dim=dim)).min() for each in scores for dim in (0, 1)]
    return min(*relative, *(each.std(dim=1).min() for each in logits))


@settings(deadline=None, max_examples=50)
@given(values, values, st.floats(0, 1))
@example(np.eye(4, 6) * 1e-7, 1 - np.eye(4, 6), 0.0)
def test_what_holds_for_any_scores(student, teacher, lam):
    z, t = (torch.tensor(array, dtype=torch.float32) for array in (student, teacher))
    labels = torch.tensor([0, 1, 2, 3])
    for kind in (KL, *CLASSES_BY_NAME.values()):
        terms = kind(Taught(t), lam=lam)(z, torch.zeros(4), labels)
        assert terms.soft >= -1e-4
        torch.testing.assert_close(terms.loss, (1 - lam) * terms.hard + lam * terms.soft, rtol=1e-4, atol=1e-4)
        moved = kind(Taught(t - 2), lam=lam)(z + 3, torch.zeros(4), labels).soft
        if kind not in (LogitStandardised, DIST) or spread(z, t) > 0.01:  # which divide by it
            torch.testing.assert_close(moved, terms.soft, rtol=2e-3, atol=2e-3)
        if kind is not NKD:
            most = 2 + 1e-5 if kind is DIST else 1e-4  # equal scores have no correlation
            assert kind(Taught(z), lam=lam)(z, torch.zeros(4), labels).soft.abs() <= most


def test_every_name_has_its_class_and_the_classes_defaults():
    assert set(CLASSES_BY_NAME) == set(STUDENTS) - {"kl"}
    for name, kind in CLASSES_BY_NAME.items():
        built = kind(Taught(torch.zeros(1, 2)), lam=0.5)
        assert {key: getattr(built, key) for key, _ in STUDENTS[name]().parameters} == dict(STUDENTS[name]().parameters)


# The case itself: every fault planted in a task must be noticed by one of its tests.


class IgnoresTheTeacher(StudentTask):
    def __init__(self, task):
        super().__init__(task.teacher, lam=task.lam)
        self.task = task

    def soft(self, logits, teacher_logits, labels):
        return self.task.soft(logits, logits.detach().roll(1, dims=1), labels)


class SwapsStudentAndTeacher(IgnoresTheTeacher):
    def soft(self, logits, teacher_logits, labels):
        return self.task.soft(teacher_logits, logits, labels)


class SumsOverSamples(IgnoresTheTeacher):
    def soft(self, logits, teacher_logits, labels):
        return self.task.soft(logits, teacher_logits, labels) * len(labels)


class MeansOverClasses(IgnoresTheTeacher):
    def soft(self, logits, teacher_logits, labels):
        return self.task.soft(logits, teacher_logits, labels) / logits.shape[1]


class SwapsTheWeights(IgnoresTheTeacher):
    def __call__(self, logits, images, labels):
        terms = self.task(logits, images, labels)
        return terms._replace(loss=self.lam * terms.hard + (1 - self.lam) * terms.soft)


CASES = [TestKL, TestLogitStandardised, TestDKD, TestDKDOfStandardisedLogits, TestDIST, TestNKD]
FAULTS = [IgnoresTheTeacher, SwapsStudentAndTeacher, SumsOverSamples, MeansOverClasses, SwapsTheWeights]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("case", CASES)
def test_the_case_notices(case, fault):
    class Planted(case):
        def make(self, teacher, *, lam):
            return fault(case.make(teacher, lam=lam))

    failed = 0
    for name in dir(StudentCase):
        if name.startswith("test_"):
            try:
                getattr(Planted(), name)()
            except AssertionError:
                failed += 1
    assert failed or (fault is SwapsStudentAndTeacher and case.symmetric)  # then it is the same loss
