"""What is drawn for initial weights, orders and augmentation stays to the bit; nothing else draws the same."""

import random

import numpy as np
import torch

from gentrain.data.loading.augment import stream_of
from gentrain.data.loading.order import epoch_order
from gentrain.train.seeds import epoch_seed, generation_seed, seed_generators


def test_the_streams_of_weights_order_and_augmentation_are_frozen():
    seeds = [generation_seed(*of) for of in ((0, 0), (0, 1), (7, 3))]
    assert seeds == [3948308845846928943, 1459132311362927889, 1265390889181019415]
    orders = [epoch_order(8, seed=seeds[0], epoch=epoch).tolist() for epoch in (0, 1)]
    assert orders == [[7, 0, 2, 5, 3, 6, 4, 1], [5, 4, 0, 3, 7, 6, 2, 1]]
    streams = [stream_of(seed=seeds[1], epoch=epoch) for epoch in (0, 1)]
    assert streams == [12145552302251222620, 5050281799321341740]


def test_no_epoch_draws_what_the_weights_or_another_epoch_drew():
    generations = [generation_seed(seed, generation) for seed in range(3) for generation in range(3)]
    epochs = [
        epoch_seed(seed, generation, epoch=epoch, rank=rank)
        for seed in range(3)
        for generation in range(3)
        for epoch in range(3)
        for rank in range(3)
    ]
    assert len({*generations, *epochs}) == len(generations) + len(epochs)


def test_all_generators_are_seeded():
    def draws():
        return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002  # the global generator is meant

    seed_generators(5)
    first = draws()
    assert draws() != first
    seed_generators(5)
    assert draws() == first
