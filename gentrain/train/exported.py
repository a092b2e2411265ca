"""A network in a folder of its own, apart from any run folder: weights and JSON, torch.export's program, ONNX.

model.safetensors   weights, by the network's own names
model.json          classes, preprocessing, members, settings, scores and lineage (`Description`)
model.pt2           torch.export's program: images in, scores out; needs torch alone
model.onnx          the same for ONNX runtimes, where onnx and onnxscript are installed
README.md           the model card
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from gentrain.errors import ConfigError, StoreError, cut, first_line
from gentrain.models.mean import WeightedMean
from gentrain.models.registry import build_model
from gentrain.store import disk
from gentrain.store.folder import digest
from gentrain.train.checkpoint import encode_weights, load_weights
from gentrain.train.classifier import Classifier

WEIGHTS, DESCRIPTION, PROGRAM, ONNX = "model.safetensors", "model.json", "model.pt2", "model.onnx"
CARD = "README.md"
ONNX_LIBRARIES = ("onnx", "onnxscript")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Member(_Part):
    """One network of an exported model."""

    key: str
    """Of its generation."""
    generation: int
    network: str
    weight: float
    """Of its probabilities in the ensemble; 1 where it is alone."""


class Ancestor(_Part):
    """One generation of the chain that the model comes from."""

    key: str
    generation: int
    network: str
    task: dict[str, Any]
    """Its loss, and its teacher's key, as spec.json has them."""


class Description(_Part):
    """What model.json holds."""

    format: Literal[1] = 1
    gentrain: str
    """Version that wrote it."""
    study: str
    chain: str
    generation: int
    """Of the last member."""
    ensemble: Literal["mean", "weighted", "selected"] | None
    classes: tuple[str, ...]
    height: int
    width: int
    mean: tuple[float, float, float]
    """Of the training images by channel, in 0..1; std likewise."""
    std: tuple[float, float, float]
    center: float
    """Part of an image's shorter side that is kept of it, before it is resized."""
    preprocessing: bool
    """Whether model.pt2 and model.onnx take uint8 (N, H, W, 3) images, or normalised float32 (N, 3, H, W)."""
    members: tuple[Member, ...]
    lineage: tuple[Ancestor, ...]
    scores: dict[str, float]
    """Of the model on the test split."""
    settings: dict[str, Any]
    """The chain's study."""
    sha256: str
    """Of model.safetensors."""


def write_model(
    folder: Path,
    model: Classifier,
    description: Description,
    *,
    card: Callable[[Collection[str]], str],
    notify: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Write a model into a folder, in place of an earlier one there; return the names of its files.

    Args:
        folder: new, empty, or an earlier model's.
        model: on the CPU.
        description: of it; its checksum is filled in.
        card: returns the model card, from the names of the other files.
        notify: gets a line for a form that can't be written here.

    Raises:
        ConfigError: when the folder holds something else, or can't be written.
    """
    if folder.exists() and not (folder / DESCRIPTION).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: holds something else than a model; choose another folder with --to")
    weights = encode_weights(model.network)
    description = description.model_copy(update={"sha256": digest(weights)})
    programs = _programs(model, preprocessing=description.preprocessing, notify=notify)
    content = (description.model_dump_json(indent=2) + "\n").encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in {PROGRAM, ONNX} - programs.keys():
            (folder / name).unlink(missing_ok=True)
        files = {WEIGHTS: weights, **programs, DESCRIPTION: content}
        files[CARD] = card(tuple(files)).encode()
        for name, file in files.items():
            disk.write_whole(folder, name, file)
    except OSError as error:
        raise ConfigError(f"{folder}: can't be written ({error.strerror}); choose another with --to") from None
    return list(files)


def read_model(folder: Path) -> tuple[Classifier, Description]:
    """Return a model that `write_model` wrote, on the CPU, in eval mode, and its description.

    Raises:
        ConfigError: when the folder holds none, or a network of it can't be built here.
        StoreError: when it is damaged.
    """
    path = folder / DESCRIPTION
    try:
        content, weights = path.read_bytes(), (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; give a folder that gentrain export wrote") from None
    try:
        description = Description.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(
            f"{path}: damaged, or of another version ({cut(where)}: {cut(first['msg'])}); export again"
        ) from None
    if digest(weights) != description.sha256:
        raise StoreError(f"{folder / WEIGHTS}: damaged (checksum differs); export the model again")
    members = description.members
    try:
        networks = [build_model(member.network, num_classes=len(description.classes)) for member in members]
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    network = networks[0] if len(networks) == 1 else WeightedMean(networks, [member.weight for member in members])
    load_weights(network, weights)
    return Classifier(network, data=description), description


def load_model(folder: str | os.PathLike[str]) -> Classifier:
    """Return the model in a folder that `gentrain export` wrote, on the CPU, in eval mode.

    Raises:
        ConfigError: when there is none, or a network of it can't be built here.
        StoreError: when it is damaged.
    """
    return read_model(Path(folder))[0]


def _programs(model: Classifier, *, preprocessing: bool, notify: Callable[[str], None]) -> dict[str, bytes]:
    """Return model.pt2 and model.onnx, each where it can be written here."""
    module: nn.Module = model if preprocessing else model.network
    images = torch.zeros(2, model.height, model.width, 3, dtype=torch.uint8)
    example = images if preprocessing else images.permute(0, 3, 1, 2).float().contiguous()
    batch = ({0: torch.export.Dim("batch", min=1)},)
    try:
        with _quiet():
            program = torch.export.export(module, (example,), dynamic_shapes=batch)
            sink = io.BytesIO()
            torch.export.save(program, sink)
    except Exception as error:  # a network from elsewhere may do what can't be traced, and torch raises anything
        notify(f"{PROGRAM} and {ONNX}: not written, torch.export can't trace the network: {_first(error)}")
        return {}
    missing = [name for name in ONNX_LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        notify(f"{ONNX}: not written, {' and '.join(missing)} not installed: pip install 'gentrain[onnx]'")
        return {PROGRAM: sink.getvalue()}
    try:
        with _quiet():
            onnx = torch.onnx.export(
                program, input_names=["images"], output_names=["scores"], dynamo=True, verbose=False, optimize=True
            )
            content: bytes = onnx.model_proto.SerializeToString()  # type: ignore[union-attr]
    except Exception as error:  # onnxscript raises whatever it has no translation for
        notify(f"{ONNX}: not written: {_first(error)}")
        return {PROGRAM: sink.getvalue()}
    return {PROGRAM: sink.getvalue(), ONNX: content}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's and onnxscript's warnings about their own affairs away."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _first(error: Exception) -> str:
    return cut(first_line(error))
