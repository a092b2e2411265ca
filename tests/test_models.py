import pytest
import torch

from gentrain.models import PAPER_DEPTHS, build_model, check_model_name

PARAMETERS = {20: 275_572, 32: 470_004, 44: 664_436, 56: 858_868, 74: 1_150_516, 92: 1_442_164, 110: 1_733_812}


@pytest.mark.parametrize("depth", PAPER_DEPTHS)
def test_parameter_counts_are_the_papers(depth):
    model = build_model(f"resnet{depth}", num_classes=100)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[depth]
    assert sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in model.modules()) == depth


@pytest.mark.parametrize("side", [8, 28, 32])
def test_shapes(side):
    assert build_model("resnet8", num_classes=7)(torch.zeros(2, 3, side, side)).shape == (2, 7)


def test_stages_halve_by_pooling_not_by_stride():
    model = build_model("resnet20", num_classes=10)
    assert all(m.stride == (1, 1) for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    sizes = []
    for stage in model.stages:
        stage.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:])))
    model(torch.zeros(1, 3, 32, 32))
    assert sizes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_initialisation_is_he_and_follows_the_seed():
    torch.manual_seed(3)
    one = build_model("resnet20", num_classes=100)
    torch.manual_seed(3)
    other = build_model("resnet20", num_classes=100)
    assert all(a.equal(b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    conv = one.stages[2][1].conv1.weight
    assert conv.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    norms = [m for m in one.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all((m.weight == 1).all() and (m.bias == 0).all() for m in norms)


@pytest.mark.parametrize("name", ["resnet21", "resnet", "ResNet20", "resnet2", "densnet", ""])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match=r"unknown network .*; (did you mean|known:)"):
        check_model_name(name)
