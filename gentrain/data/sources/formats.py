"""Readers of the sources' own file formats: digits, CIFAR in Parquet or torchvision's files, IDX files."""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gentrain.data.sources.pixels import eight_bits
from gentrain.errors import DataError

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
MAX_CLASSES = 1_000_000
DOWNLOADS = Path("~/.cache/gentrain/downloads")
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Split:
    """Holds images (N, H, W, 3) uint8 and labels (N,) int64; before `decoded`, images may be PNG files' bytes (N,)."""

    images: np.ndarray
    labels: np.ndarray

    def take(self, indices: np.ndarray) -> Split:
        """Return the samples at `indices`."""
        return Split(self.images[indices], self.labels[indices])

    def decoded(self) -> Split:
        """Return the split with pixels in place of PNG files.

        Raises:
            OSError, ValueError, SyntaxError: Pillow's, for a broken one.
        """
        if self.images.dtype != object:
            return self
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return Split(np.stack(list(pool.map(_png, self.images))), self.labels)


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


def read_cifar(source: Literal["cifar10", "cifar100"] | str, path: Path | None) -> CifarData:
    """Read Parquet in the Hugging Face layout, torchvision's extracted files, or download those."""
    if path is not None and any(path.rglob("*.parquet")):
        return _cifar_parquet(path, fine="fine_label" if source == "cifar100" else "label")
    return _cifar_torchvision(source, path)


def _cifar_parquet(path: Path, *, fine: str) -> CifarData:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    splits: dict[str, Split] = {}
    groups_of: list[np.ndarray] = []
    features: dict[str, Any] = {}
    for name in ("train", "test"):
        files = sorted(path.rglob(f"{name}-*.parquet"))
        if not files:
            raise DataError(f"{path}: no {name}-*.parquet in it; expected the Hugging Face layout of CIFAR")
        images, labels = [], []
        for file in files:
            try:
                table = pq.read_table(file)
                features |= (
                    json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
                    .get("info", {})
                    .get("features", {})
                )
                column = "img" if "img" in table.column_names else "image"
                images += pc.struct_field(table[column], "bytes").to_pylist()
                labels.append(_class_numbers(table[fine].to_numpy(), file=file, column=fine))
                if "coarse_label" in table.column_names:
                    groups_of.append(np.stack([labels[-1], table["coarse_label"].to_numpy()]))
            except (OSError, KeyError, ValueError) as error:  # pyarrow's errors are these
                raise DataError(f"{file}: not CIFAR as Parquet, or damaged: {error}") from error
        splits[name] = Split(np.array(images, dtype=object), np.concatenate(labels).astype(np.int64))
    empty = [name for name, split in splits.items() if not len(split.labels)]
    if empty:
        raise DataError(f"{path}: {empty[0]}-*.parquet has no rows")
    count = 1 + max(int(split.labels.max()) for split in splits.values())
    named = features.get(fine, {}).get("names")
    if named and len(named) < count:
        raise DataError(f"{path}: {fine} {count - 1}, but only {len(named)} names of classes")
    if count > MAX_CLASSES:
        raise DataError(f"{path}: {fine} {count - 1}; class numbers count from 0, at most {MAX_CLASSES:,} classes")
    classes = tuple(features.get(fine, {}).get("names") or map(str, range(count)))
    if not groups_of:
        return CifarData(splits, classes, None, None)
    pairs = dict(np.concatenate(groups_of, axis=1).T.tolist())
    names = features.get("coarse_label", {}).get("names") or map(str, range(1 + max(pairs.values())))
    return CifarData(splits, classes, tuple(names), tuple(pairs[c] for c in range(len(classes))))


def _class_numbers(values: np.ndarray, *, file: Path, column: str) -> np.ndarray:
    """Return a label column as int64.

    Raises:
        DataError: naming the first row (from 0) that holds no class number.
    """
    if values.dtype.kind not in "biuf":
        raise DataError(f"{file}: column {column} holds no class numbers")
    numbers = values.astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(numbers) & (numbers == np.rint(numbers)) & (numbers >= 0) & (numbers < 2**31)))
    if len(wrong):
        raise DataError(f"{file}: row {wrong[0]}: {column} is {values[wrong[0]]}, not a class number; correct that row")
    return values.astype(np.int64)


def _png(content: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(eight_bits(Image.open(io.BytesIO(content))).convert("RGB"))


def _cifar_torchvision(source: str, path: Path | None) -> CifarData:
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
                    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
                    dimensions = content[3]
                    shape = np.frombuffer(content, ">u4", dimensions, 4)
                    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
                except (OSError, ValueError, IndexError, EOFError, zlib.error) as error:
                    raise DataError(f"{file}: not an IDX file, or damaged: {error}") from error
    raise DataError(f"{path}: no {name} or {name}.gz in it, nor in FashionMNIST/raw")


def _rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=3)
