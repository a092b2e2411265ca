"""A folded network is the same function, and only BatchNorms that follow a convolution are gone."""

import pytest
import torch
from torch import nn

from gentrain import api
from gentrain.errors import ConfigError, GentrainError
from gentrain.models.fold import fold
from gentrain.models.fuse import FusedConvolution, fuse
from gentrain.models.registry import build_model
from gentrain.store.run import RunStore
from gentrain.train.inference import load_teacher


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
    folded = fold(trained(name))
    assert norms(folded) == left
    torch.testing.assert_close(folded(images), wanted, rtol=1e-9, atol=1e-9)


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
    folded = fold(model)
    assert norms(folded) == 2
    torch.testing.assert_close(folded(images), wanted)


def fused(model):
    return [module for module in model.modules() if isinstance(module, FusedConvolution)]


needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@needs_onednn
@pytest.mark.parametrize(
    ("name", "convolutions", "relus"),
    [("resnet8", 7, 7), ("resnet8-strided", 7, 7), ("densenet10-k4", 9, 3), ("torchvision/resnet18", 20, 17)],
)
@pytest.mark.parametrize(("dtype", "away"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_a_fused_network_is_the_same_function(name, convolutions, relus, dtype, away):
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    wanted = trained(name)(images)
    model = fuse(fold(trained(name).float()), image=torch.zeros(1, 3, 32, 32), dtype=dtype)
    assert len(fused(model)) == convolutions
    assert sum(one._activation[0] == "relu" for one in fused(model)) == relus
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits = model(images.float()).double()
    assert (logits - wanted).abs().mean() < away * wanted.std()


@needs_onednn
def test_students_learn_from_a_fused_teacher_twice_to_the_same_bits(small, tmp_path, monkeypatch):
    calls = 0

    def counted(self, *args, forward=FusedConvolution.forward):
        nonlocal calls
        calls += 1
        return forward(self, *args)

    monkeypatch.setattr(FusedConvolution, "forward", counted)
    study = small("generations=1", "recipe.epochs=1", "recipe.milestones=[]", "fold_batchnorm=true")
    weights = []
    for name in ("one", "two"):
        runs = str(tmp_path / name)
        student = api.run(study, runs=runs, observe=lambda _: None, local=True)[-1]
        weights.append(RunStore(runs).generation(student["key"]).read_verified("model.safetensors"))
    assert calls
    assert weights[0] == weights[1]


class Sums(nn.Module):
    """Sums that can't be fused: of another shape, of what is changed in place meanwhile, of what is used again."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three, self.four = (nn.Conv2d(3, 3, 1) for _ in range(4))

    def forward(self, x):
        wide = self.one(x.clone()) + x.mean(dim=(2, 3), keepdim=True)
        changed = wide * 2
        before = self.two(changed)
        changed += 1
        after = before + changed
        twice = self.three(after.clone())
        return self.four(twice.clone()) + self.four(twice + twice) + torch.relu(twice)


@needs_onednn
def test_sums_and_relus_that_are_not_a_convolution_s_alone_stay():
    torch.manual_seed(0)
    model, images = Sums(), torch.randn(2, 3, 4, 4)
    wanted = model(images)
    network = fuse(fold(model), image=torch.zeros(1, 3, 4, 4), dtype=torch.float32)
    assert len(fused(network)) == 3
    torch.testing.assert_close(network(images), wanted)


class Named(nn.Module):
    """Calls its convolution by the argument's name, and adds a number, and a tensor to itself."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x):
        once = self.two(self.one(input=x)) + 1
        doubled = self.three(once)
        return doubled + doubled


@needs_onednn
def test_calls_of_other_forms_stay_the_same_function():
    torch.manual_seed(0)
    model, images = Named(), torch.randn(2, 3, 4, 4)
    wanted = model(images)
    network = fuse(fold(model), image=torch.zeros(1, 3, 4, 4), dtype=torch.float32)
    assert len(fused(network)) == 2
    torch.testing.assert_close(network(images), wanted)


class ByValue(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_traced_is_named():
    with pytest.raises(ValueError, match="ByValue's forward can't be traced"):
        fold(ByValue())


def by_value(num_classes):
    return nn.Sequential(ByValue(), nn.Flatten(), nn.Linear(3 * 64, num_classes))


def test_a_study_whose_teacher_cannot_be_folded_is_refused_before_it_trains(small, tmp_path):
    study = small("network.name=tests.models.test_fold:by_value", "fold_batchnorm=true")
    network = r"network 'tests\.models\.test_fold:by_value'"
    message = rf"fold_batchnorm: true: {network}: .* can't be traced.*; set fold_batchnorm: false"
    with pytest.raises(ConfigError, match=message) as error:
        api.run(study, runs=str(tmp_path), observe=lambda _: None, local=True)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("generations/*"))


def test_only_networks_that_teach_must_be_foldable(small):
    study = small("network.students=tests.models.test_fold:by_value", "fold_batchnorm=true", "generations=1")
    assert study.teaching_networks == ("resnet8",)
    assert study.model_copy(update={"generations": 2}).teaching_networks == (
        "resnet8",
        "tests.models.test_fold:by_value",
    )


def test_a_teacher_that_cannot_be_folded_after_all_is_one_line(small, tmp_path):
    study = small(
        "network.name=tests.models.test_fold:by_value", "generations=0", "recipe.epochs=1", "recipe.milestones=[]"
    )
    (row,) = api.run(study, runs=str(tmp_path), observe=lambda _: None, local=True)
    with pytest.raises(GentrainError, match=r"fold_batchnorm: true: .* can't be traced.*; set fold_batchnorm: false"):
        load_teacher([row["key"]], RunStore(str(tmp_path)), folded=True)
