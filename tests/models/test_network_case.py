"""Provide the test case that every network passes: inherit `NetworkCase` and name yours."""

import torch
from torch import nn

from gentrain.models.cost import check_fits
from gentrain.models.registry import build_model


class NetworkCase:
    """Test one network; a subclass sets `name` and, where they differ, `side` and `classes`."""

    name: str
    side = 8
    classes = 5

    def build(self):
        torch.manual_seed(0)
        return build_model(self.name, num_classes=self.classes)

    def images(self):
        return torch.randn(4, 3, self.side, self.side, generator=torch.Generator().manual_seed(1))

    def test_it_takes_the_images_and_returns_logits(self):
        check_fits(self.name, num_classes=self.classes, height=self.side, width=self.side)
        assert self.build()(self.images()).shape == (4, self.classes)

    def test_the_seed_decides_its_weights(self):
        one, other = self.build().state_dict(), self.build().state_dict()
        assert one.keys() == other.keys()
        assert all(value.equal(other[name]) for name, value in one.items())

    def test_every_parameter_is_trained(self):
        network = self.build().train()
        network(self.images()).logsumexp(dim=1).sum().backward()
        assert [name for name, value in network.named_parameters() if value.grad is None] == []
        assert all(value.grad.isfinite().all() for value in network.parameters())

    def test_evaluating_changes_nothing(self):
        network = self.build().eval()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with torch.no_grad():
            alone, together = network(self.images()[:1]), network(self.images())[:1]
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
        assert all(value.equal(before[name]) for name, value in network.state_dict().items())


class TestCifarResNet(NetworkCase):
    name = "resnet8"


class TestDenseNet(NetworkCase):
    name = "densenet10-k4"


class TestResNet18(NetworkCase):
    name = "resnet18"
    side = 64


def small(num_classes):
    """Build the network of docs/architecture.md."""
    body = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(8, num_classes))


class TestAFunctionOfYours(NetworkCase):
    name = f"{__name__}:small"
