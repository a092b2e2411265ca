"""A folded network is the same function, and only BatchNorms that follow a convolution are gone."""

import pytest
import torch
from torch import nn

from gentrain.errors import ConfigError, GentrainError
from gentrain.inference import load_teacher
from gentrain.launch import launch_chain
from gentrain.models import build_model
from gentrain.models.fold import fold
from gentrain.store import RunStore


def trained(name):
    """Return a network whose BatchNorms have statistics and weights that matter."""
    torch.manual_seed(0)
    model = build_model(name, num_classes=10).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(
    ("name", "left"),
    [("resnet8", 0), ("resnet8-strided", 0), ("densenet10-k4", 3 + 2 + 1), ("torchvision/resnet18", 0)],
)
def test_the_function_stays(name, left):
    model, images = trained(name), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    wanted = model(images)
    found = fold(trained(name))
    assert norms(found) == left
    torch.testing.assert_close(found(images), wanted, rtol=1e-9, atol=1e-9)


class Twice(nn.Module):
    """A convolution whose output is used beside its BatchNorm, and one that is called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        once = self.first(x)
        return self.other(self.second(self.second(self.norm(once) + once)))


def test_what_would_change_the_function_is_left_alone():
    torch.manual_seed(0)
    model = Twice().double().eval()
    model.norm.running_mean.normal_()
    model.other.running_var.uniform_(0.5, 2)
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    wanted = model(images)
    found = fold(model)
    assert norms(found) == 2
    torch.testing.assert_close(found(images), wanted)


class ByValue(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_traced_is_named():
    with pytest.raises(ValueError, match="ByValue's forward can't be traced"):
        fold(ByValue())


def by_value(num_classes):
    return nn.Sequential(ByValue(), nn.Flatten(), nn.Linear(3 * 64, num_classes))


def test_a_study_whose_teacher_cannot_be_folded_is_refused_before_it_trains(small, tmp_path):
    study = small("network.name=tests.test_fold:by_value", "teacher_pass=folded")
    told = r"teacher_pass: folded: network 'tests\.test_fold:by_value': .* can't be traced.*; set teacher_pass: exact"
    with pytest.raises(ConfigError, match=told) as error:
        launch_chain(study, runs=str(tmp_path), observe=lambda _: None, local=True)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("generations/*"))


def test_only_networks_that_teach_must_be_foldable(small):
    found = small("network.students=tests.test_fold:by_value", "teacher_pass=folded", "generations=1")
    assert found.teaching_networks == ("resnet8",)
    assert found.model_copy(update={"generations": 2}).teaching_networks == ("resnet8", "tests.test_fold:by_value")


def test_a_teacher_that_cannot_be_folded_after_all_is_one_line(small, tmp_path):
    study = small("network.name=tests.test_fold:by_value", "generations=0", "recipe.epochs=1", "recipe.milestones=[]")
    (row,) = launch_chain(study, runs=str(tmp_path), observe=lambda _: None, local=True)
    with pytest.raises(GentrainError, match=r"teacher_pass: folded: .* can't be traced.*; set teacher_pass: exact"):
        load_teacher([row["key"]], RunStore(str(tmp_path)), folded=True)
