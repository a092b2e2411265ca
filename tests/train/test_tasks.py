import torch

from gentrain.models.mean import MeanOfNetworks
from gentrain.models.registry import build_model
from gentrain.train.losses import patriarch_loss, student_loss
from gentrain.train.tasks.kl import KL
from gentrain.train.tasks.score_difference import ScoreDifference


def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, 3, 8, 8, generator=generator), torch.arange(16) % 5


def test_the_patriarchs_loss_is_equation_3():
    images, labels = batch()
    logits = build_model("resnet8", num_classes=5)(images)
    terms = ScoreDifference(eta=0.5, k=3)(logits, images, labels)
    assert terms.loss.equal(patriarch_loss(logits, labels, eta=0.5, k=3).loss)


def test_the_students_loss_is_equation_4_with_its_own_teacher():
    images, labels = batch()
    teacher, other = build_model("resnet8", num_classes=5), build_model("resnet8", num_classes=5)
    logits = build_model("resnet8", num_classes=5)(images)
    terms = KL(teacher, lam=0.6)(logits, images, labels)
    with torch.no_grad():
        wanted = student_loss(logits, teacher.eval()(images), labels, lam=0.6)
    assert terms.loss.equal(wanted.loss)
    assert not terms.loss.equal(KL(other, lam=0.6)(logits, images, labels).loss)


def test_the_teacher_never_changes():
    """Bitwise, parameters and BatchNorm statistics, over training steps, whatever mode something else puts it in."""
    images, labels = batch()
    teacher, student = build_model("resnet8", num_classes=5), build_model("resnet8", num_classes=5)
    teacher.train()(images)  # its statistics are no longer the initial ones
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    task = KL(teacher, lam=0.6)
    optimizer = torch.optim.SGD([*student.parameters(), *teacher.parameters()], lr=0.1, momentum=0.9)
    for _ in range(3):
        teacher.train()
        optimizer.zero_grad()
        task(student.train()(images), images, labels).loss.backward()
        optimizer.step()
    assert all(value.equal(before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_mean_of_networks_is_the_mean_of_their_softmaxes():
    images, labels = batch()
    members = [build_model("resnet8", num_classes=5).eval() for _ in range(3)]
    with torch.no_grad():
        mean = MeanOfNetworks(members)(images)
        wanted = torch.stack([member(images).softmax(dim=1) for member in members]).mean(dim=0)
        alone = MeanOfNetworks(members[:1])(images)
        softer = student_loss(alone, mean, labels, lam=1.0, temperature=2.0).loss
    torch.testing.assert_close(mean.exp(), wanted)
    torch.testing.assert_close(alone.softmax(dim=1), members[0](images).softmax(dim=1))
    roots = wanted.sqrt() / wanted.sqrt().sum(dim=1, keepdim=True)  # f_T^(1/2): averaged first, then softened
    with torch.no_grad():
        torch.testing.assert_close(student_loss(alone, roots.log() * 2, labels, lam=1.0, temperature=2.0).loss, softer)


def test_a_mean_of_certain_networks_stays_finite():
    class Certain(torch.nn.Module):
        def __init__(self, winner):
            super().__init__()
            self.winner = winner

        def forward(self, images):
            return torch.nn.functional.one_hot(torch.full((len(images),), self.winner), 3) * 1e4

    mean = MeanOfNetworks([Certain(0), Certain(1)])(torch.zeros(2, 3, 8, 8))
    torch.testing.assert_close(mean[:, :2].exp(), torch.full((2, 2), 0.5))
    assert mean.isfinite().all()


def test_an_ensemble_that_teaches_never_changes():
    images, labels = batch()
    members = [build_model("resnet8", num_classes=5) for _ in range(2)]
    for member in members:
        member.train()(images)
    student, teacher = build_model("resnet8", num_classes=5), MeanOfNetworks(members)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    task = KL(teacher, lam=0.6)
    for _ in range(2):
        teacher.train()
        task(student.train()(images), images, labels).loss.backward()
    assert all(value.equal(before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
