"""Bytes of networks: the table is what torch counts, at any size."""

import pytest

from gentrain.models.footprint import BODIES, count_bytes, network_bytes
from gentrain.models.registry import build_model, model_names
from gentrain.train.checkpoint import encode_weights


@pytest.mark.parametrize("name", model_names())
def test_the_table_is_what_torch_counts(name):
    side = 224 if name.startswith("resnet18") else 32
    listed = network_bytes(name, num_classes=7, height=side, width=side)
    counted = count_bytes(name, num_classes=7, height=side, width=side)
    assert (listed.weights, listed.parameters) == (counted.weights, counted.parameters)
    assert listed.kept == pytest.approx(counted.kept, rel=0.001)


def test_the_table_has_the_registered_networks():
    assert tuple(BODIES) == model_names()


@pytest.mark.parametrize(("name", "side"), [("resnet20", 64), ("densenet100", 48), ("resnet18", 128)])
def test_what_a_step_keeps_grows_with_the_pixels(name, side):
    shape = {"num_classes": 10, "height": side, "width": side}
    assert network_bytes(name, **shape).kept == pytest.approx(count_bytes(name, **shape).kept, rel=0.02)


def test_weights_are_those_of_the_file():
    content = encode_weights(build_model("resnet8", num_classes=10))
    counted = network_bytes("resnet8", num_classes=10, height=8, width=8).weights
    assert counted < len(content) < counted + 10_000  # and its header


def test_other_networks_are_counted_and_what_cant_be_is_said():
    other = network_bytes("densenet40-k12", num_classes=10, height=32, width=32)
    assert other == count_bytes("densenet40-k12", num_classes=10, height=32, width=32)
    lean = network_bytes("densenet100", num_classes=10, height=32, width=32, memory_efficient=True)
    assert lean.kept < network_bytes("densenet100", num_classes=10, height=32, width=32).kept
    with pytest.raises(ValueError, match="can't be counted"):
        network_bytes("densenet40-k12", num_classes=10, height=1, width=1)
