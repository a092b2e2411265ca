"""Read the sources' own file formats: digits, torchvision's files of CIFAR, IDX files."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gentrain.errors import DataError

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
MAX_IDX_BYTES = 1 << 31
DOWNLOADS = Path("~/.cache/gentrain/downloads")
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Split:
    """Holds images (N, H, W, 3) uint8, or `StoredImage`s (N,) that aren't decoded yet, and labels (N,) int64."""

    images: np.ndarray
    labels: np.ndarray

    def take(self, indices: np.ndarray) -> Split:
        """Return the samples at `indices`."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class SourceData:
    """Holds all images of a source in memory, by split, and the names of its classes."""

    splits: dict[str, Split]
    classes: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    class_groups: tuple[int, ...] | None = None
    """Group of each class, an index into `groups`."""
    skipped: tuple[str, ...] = ()
    """Broken images that are left out."""


@dataclass(frozen=True)
class CifarData:
    """Holds CIFAR-10 or -100; the groups are CIFAR-100's coarse labels, where its files have them."""

    splits: dict[str, Split]
    classes: tuple[str, ...]
    groups: tuple[str, ...] | None
    class_groups: tuple[int, ...] | None


def read_digits() -> Split:
    """Return scikit-learn's 1,797 handwritten digits, 8×8, its 17 grey levels spread over 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return Split(_rgb(grey), digits.target.astype(np.int64))


def read_cifar_files(source: str, path: Path | None) -> CifarData:
    """Read torchvision's extracted files of CIFAR-10 or -100; without a path, download them."""
    from torchvision import datasets

    kind = datasets.CIFAR100 if source == "cifar100" else datasets.CIFAR10
    root = DOWNLOADS.expanduser() if path is None else path
    parts: dict[str, Any] = {}
    for name in ("train", "test"):
        try:
            parts[name] = kind(str(root), train=name == "train", download=path is None)
        except Exception as error:  # torchvision raises whatever its downloader met
            if path is None:
                raise DataError(
                    f"{source}: can't be downloaded ({error}); set dataset.path (--data) to a folder that holds it"
                ) from error
            raise DataError(
                f"{path}: neither Parquet files (train-*.parquet) nor torchvision's {kind.base_folder} in it"
            ) from error
    splits = {
        name: Split(np.asarray(data.data), np.asarray(data.targets, dtype=np.int64)) for name, data in parts.items()
    }
    return CifarData(splits, tuple(parts["train"].classes), None, None)


def read_fashion_mnist(path: Path | None) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Read the four IDX files of torchvision's or Debian's layout; without a path Debian's, or a download."""
    if path is None and DEBIAN_FASHION.is_dir():
        path = DEBIAN_FASHION
    if path is None:
        from torchvision import datasets

        path = DOWNLOADS.expanduser()
        try:
            datasets.FashionMNIST(str(path), download=True)
        except Exception as error:  # torchvision raises whatever its downloader met
            raise DataError(
                f"fashion_mnist: can't be downloaded ({error}); install Debian's dataset-fashion-mnist or set "
                "dataset.path (--data) to a folder that holds it"
            ) from error
    splits = {}
    for name, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = _idx(path, f"{prefix}-images-idx3-ubyte"), _idx(path, f"{prefix}-labels-idx1-ubyte")
        if len(images) != len(labels):
            raise DataError(f"{path}: {len(images)} {name} images but {len(labels)} labels")
        splits[name] = Split(_rgb(images), labels.astype(np.int64))
    return splits, FASHION_CLASSES


def _idx(path: Path, name: str) -> np.ndarray:
    for folder in (path, path / "FashionMNIST" / "raw", path / "raw"):
        for file in (folder / name, folder / f"{name}.gz"):
            if file.is_file():
                try:
                    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
                        dimensions = opened.read(4)[3]
                        shape = np.frombuffer(opened.read(4 * dimensions), ">u4", dimensions).tolist()
                        wanted = min(math.prod(shape), MAX_IDX_BYTES)
                        content = opened.read(wanted + 1)  # a compressed file may stand for any number of bytes
                    return np.frombuffer(content, np.uint8).reshape(shape)
                except (OSError, ValueError, IndexError, EOFError, zlib.error) as error:
                    raise DataError(f"{file}: not an IDX file, or damaged: {error}") from error
    raise DataError(f"{path}: no {name} or {name}.gz in it, nor in FashionMNIST/raw")


def _rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=3)
