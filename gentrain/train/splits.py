"""A generation's splits: one loader each, and the pixels that its network sees of a batch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import Tensor

from gentrain.data.loading.augment import augment, distort, normalise
from gentrain.data.loading.loader import Batch, Loader
from gentrain.data.loading.mix import draw_mixes, mix
from gentrain.data.loading.order import PAIR
from gentrain.data.prepare.dataset import PreparedData
from gentrain.study.lineage import GenerationSpec
from gentrain.train.seeds import generation_seed
from gentrain.train.workers import Workers


class Splits:
    """The prepared dataset as a generation's workers read it."""

    def __init__(self, data: PreparedData, *, spec: GenerationSpec, workers: Workers) -> None:
        self.manifest = data.manifest
        self._data, self._recipe, self._workers = data, spec.recipe, workers
        self._seed = generation_seed(spec.seed, spec.generation)
        self._loaders: dict[str, Loader] = {}

    @property
    def held_out(self) -> tuple[str, ...]:
        """Names of the splits that are evaluated: test, and validation where there is one."""
        return ("test", "validation") if "validation" in self.manifest.splits else ("test",)

    @property
    def image(self) -> tuple[int, int, int]:
        """Shape (3, H, W) of an image."""
        return 3, self.manifest.height, self.manifest.width

    def loader(self, split: str) -> Loader:
        """Return the loader of a split, shuffled for training; one each, as FFCV compiles every loader again."""
        if split not in self._loaders:
            self._loaders[split] = self._build_loader(split, shuffle=split == "train")
        return self._loaders[split]

    def open_loaders(self) -> None:
        """Build the loaders of all splits, so that no epoch's time has the seconds that FFCV takes for it."""
        for split in ("train", *self.held_out):
            self.loader(split)

    def ordered(self, split: str) -> Loader:
        """Return a loader of a split in its own order, for the training set too."""
        return self._build_loader(split, shuffle=False) if split == "train" else self.loader(split)

    def _build_loader(self, split: str, *, shuffle: bool) -> Loader:
        batch = self._recipe.batch_size
        return Loader(
            self._data.split_path(split),
            batch_size=batch if shuffle else 2 * batch,
            rank=self._workers.rank,
            world_size=self._workers.world_size,
            seed=self._seed,
            shuffle=shuffle,
            threads=self._workers.threads,
            device=self._workers.device,
            images=self._recipe.images,
            size=self.manifest.height,
            together=PAIR if shuffle and self._recipe.mixes else 1,
        )

    def augmented(self, batch: Batch, epoch: int) -> Tensor:
        """Return a batch's images as they are trained on: (n, 3, H, W), float32, augmented and normalised.

        The draws are functions of (seed, generation, epoch, sample) alone.
        """
        recipe = self._recipe
        if recipe.images is None:
            change = partial(augment, padding=recipe.padding)
        else:
            change = partial(distort, rotation=recipe.images.rotation, jitter=recipe.images.jitter)
        images = change(batch.images, batch.indices, seed=self._seed, epoch=epoch, flip=recipe.flip)
        return normalise(images, mean=self.manifest.mean, std=self.manifest.std)

    def mixed(self, batch: Batch, images: Tensor, epoch: int) -> tuple[Batch, Tensor]:
        """Return a batch with mixed labels (n, C), and its augmented images mixed likewise, where the recipe says so.

        The draws are functions of (seed, generation, epoch, sample) alone; whoever sees the images, sees the same mix.
        """
        recipe = self._recipe
        if not recipe.mixes:
            return batch, images
        draws = draw_mixes(
            self.loader("train").num_samples,
            seed=self._seed,
            epoch=epoch,
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
            device=images.device,
        )
        classes = len(self.manifest.classes)
        images, labels = mix(images, batch.labels, batch.indices, draws=draws, num_classes=classes)
        return replace(batch, labels=labels), images
