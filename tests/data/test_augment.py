import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from gentrain.data.loading.augment import augment, normalise, random_bits

M = (1 << 64) - 1


def pixels(count, side=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def reference(image, index, *, seed, epoch, padding, flip):
    """Augment one image with Python's integers: SplitMix64 as published, then pad, crop and mirror by slices."""

    def mix(z):
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & M
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & M
        return z ^ z >> 31

    golden = 0x9E3779B97F4A7C15
    stream = mix((mix((seed + 1) * golden & M) + epoch + 1) * golden & M)
    bits = mix((index * golden + stream) & M)
    top, left = (bits >> 40 & 0xFFFFFF) * (2 * padding + 1) >> 24, (bits >> 16 & 0xFFFFFF) * (2 * padding + 1) >> 24
    side = image.shape[-1]
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))[:, top : top + side, left : left + side]
    return padded[:, :, ::-1] if flip and bits & 1 else padded


@given(st.integers(0, 2**62), st.integers(0, 400), st.integers(0, 5), st.booleans())
def test_it_is_the_slow_reference(seed, epoch, padding, flip):
    images, indices = pixels(5), torch.tensor([0, 1, 77, 49_999, 1_281_166])
    result = augment(images, indices, seed=seed, epoch=epoch, padding=padding, flip=flip)
    for image, index, own in zip(images, indices.tolist(), result, strict=True):
        wanted = reference(image.numpy(), index, seed=seed, epoch=epoch, padding=padding, flip=flip)
        np.testing.assert_array_equal(own.numpy(), wanted)


@given(st.permutations(range(12)), st.integers(1, 12))
def test_draws_do_not_depend_on_batches(order, size):
    images, indices = pixels(12), torch.arange(100, 112)
    whole = augment(images, indices, seed=5, epoch=3, padding=2, flip=True)
    for start in range(0, 12, size):
        part = list(order[start : start + size])
        result = augment(images[part], indices[part], seed=5, epoch=3, padding=2, flip=True)
        assert result.equal(whole[part])


def test_draws_are_even_and_change_with_seed_and_epoch():
    indices = torch.arange(50_000)
    bits = random_bits(indices, seed=1, epoch=0)
    for shift in range(64):
        share = (bits >> shift & 1).double().mean().item()
        assert abs(share - 0.5) < 0.012  # 5 standard deviations
    tops = torch.bincount((bits >> 40 & 0xFFFFFF) * 9 >> 24, minlength=9)
    assert (tops - 50_000 / 9).abs().max() < 400
    for other in (random_bits(indices, seed=2, epoch=0), random_bits(indices, seed=1, epoch=1)):
        same = (bits & 1 == other & 1).double().mean().item()
        assert abs(same - 0.5) < 0.012
    assert len(bits.unique()) == 50_000


def test_the_border_is_black_and_nothing_else_is_invented():
    images = torch.full((200, 3, 4, 4), 9, dtype=torch.uint8)
    result = augment(images, torch.arange(200), seed=0, epoch=0, padding=2, flip=True)
    assert set(result.unique().tolist()) == {0, 9}
    assert (result.flatten(1) == 9).any(1).all()


def test_normalise_by_hand():
    images = pixels(3)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.1)
    result = normalise(images, mean=mean, std=std)
    wanted = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert (result.double() - wanted).abs().max() < 1e-5
    assert result.is_contiguous(memory_format=torch.channels_last)
