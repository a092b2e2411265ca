"""Read a source of the user's own: a function by its import path, such as mydata:read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gentrain.data.sources.formats import SourceData, Split
from gentrain.errors import DataError, cut, first_line, shown
from gentrain.models.registry import import_module
from gentrain.study.sections import DatasetConfig, imported


def read_imported(config: DatasetConfig) -> SourceData:
    """Return what the function returns that the section's `source` names; it is called with the section.

    Raises:
        DataError: when it can't be imported, fails, or returns something else than images, labels and classes.
    """
    function = _function(config.source)
    try:
        data = function(config)
    except Exception as error:  # a function of the user's own raises whatever it likes
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"dataset.source: {config.source} fails: {type(error).__name__}: {cut(first_line(error))}"
        ) from error
    if (problem := _problem(data)) is not None:
        raise DataError(f"dataset.source: {config.source} must return gentrain.SourceData: {problem}")
    return SourceData(dict(data.splits), tuple(data.classes), data.groups, data.class_groups, tuple(data.skipped))


def code_digest(source: str) -> str | None:
    """Return the sha256 of the file that an own source's function is in; None of other sources, and in a notebook.

    Raises:
        DataError: when its module can't be imported.
    """
    if not imported(source):
        return None
    file = getattr(_module(source), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


def _module(source: str) -> Any:
    try:
        return import_module(source.partition(":")[0], what="dataset.source")
    except ValueError as error:
        raise DataError(f"{error}; its module may lie beside the study file") from None


def _function(source: str) -> Callable[[DatasetConfig], Any]:
    module, name = _module(source), source.partition(":")[2]
    function = getattr(module, name, None)
    if not callable(function):
        raise DataError(f"dataset.source: {cut(module.__name__)} has no function {shown(name)}")
    own: Callable[[DatasetConfig], Any] = function
    return own


def _problem(data: Any) -> str | None:
    """Return what is wrong with what a source has returned; None where it is as it must be."""
    if not isinstance(data, SourceData):
        return f"it returned {cut(type(data).__name__)}"
    if data.splits.keys() != {"train", "test"}:
        names = ", ".join(map(shown, data.splits)) or "none"
        return f"its splits must be train and test, not {names} (dataset.validation holds out a part of train)"
    if not all(isinstance(name, str) for name in data.classes):
        return "its classes must be texts"
    wrong = {name: _wrong(split, classes=len(data.classes)) for name, split in data.splits.items()}
    lines = [f"{name}: {problem}" for name, problem in wrong.items() if problem is not None]
    if not lines and len({split.images.shape[1:] for split in data.splits.values()}) > 1:
        lines = ["train and test images differ in size"]
    return lines[0] if lines else None


def _wrong(split: Any, *, classes: int) -> str | None:
    """Return what is wrong with a split: images (N, H, W, 3) uint8, labels (N,) of whole numbers below `classes`."""
    if (
        not isinstance(split, Split)
        or not isinstance(split.images, np.ndarray)
        or not isinstance(split.labels, np.ndarray)
    ):
        return "must be gentrain.Split of two NumPy arrays"
    images, labels = split.images, split.labels
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        return f"images are {images.dtype} of shape {images.shape}, not uint8 (N, H, W, 3)"
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        return f"labels are {labels.dtype} of shape {labels.shape}, not whole numbers ({len(images)},)"
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        return f"labels go from {labels.min()} to {labels.max()}, with {classes} classes"
    return None
