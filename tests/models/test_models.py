import pytest
import torch
import torch.nn.functional as F
import torchvision

from gentrain.models import cost
from gentrain.models.cost import check_fits, check_trains, forward_cost, multiply_adds, parameter_count
from gentrain.models.counting import Counter
from gentrain.models.registry import PAPER_DEPTHS, build_model, check_model_name, label, model_names

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


def means_of_squares(x):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).mean(dim=(3, 5))


def test_resnet8_by_hand():
    """Stages of one block of two convolutions, the means of 2×2 squares between them, new channels of zeros."""
    torch.manual_seed(1)
    model = build_model("resnet8", num_classes=5)
    weights = model.state_dict()
    images = torch.randn(4, 3, 8, 8)

    def normalised(x, conv):
        x = F.conv2d(x, weights[f"{conv}.weight"], padding=1)
        var, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt()  # weight 1 and bias 0 before any training

    x = normalised(images, "conv").relu()
    for stage in range(3):
        x = means_of_squares(x) if stage else x
        block = f"stages.{stage}.0"
        out = normalised(normalised(x, f"{block}.conv1").relu(), f"{block}.conv2")
        x = (out + torch.cat([x, x.new_zeros(4, out.shape[1] - x.shape[1], *x.shape[2:])], dim=1)).relu()
    wanted = x.mean(dim=(2, 3)) @ weights["linear.weight"].T + weights["linear.bias"]
    torch.testing.assert_close(model.train()(images), wanted, rtol=1e-5, atol=1e-5)


def test_pooling_by_hand():
    """DenseNet's transitions end in the means of 2×2 squares, ResNet-18's stages begin with their largest."""
    squares = torch.tensor([[1.0, 2, 5, 5], [3, 6, 5, 9], [0, 0, -1, -2], [0, 4, -3, -6]])[None, None]
    assert means_of_squares(squares).tolist() == [[[[3, 6], [1, -3]]]]
    dense = build_model("densenet10-k4", num_classes=5)
    transitions = [module for module in dense.blocks if isinstance(module, torch.nn.Sequential)]
    assert len(transitions) == 2
    for transition in transitions:
        x = torch.randn(2, transition[0].num_features, 4, 4)
        torch.testing.assert_close(transition(x), means_of_squares(transition[:3](x)))
    pooled, seen = build_model("resnet18", num_classes=5).eval(), []
    for stage in pooled.stages:
        stage.register_forward_hook(lambda _m, inputs, out: seen.append((inputs[0], out)))
    images = torch.randn(1, 3, 64, 64)
    pooled(images)
    outs = [pooled.bn(pooled.conv(images)).relu(), *(out for _, out in seen)]
    for before, (own, _) in zip(outs, seen, strict=False):
        n, c, h, w = before.shape
        assert own.equal(before.reshape(n, c, h // 2, 2, w // 2, 2).amax(dim=(3, 5)))


def test_initialisation_is_he_and_follows_the_seed():
    torch.manual_seed(3)
    one = build_model("resnet20", num_classes=100)
    torch.manual_seed(3)
    other = build_model("resnet20", num_classes=100)
    assert all(a.equal(b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    conv = one.stages[2][1].conv1.weight
    assert conv.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    wider = one.stages[2][0].conv1.weight  # from 32 channels to 64: those that go out count
    assert wider.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    norms = [m for m in one.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all((m.weight == 1).all() and (m.bias == 0).all() for m in norms)


@pytest.mark.parametrize("name", ["resnet21", "resnet", "ResNet20", "resnet2", "densnet", ""])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match=r"unknown network .*; (did you mean|known:)"):
        check_model_name(name)


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [("densenet100", 100, 800_032), ("densenet190", 100, 25_821_620), ("resnet20-strided", 100, 275_572),
     ("resnet18-strided", 1000, 11_689_512), ("torchvision/resnet18", 1000, 11_689_512),
     # torchvision's less the three 1×1 convolutions of its shortcuts and their BatchNorms
     ("resnet18", 1000, 11_689_512 - (64 * 128 + 128 * 256 + 256 * 512) - 2 * (128 + 256 + 512))],
)  # fmt: skip
def test_more_parameter_counts(name, classes, parameters):
    assert parameter_count(name, num_classes=classes) == parameters


def test_multiply_adds():
    def millions(name, side=32, classes=100):
        return multiply_adds(name, num_classes=classes, height=side, width=side) / 1e6

    # by hand: 3×3×3×16 at 32², 6 of 16², one 16→32 and 5 of 32² at 16², one 32→64 and 5 of 64² at 8², 64×100
    convs = 27 * 16 * 32**2 + 9 * (6 * 16**2 * 32**2 + (512 + 5 * 32**2) * 16**2 + (2048 + 5 * 64**2) * 8**2)
    assert millions("resnet20") == pytest.approx((convs + 6400) / 1e6)
    assert millions("resnet20-strided") == millions("resnet20")
    assert 28 < millions("densenet190") / millions("densenet100") < 34
    assert millions("resnet18-strided", 224, 1000) == pytest.approx(1814, rel=0.001)
    assert not [p for p in build_model("resnet8", num_classes=4).parameters() if p.is_meta]


def test_what_a_forward_pass_moves_by_hand():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten())
    images = torch.zeros(1, 3, 8, 8)
    with torch.no_grad(), Counter() as counter:
        model(images)
    assert counter.multiply_adds == 27 * 5 * 64
    assert counter.bytes == 4 * 64 * (3 + 5 + 5 + 5)  # what the convolution and the ReLU read and write; no view
    assert counter.operations == 2


def test_a_registered_network_is_counted_alike_with_and_without_memory(monkeypatch):
    small = forward_cost("resnet8", num_classes=4, height=8, width=8)
    monkeypatch.setattr(cost, "MOST_PARAMETERS", 0)
    large = forward_cost("resnet8", num_classes=4, height=8, width=8)
    assert (small.multiply_adds, small.operations) == (large.multiply_adds, large.operations)
    assert small.bytes == pytest.approx(large.bytes, rel=0.1)


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "mobilenet_v3_small", "resnext50_32x4d"])
def test_multiply_adds_are_the_published_ones_with_attention_too(name):
    """Torchvision publishes the billions of multiply-adds at 224² with the weights, rounded to thousandths."""
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["_ops"]
    count = multiply_adds(f"torchvision/{name}", num_classes=1000, height=224, width=224)
    assert count / 1e9 == pytest.approx(published, abs=0.0006)


@pytest.mark.parametrize("name", ["resnet8-strided", "densenet10-k4", "resnet18", "resnet18-strided"])
def test_more_shapes(name):
    side = 32 if "18" not in name else 64
    assert build_model(name, num_classes=7)(torch.zeros(2, 3, side, side)).shape == (2, 7)


def test_strided_stages_halve_by_stride_and_pooled_ones_by_pooling():
    def strides(name):
        layers = build_model(name, num_classes=4).modules()
        return [m.stride[0] for m in layers if isinstance(m, torch.nn.Conv2d) and m.stride != (1, 1)]

    assert strides("resnet20-strided") == [2, 2]
    assert strides("densenet100") == []
    assert strides("resnet18") == [2]
    sizes = []
    model = build_model("resnet18", num_classes=4)
    for stage in model.stages:
        stage.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:])))
    model(torch.zeros(1, 3, 224, 224))
    assert sizes == [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]


def test_memory_efficient_densenets_compute_the_same_bits():
    def step(memory_efficient):
        torch.manual_seed(5)
        model = build_model("densenet16-k6", num_classes=5, memory_efficient=memory_efficient)
        images = torch.randn(4, 3, 8, 8)
        for _ in range(2):
            model(images).square().sum().backward()
        return {**dict(model.state_dict()), **{f"{n}.grad": p.grad for n, p in model.named_parameters()}}

    plain, saving = step(False), step(True)
    assert plain.keys() == saving.keys()
    assert all(plain[name].equal(saving[name]) for name in plain)


def test_memory_efficient_densenets_keep_less():
    def kept(memory_efficient):
        model = build_model("densenet40-k12", num_classes=5, memory_efficient=memory_efficient)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model(torch.randn(4, 3, 8, 8))
        return sum(sizes)

    assert kept(True) < 0.8 * kept(False)


def three_classes(num_classes):
    """Ignore the number of classes, as a careless factory does."""
    return build_model("resnet8", num_classes=3)


def test_a_factory_is_any_importable_function():
    model = build_model("torchvision.models:squeezenet1_1", num_classes=3)
    assert parameter_count("torchvision.models:squeezenet1_1", num_classes=3) == sum(
        p.numel() for p in model.parameters()
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [("torchvision/resnet19", "did you mean torchvision/resnet1"), ("no.such.module:f", "can't be imported"),
     ("torchvision.models:nothing", "has no function 'nothing'"), ("densenet101", "did you mean densenet"),
     ("densenet40", "did you mean densenet")],
)  # fmt: skip
def test_what_cannot_be_built_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        check_model_name(name)


def test_a_network_that_memory_can_not_hold_is_refused_before_it_is_built():
    with pytest.raises(ValueError, match=r"'densenet1990-k500' has 356,.* parameters, 1,424 GB; this machine has"):
        check_fits("densenet1990-k500", num_classes=10, height=32, width=32)


def failing(num_classes):
    raise KeyError(num_classes)


def no_network(num_classes):
    return num_classes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tests.models.test_models:failing", "can't be built for 10 classes: KeyError: 10"),
        ("tests.models.test_models:no_network", "is of type int, not a torch.nn.Module"),
        ("os:getcwd", "can't be built for 10 classes: TypeError"),
    ],
)
def test_functions_that_build_no_network_are_refused_in_one_line(name, message):
    with pytest.raises(ValueError, match=message) as error:
        check_fits(name, num_classes=10, height=32, width=32)
    assert "\n" not in str(error.value)


def test_networks_that_do_not_fit_the_images_are_refused():
    check_fits("resnet8", num_classes=4, height=8, width=8)
    with pytest.raises(ValueError, match=r"'torchvision/vgg11' can't take images of 8 × 8 pixels: "):
        check_fits("torchvision/vgg11", num_classes=4, height=8, width=8)
    with pytest.raises(ValueError, match=r"gives \(1, 3\) for one image, not logits \(1, 4\)"):
        check_fits("tests.models.test_models:three_classes", num_classes=4, height=8, width=8)


class InFours(torch.nn.Module):
    """Takes statistics of four images each while it trains."""

    def __init__(self, num_classes):
        super().__init__()
        self.last = torch.nn.Linear(3, num_classes)

    def forward(self, images):
        means = images.mean(dim=(2, 3))
        return self.last(means.view(-1, 4, 3).sub(0).view(-1, 3) if self.training else means)


def test_networks_that_do_not_train_on_a_batch_are_refused():
    shape = {"num_classes": 4, "height": 32, "width": 32}
    before = torch.get_num_threads()
    check_trains("resnet8", **shape, images=1)
    check_trains("torchvision/resnet18", **shape, images=128)
    check_trains("torchvision/resnet18", **shape, images=0)  # another worker's images make the statistics
    check_trains("tests.models.test_models:InFours", **shape, images=8)  # though two are too few
    with pytest.raises(ValueError, match="can't train on 1 image of 32 × 32 pixels: Expected more than 1 value"):
        check_trains("torchvision/resnet18", **shape, images=1)
    with pytest.raises(ValueError, match="can't train on 5 images of 32 × 32 pixels: shape"):
        check_trains("tests.models.test_models:InFours", **shape, images=5)
    assert torch.get_num_threads() == before


@pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet")
def test_a_network_whose_output_while_it_trains_is_not_one_tensor_is_refused():
    check_fits("torchvision/googlenet", num_classes=4, height=32, width=32)
    with pytest.raises(ValueError, match=r"gives GoogLeNetOutputs while it trains, not logits \(2, 4\) alone"):
        check_trains("torchvision/googlenet", num_classes=4, height=32, width=32, images=128)


def test_labels_name_files():
    assert label("torchvision/mobilenet_v3_small") == "torchvision-mobilenet_v3_small"
    assert label("package.module:function") == "package.module-function"
    assert all(label(name) == name for name in model_names())
