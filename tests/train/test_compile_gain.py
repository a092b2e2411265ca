"""`compile: auto` by numbers: what takes hours is compiled, what takes seconds isn't, nor what nothing is known of."""

from dataclasses import replace

import pytest

from gentrain.models.cost import multiply_adds
from gentrain.train.compile_gain import GAINS, MeasuredStep, Training

CIFAR = Training(
    network="resnet20", multiply_adds=40_800_000, images=50_000, epochs=164, precision="bf16", threads=2, amx=True
)
DIGITS = Training(
    network="resnet8",
    multiply_adds=multiply_adds("resnet8", num_classes=10, height=8, width=8),
    images=1_500,
    epochs=40,
    precision="bf16",
    threads=1,
    amx=True,
)


def test_the_seconds_saved_are_those_of_the_gain_over_all_images():
    assert replace(CIFAR, epochs=328).seconds_saved() == pytest.approx(2 * CIFAR.seconds_saved())
    assert replace(CIFAR, threads=4).seconds_saved() == pytest.approx(CIFAR.seconds_saved() / 2)
    eager = 164 * 50_000 / 1_287  # seconds at the images/s that two threads were seen to train
    assert CIFAR.seconds_saved() == pytest.approx(eager * (1 - 1 / GAINS["cifar"]), rel=0.05)


@pytest.mark.parametrize("cold", [True, False])
def test_hours_are_worth_it_and_seconds_are_not(cold):
    assert CIFAR.pays(cold=cold)
    assert not DIGITS.pays(cold=cold)


def test_between_them_the_cache_decides():
    between = replace(CIFAR, epochs=3)
    assert between.seconds_of_compiling(cold=False) < between.seconds_saved() < between.seconds_of_compiling(cold=True)
    assert between.pays(cold=False)
    assert not between.pays(cold=True)


@pytest.mark.parametrize(
    "change",
    [{"network": "mynets:small"}, {"network": "torchvision/resnet50"}, {"network": "resnet18"}, {"amx": False},
     {"precision": "fp32"}, {"network": "densenet100"}],
)  # fmt: skip
def test_where_no_gain_is_known_nothing_is_compiled(change):
    unknown = replace(CIFAR, epochs=10**6, **change)
    assert unknown.seconds_saved() == 0
    assert not unknown.pays(cold=False)


def test_a_deep_network_takes_longer_to_compile():
    deep = replace(CIFAR, network="resnet110")
    assert deep.seconds_of_compiling(cold=True) > 4 * CIFAR.seconds_of_compiling(cold=True)
    assert deep.seconds_of_compiling(cold=False) == CIFAR.seconds_of_compiling(cold=False)


def test_what_was_measured_here_counts_and_not_what_is_known_elsewhere():
    faster = MeasuredStep(eager=0.2, compiled=0.1, batch=100, threads=1)
    elsewhere = replace(CIFAR, amx=False, precision="fp32", network="mynets:small")
    assert replace(elsewhere, measured=faster).seconds_saved() == pytest.approx(164 * 50_000 * 0.1 / 100 / 2)
    assert replace(elsewhere, measured=faster).pays(cold=True)
    assert not replace(CIFAR, measured=replace(faster, compiled=0.21)).pays(cold=False)
    assert not replace(DIGITS, measured=replace(faster, eager=0.101)).pays(cold=False)


@pytest.mark.parametrize(
    "content",
    [None, {}, {"eager": 1.0}, {"eager": 1.0, "compiled": "x", "batch": 1, "threads": 1},
     {"eager": 1.0, "compiled": 1.0, "batch": 1, "threads": 0}],
)  # fmt: skip
def test_a_damaged_note_is_none(content):
    assert MeasuredStep.parse(content) is None
    whole = {"eager": 1.0, "compiled": 0.5, "batch": 8, "threads": 2}
    assert MeasuredStep.parse(whole) == MeasuredStep(**whole)
