"""Write a first study of a folder of images: commented, with a recipe that suits how many and how large they are."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass

from gentrain.errors import printable
from gentrain.study.json_schema import schema_line

RAW_SIDE = 96
"""Images whose median shorter side is at most this are stored as pixels, larger ones as whole JPEGs."""
SMALL_SIDE = 40
FEW, SOME, MANY = 500, 2_000, 20_000
"""Training images up to which a recipe is one for few, some or many."""
SMOKE_LIMIT = 8
_PLAIN = re.compile(r"(\.{0,2}/)*[A-Za-z][\w./-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
"""Texts that some version of YAML takes for something else."""


@dataclass(frozen=True)
class Images:
    """What a recipe depends on."""

    classes: int
    train: tuple[int, ...]
    """Training images of each class."""
    test: int
    sides: tuple[int, int, int]
    """Smallest, median and largest shorter side in pixels."""
    test_part: float | None = None
    """Part of each class that becomes test images, where there are none."""
    broken: int = 0

    @property
    def count(self) -> int:
        """Training images."""
        return sum(self.train)


@dataclass(frozen=True)
class Recipe:
    """What suits some images."""

    storage: str
    image_size: int
    network: str
    epochs: int
    batch_size: int
    learning_rate: float


def suit(images: Images) -> Recipe:
    """Return a recipe for images by their number and size: fewer images take smaller networks, more epochs."""
    count, side = images.count, images.sides[1]
    raw = side <= RAW_SIDE
    if raw:
        size = max(8, round(side / 4) * 4)
        network = "resnet8" if count < SOME and side <= SMALL_SIDE else "resnet20"
    else:
        size = min(64 if count < SOME else 128 if count < MANY else 224, side // 32 * 32)
        network = "resnet20" if count < SOME else "resnet18"
    batch = 16 if count < FEW else 32 if count < SOME else 64 if count < MANY else 128
    return Recipe(
        storage="raw" if raw else "jpeg",
        image_size=size,
        network=network,
        epochs=100 if count < FEW else 60 if count < SOME else 40 if count < MANY else 30,
        batch_size=_fitting(batch, count),
        learning_rate=0.1 if batch >= 64 else 0.05,
    )


def _fitting(batch: int, count: int) -> int:
    """Return the largest even batch, up to `batch`, whose last one isn't a single image: BatchNorm needs two."""
    return next(size for size in range(batch, 1, -2) if count % size != 1 or size == 2)


def study_text(name: str, path: str, images: Images, *, file: str, schema: str) -> str:
    """Return the content of a study file.

    Args:
        name: of the study.
        path: of the images' folder, relative to the file.
        images: that the study is of.
        file: how a person names the study's file.
        schema: path or URL of the JSON Schema, for editors.
    """
    recipe, file = suit(images), printable(shlex.quote(file))
    smallest, median, largest = images.sides
    raw = recipe.storage == "raw"
    smoke = sum(min(count, SMOKE_LIMIT) for count in images.train)
    stored = (
        "small images: stored as pixels, resized once"
        if raw
        else "large images: stored whole, cropped while they are read"
    )
    lines = [
        f"# {images.classes:,} classes, {images.count:,} training and {images.test:,} test images. "
        "Every key is explained in docs/study.md.",
        f"# In a minute, to see that it works: gentrain chain {file} --smoke",
        f"# What it costs: gentrain plan {file} --measure",
        f"# Run: gentrain chain {file}",
        f"name: {_scalar(name)}",
        "dataset:",
        "  source: imagefolder",
        _line(f"  path: {_scalar(path)}", "relative to this file"),
        *_if(images.test_part is not None, f"  test: {images.test_part}", "of each class, by a fixed seed"),
        _line(f"  storage: {recipe.storage}", stored),
        _line(f"  image_size: {recipe.image_size}", f"shorter sides: {smallest:,} to {largest:,}, median {median:,}"),
        *_if(not raw, f"  max_side: {_max_side(recipe.image_size)}", "longer side of a stored image at most"),
        *_if(images.broken > 0, "  skip_broken: true", f"{images.broken:,} can't be read"),
        "network:",
        _line(f"  name: {recipe.network}", "gentrain networks lists others"),
        "recipe:",
        _line(f"  epochs: {recipe.epochs}", "more images need fewer"),
        f"  batch_size: {recipe.batch_size}",
        f"  learning_rate: {recipe.learning_rate}",
        _line("  schedule: cosine", "down to 0"),
        _line("  flip: true", "false where a mirror image is none of its class: digits, letters"),
        *_augmentation(recipe),
        _line("process:", "D(f_a1, lambda) of the paper"),
        _line("  f_a1: 0.6", "the patriarch's aim: 1.0 is plain cross-entropy"),
        _line("  lambda: 0.6", "weight of the teacher in a student's loss"),
        *_if(images.classes < 5, f"  k: {min(5, images.classes)}", "at most the number of classes"),
        _line("generations: 2", "students after the patriarch"),
        _line("precision: fp32", "bf16 is faster on GPUs and CPUs with AMX: gentrain doctor"),
        _line("smoke:", "what --smoke changes"),
        f"  dataset.limit: {SMOKE_LIMIT}",
        "  recipe.epochs: 1",
        f"  recipe.batch_size: {_fitting(16, smoke)}",
        "  generations: 1",
    ]
    return schema_line(schema) + "\n".join(lines) + "\n"


def study_name(folder: str) -> str:
    """Return a folder's name as the name of a study."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder).strip("-._")[:60] or "images"


def _augmentation(recipe: Recipe) -> list[str]:
    if recipe.storage == "raw":
        return [_line(f"  padding: {max(1, recipe.image_size // 8)}", "pixels on each side before the random crop")]
    return [
        "  padding: 0",
        _line("  images:", "augmentation of whole images"),
        _line("    scale: [0.35, 1.0]", "area of the random crop, as parts of the image"),
        _line("    rotation: 10", "degrees at most"),
        _line("    jitter: 0.2", "of brightness, contrast and saturation"),
    ]


def _max_side(image_size: int) -> int:
    return min(500, image_size * 9 // 4)


def _if(wanted: bool, setting: str, comment: str) -> list[str]:
    return [_line(setting, comment)] if wanted else []


def _line(setting: str, comment: str) -> str:
    return f"{setting:<26} # {comment}"


def _scalar(text: str) -> str:
    """Return a text as YAML writes it on one line."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else json.dumps(text, ensure_ascii=False)
