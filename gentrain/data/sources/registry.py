"""Load a source by its name: read it into arrays, filter and split it, the same way every time."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gentrain.data.sources.folders import read_imagefolder
from gentrain.data.sources.formats import SourceData, Split, read_cifar_files, read_digits, read_fashion_mnist
from gentrain.data.sources.holdout import held_out
from gentrain.data.sources.imported import read_imported
from gentrain.data.sources.names import check_names, normal_form
from gentrain.data.sources.parquet import parquet_files, read_cifar_parquet
from gentrain.data.sources.stored import decode_split
from gentrain.errors import DataError, cut, printable, shown, shown_path
from gentrain.study.sections import DatasetConfig


def load_source(config: DatasetConfig) -> SourceData:
    """Return a source's training and test images, filtered and limited, and a validation split where one is wanted.

    Raises:
        DataError: naming the file or setting, and the remedy.
    """
    data = select(_READERS.get(config.source, read_imported)(config), config)
    decoded = {name: decode_split(split, name, skip_broken=config.skip_broken) for name, split in data.splits.items()}
    skipped = tuple(place for _, places in decoded.values() for place in places)
    splits = {name: split for name, (split, _) in decoded.items()}
    if skipped:
        _check_filled(splits, data.classes)
    return replace(data, splits=splits, skipped=data.skipped + skipped)


def select(data: SourceData, config: DatasetConfig) -> SourceData:
    """Return the source filtered by class and limited, with a validation split where one is wanted.

    Raises:
        DataError: naming the setting, and the remedy.
    """
    for names in (data.classes, data.groups or ()):
        check_names(names, where=config.path or config.source)
    data = _filter_classes(data, config)
    if len(data.classes) < 2:
        raise DataError(f"dataset: {len(data.classes)} class left; a classifier needs at least 2")
    splits = {name: _limit(split, config.limit) for name, split in data.splits.items()}
    _check_filled(splits, data.classes)
    if config.validation:
        splits["train"], splits["validation"] = _hold_out(splits["train"], config.validation)
    return replace(data, splits=splits)


def _check_filled(splits: Mapping[str, Split], classes: Sequence[str]) -> None:
    for name, split in splits.items():
        missing = np.flatnonzero(np.bincount(split.labels, minlength=len(classes)) == 0)
        if len(missing) and name == "train":
            raise DataError(f"dataset: class {classes[missing[0]]!r} has no training image")
        if not len(split.labels):
            raise DataError(f"dataset: the {name} split is empty")


def _digits(_: DatasetConfig) -> SourceData:
    train, test = _hold_out(read_digits(), 0.2)
    return SourceData({"train": train, "test": test}, tuple("0123456789"))


def _cifar(config: DatasetConfig) -> SourceData:
    path = source_path(config)
    files = parquet_files(path) if path is not None else {}
    if path is not None and any(files.values()):
        data = read_cifar_parquet(path, files, fine="fine_label" if config.source == "cifar100" else "label")
    else:
        data = read_cifar_files(config.source, path)
    return SourceData(data.splits, data.classes, data.groups, data.class_groups)


def _fashion_mnist(config: DatasetConfig) -> SourceData:
    splits, classes = read_fashion_mnist(source_path(config))
    return SourceData(splits, classes)


def _imagefolder(config: DatasetConfig) -> SourceData:
    path = source_path(config)
    if path is None:
        raise DataError("dataset.path: source imagefolder needs a folder: set dataset.path or --data")
    splits, classes, skipped = read_imagefolder(
        path, size=config.image_size or 32, skip_broken=config.skip_broken, test=config.test
    )
    return SourceData(splits, classes, skipped=skipped)


_READERS: dict[str, Callable[[DatasetConfig], SourceData]] = {
    "digits": _digits,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "fashion_mnist": _fashion_mnist,
    "imagefolder": _imagefolder,
}


def source_missing(config: DatasetConfig) -> bool:
    """Return whether the study names a folder of the source that isn't there."""
    return config.path is not None and not os.path.isdir(os.path.expanduser(config.path))  # never raise


def source_path(config: DatasetConfig) -> Path | None:
    """Return the source's folder, None where the study names none.

    Raises:
        DataError: when it isn't there.
    """
    if config.path is None:
        return None
    if source_missing(config):
        raise DataError(
            f"dataset.path: {shown_path(config.path)}: no such folder{_looked_in(config.path)}; give the one with the "
            f"{config.source} files (a study file's path is relative to the file, --data to the working folder)"
        )
    return Path(config.path).expanduser()


def _looked_in(path: str) -> str:
    """Return where a relative path was looked for."""
    return "" if os.path.isabs(path) or path.startswith("~") else f" in {printable(os.getcwd())}"


def _filter_classes(data: SourceData, config: DatasetConfig) -> SourceData:
    if config.classes is not None:
        wanted = [_index(name, data.classes, "dataset.classes") for name in config.classes]
        if len(set(wanted)) != len(wanted):
            raise DataError("dataset.classes: a class is named twice")
    elif config.groups is not None and data.groups is not None and data.class_groups is not None:
        kept = {_index(name, data.groups, "dataset.groups") for name in config.groups}
        wanted = [c for c, group in enumerate(data.class_groups) if group in kept]
    elif config.groups is not None:
        raise DataError("dataset.groups: this source's files have no groups (coarse labels); use dataset.classes")
    else:
        return data
    place = np.full(len(data.classes), -1)
    place[wanted] = np.arange(len(wanted))
    splits = {}
    for name, split in data.splits.items():
        labels = place[split.labels]
        splits[name] = Split(split.images[labels >= 0], labels[labels >= 0])
    groups, class_groups = data.groups, data.class_groups
    if groups is not None and class_groups is not None:
        own = sorted({class_groups[c] for c in wanted})
        groups, class_groups = tuple(groups[g] for g in own), tuple(own.index(class_groups[c]) for c in wanted)
    return SourceData(splits, tuple(data.classes[c] for c in wanted), groups, class_groups, data.skipped)


def _index(name: str, known: Iterable[str], setting: str) -> int:
    names = list(known)
    if name in names:
        return names.index(name)
    forms = [normal_form(own) for own in names]
    if normal_form(name) in forms:
        return forms.index(normal_form(name))
    near = difflib.get_close_matches(cut(name), names, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names[:20])}"
    raise DataError(f"{setting}: {shown(name)} is not in this source; {hint}")


def _limit(split: Split, limit: int | None) -> Split:
    """Keep the first `limit` samples of each class, in the source's order."""
    if limit is None:
        return split
    kept = [np.flatnonzero(split.labels == c)[:limit] for c in np.unique(split.labels)]
    return split.take(np.sort(np.concatenate(kept)))


def _hold_out(split: Split, fraction: float) -> tuple[Split, Split]:
    """Return (rest, held out)."""
    chosen = held_out(split.labels, fraction, setting="dataset.validation")
    return split.take(np.flatnonzero(~chosen)), split.take(np.flatnonzero(chosen))
