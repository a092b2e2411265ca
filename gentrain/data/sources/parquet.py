"""Read CIFAR-10 and -100 as Parquet in the Hugging Face layout; what makes no sense is named by file and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gentrain.data.sources.formats import CifarData, Split
from gentrain.data.sources.stored import StoredImage
from gentrain.data.sources.walk import walk_files
from gentrain.errors import DataError, shown

MAX_CLASSES = 1_000_000
MAX_ROWS = 5_000_000
"""Most rows of a split; a file of a few bytes may claim, and repeat, any number."""
COARSE = "coarse_label"


def parquet_files(path: Path) -> dict[str, list[Path]]:
    """Return the files train-*.parquet and test-*.parquet below a folder by split, links followed."""
    files = sorted(file for file in walk_files(path) if file.suffix == ".parquet")
    return {name: [file for file in files if file.name.startswith(f"{name}-")] for name in ("train", "test")}


def read_cifar_parquet(path: Path, files: dict[str, list[Path]], *, fine: str) -> CifarData:
    """Return the images, not decoded yet, labels, classes and groups in a folder's files.

    Args:
        path: the folder, for messages.
        files: see `parquet_files`.
        fine: the column of class numbers.

    Raises:
        DataError: naming the file and, where it is one row's fault, the row.
    """
    import pyarrow.compute as pc

    splits: dict[str, Split] = {}
    coarse: list[np.ndarray] = []
    features: dict[str, Any] = {}
    for name, own in files.items():
        if not own:
            raise DataError(f"{path}: no {name}-*.parquet in it; expected the Hugging Face layout of CIFAR")
        images: list[StoredImage] = []
        labels: list[np.ndarray] = []
        for file in own:
            table = _read_table(file, fine=fine, rows=len(images))
            features |= _features(table)
            contents = pc.struct_field(table.column(0), "bytes").to_pylist()
            images += [StoredImage(content, str(file), row) for row, content in enumerate(contents)]
            labels.append(_class_numbers(table[fine], file=file, column=fine))
            if COARSE in table.column_names:
                coarse.append(np.stack([labels[-1], _class_numbers(table[COARSE], file=file, column=COARSE)]))
        if not images:
            raise DataError(f"{path}: {name}-*.parquet has no rows")
        held = np.empty(len(images), dtype=object)
        held[:] = images
        splits[name] = Split(held, np.concatenate(labels))
    numbers = (split.labels for split in splits.values())
    classes = _names(features, fine, count=1 + max(int(own.max()) for own in numbers), path=path)
    if not coarse:
        return CifarData(splits, classes, None, None)
    groups, class_groups = _groups(np.concatenate(coarse, axis=1), features, len(classes), path=path)
    return CifarData(splits, classes, groups, class_groups)


def _read_table(file: Path, *, fine: str, rows: int) -> pa.Table:
    """Return a file's columns: the images, the class numbers, and the groups where it has them."""
    try:
        with pq.ParquetFile(file) as opened:
            if rows + opened.metadata.num_rows > MAX_ROWS:
                raise DataError(f"{file}: more than {MAX_ROWS:,} rows; this source is held in memory")
            names = opened.schema_arrow.names
            image = "img" if "img" in names else "image"
            for column in (image, fine):
                if column not in names:
                    raise DataError(f"{file}: no column {column}; its columns: {', '.join(map(shown, names[:8]))}")
            kind = opened.schema_arrow.field(image).type
            if not _holds_files(kind):
                raise DataError(
                    f"{file}: column {image} holds {shown(str(kind))}, not image files (a struct with bytes)"
                )
            wanted = [image, fine, *([COARSE] if COARSE in names else [])]
            return opened.read(columns=wanted).select(wanted)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{file}: not CIFAR as Parquet, or damaged: {error}") from error


def _holds_files(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    content = kind.field(kind.get_field_index("bytes")).type
    return bool(pa.types.is_binary(content) or pa.types.is_large_binary(content))


def _features(table: pa.Table) -> dict[str, Any]:
    """Return what the Hugging Face library wrote about the columns; nothing where that makes no sense."""
    try:
        described = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(described.get("info", {}).get("features", {}))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return {}


def _names(features: dict[str, Any], column: str, *, count: int, path: Path) -> tuple[str, ...]:
    """Return the names of a column's numbers; the numbers themselves where the files name none."""
    feature = features.get(column)
    named = feature.get("names") if isinstance(feature, dict) else None
    if count > MAX_CLASSES:
        raise DataError(f"{path}: {column} {count - 1}; class numbers count from 0, at most {MAX_CLASSES:,} classes")
    if not named:
        return tuple(map(str, range(count)))
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise DataError(f"{path}: the names of {column} are {shown(named)}, not texts")
    if len(named) < count:
        raise DataError(f"{path}: {column} {count - 1}, but only {len(named)} names of classes")
    return tuple(named)


def _groups(
    pairs: np.ndarray, features: dict[str, Any], classes: int, *, path: Path
) -> tuple[tuple[str, ...] | None, tuple[int, ...] | None]:
    """Return the groups' names and each class's group, by pairs (2, N) of both numbers; None where a class has none."""
    group_of: dict[int, int] = {}
    for number, group in np.unique(pairs, axis=1).T.tolist():
        if group_of.setdefault(number, group) != group:
            raise DataError(
                f"{path}: class number {number} is in groups {group_of[number]} and {group}; correct {COARSE}"
            )
    if len(group_of) < classes:
        return None, None
    names = _names(features, COARSE, count=1 + max(group_of.values()), path=path)
    return names, tuple(group_of[number] for number in range(classes))


def _class_numbers(values: pa.ChunkedArray, *, file: Path, column: str) -> np.ndarray:
    """Return a label column as int64.

    Raises:
        DataError: naming the first row (from 0) that holds no class number.
    """
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{file}: column {column} holds {shown(str(kind))}, not class numbers")
    array = values.to_numpy()
    numbers = array.astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(numbers) & (numbers == np.rint(numbers)) & (numbers >= 0) & (numbers < 2**31)))
    if len(wrong):
        raise DataError(f"{file}: row {wrong[0]}: {column} is {array[wrong[0]]}, not a class number; correct that row")
    return np.asarray(array, dtype=np.int64)
