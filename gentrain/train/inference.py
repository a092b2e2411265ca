"""Compute a network's probabilities over a split, and load finished generations as networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gentrain.data.loading.augment import normalise
from gentrain.data.loading.loader import Batch, Loader
from gentrain.data.prepare.manifest import Manifest
from gentrain.data.prepare.share import obtain
from gentrain.errors import ConfigError, GentrainError, StoreError
from gentrain.models.fold import fold
from gentrain.models.fuse import fuse
from gentrain.models.mean import MeanOfNetworks
from gentrain.models.registry import build_model
from gentrain.store.done import AVERAGE, MODEL, SPEC
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec
from gentrain.train.checkpoint import load_weights
from gentrain.train.device import autocast, configure, to_device
from gentrain.train.splits import Splits
from gentrain.train.workers import Workers


def predict(
    model: nn.Module, loader: Loader, *, manifest: Manifest, device: torch.device, precision: str
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield the loader's batches with float32 probabilities (n, C), without augmentation, in eval mode."""
    model.eval()
    for batch in loader.epoch(0):
        images = normalise(batch.images, mean=manifest.mean, std=manifest.std)
        with torch.no_grad(), autocast(device, precision):
            logits = model(images)
        yield batch, logits.float().softmax(dim=1)


def load_network(key: str, store: RunStore, *, teaching: bool = False) -> nn.Module:
    """Return a finished generation's network with its verified weights, on the CPU.

    Args:
        key: of the generation.
        store: where it is.
        teaching: with the weights that teach the next generation, which may be averaged ones (`recipe.ema`).

    Raises:
        StoreError: when its weights or its spec are missing or damaged.
        ConfigError: when its network can't be imported here.
    """
    folder = store.generation(key)
    spec = folder.spec()
    if spec is None:
        raise StoreError(f"{folder}/{SPEC}: damaged (it isn't of {key}); run the study again to restore it")
    try:
        model = build_model(spec.network.name, num_classes=spec.num_classes)
    except ValueError as error:
        raise ConfigError(f"generation {key}: {error}") from None
    averaged = teaching and spec.recipe.ema is not None and spec.recipe.ema.role == "teacher"
    load_weights(model, folder.read_verified(AVERAGE if averaged else MODEL))
    return model


def load_teacher(
    keys: Sequence[str], store: RunStore, *, folded: bool, fuse_for: tuple[Tensor, torch.dtype] | None = None
) -> nn.Module:
    """Return the network that teaches: a finished generation's, or the mean of several.

    Args:
        keys: of the generations.
        store: where they are.
        folded: whether BatchNorm is folded into the convolutions (see `fold`).
        fuse_for: an image and a dtype for which folded networks are fused as well (see `fuse`).

    Raises:
        StoreError: when one is missing or damaged.
        GentrainError: when one can't be folded.
    """
    networks = [load_network(key, store, teaching=True) for key in keys]
    if folded:
        try:
            traced = [fold(network) for network in networks]
        except ValueError as error:
            raise GentrainError(f"fold_batchnorm: true: {error}; set fold_batchnorm: false") from error
        networks = [fuse(network, image=fuse_for[0], dtype=fuse_for[1]) if fuse_for else network for network in traced]
    return networks[0] if len(networks) == 1 else MeanOfNetworks(networks)


def predict_batches(
    spec: GenerationSpec, split: str, *, store: RunStore, data: str, threads: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (indices (n,), labels (n,), probabilities (n, C) float32) of a finished generation on a prepared split.

    Every sample comes once, in parts: all probabilities of ILSVRC2012's training set at once would fill the memory.
    """
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    configure(device, threads=threads, precision=spec.precision)
    workers = Workers(rank=0, world_size=1, device=device, threads=threads)
    splits = Splits(obtain(data, store), spec=spec, workers=workers)
    model = to_device(load_network(spec.key, store), device)
    batches = predict(model, splits.ordered(split), manifest=splits.manifest, device=device, precision=spec.precision)
    for batch, probabilities in batches:
        yield batch.indices.cpu().numpy(), batch.labels.cpu().numpy(), probabilities.cpu().numpy()


def predict_split(
    spec: GenerationSpec, split: str, *, store: RunStore, data: str, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (probabilities (N, C) float32, labels (N,)) of a finished generation on a prepared split, in its order."""
    parts = list(predict_batches(spec, split, store=store, data=data, threads=threads))
    indices, labels, probabilities = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(indices)
    return probabilities[order], labels[order]
