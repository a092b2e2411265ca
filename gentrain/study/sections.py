"""The sections of a study file: which images, networks and recipe (the process: `gentrain.study.process`)."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, ValidationInfo, WithJsonSchema, model_validator

from gentrain.errors import shown
from gentrain.study.settings import Later, Settings, Stored

BuiltIn = Literal["digits", "cifar10", "cifar100", "fashion_mnist", "imagefolder"]
SOURCES: tuple[str, ...] = get_args(BuiltIn)
IMPORT_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""package.module:function."""
MOST = 2**31 - 1
"""Largest count; larger ones don't fit what a study is made of (labels, seeds, columns of results)."""


def imported(source: str) -> bool:
    """Return whether a source is a function of the user's own."""
    return re.fullmatch(IMPORT_PATH, source) is not None


def _known_source(source: str) -> str:
    if source not in SOURCES and not imported(source):
        known = ", ".join(map(repr, SOURCES))
        raise ValueError(f"input should be {known} or package.module:function")
    return source


Source = Annotated[
    str,
    AfterValidator(_known_source),
    WithJsonSchema({"anyOf": [{"enum": list(SOURCES), "type": "string"}, {"pattern": IMPORT_PATH, "type": "string"}]}),
]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class DatasetConfig(Settings):
    """Which images, and which part of them."""

    source: Source = Field(
        "cifar100",
        description="`digits` is embedded; the others are read from `path`; or package.module:function of yours "
        "(docs/sources.md).",
    )
    path: str | None = Field(
        None,
        description="Folder of the source, relative to the study file: Parquet (Hugging Face layout), torchvision's "
        "files, or a class tree.",
    )
    classes: tuple[str, ...] | None = Field(None, description="Keep only these classes (names), in this order.")
    groups: tuple[str, ...] | None = Field(None, description="Keep only the classes of these groups (CIFAR-100's 20).")
    limit: int | None = Field(
        None, ge=1, le=MOST, description="At most this many training, and as many test, images a class."
    )
    validation: Fraction = Field(0.0, description="Stratified part of the training set that is held out.")
    test: Annotated[float | None, Later(None)] = Field(
        None,
        gt=0,
        lt=1,
        description="`imagefolder` without test images: part of each class that they become, by a fixed seed, such as "
        "0.2; the class folders may lie in `path` itself.",
    )
    image_size: int | None = Field(
        None,
        ge=4,
        le=8192,
        description="Side in pixels that the network sees, `imagefolder` only (default 32, with `storage: jpeg` 224).",
    )
    storage: Annotated[Literal["raw", "jpeg"], Later("raw")] = Field(
        "raw",
        description="`imagefolder` only. raw: pixels at `image_size`; jpeg: whole images, cropped while they are read.",
    )
    max_side: Annotated[int, Later("raw", of="storage")] = Field(
        500, ge=16, le=65535, description="`storage: jpeg`: longer side of a stored image in pixels, at most."
    )
    quality: Annotated[int, Later("raw", of="storage")] = Field(
        90, ge=1, le=100, description="`storage: jpeg`: JPEG quality of images that are scaled or converted."
    )
    skip_broken: bool = Field(False, description="Skip and list broken images instead of refusing them.")

    @model_validator(mode="after")
    def _one_filter(self) -> Self:
        if self.classes is not None and self.groups is not None:
            raise ValueError("give `classes` or `groups`, not both")
        if self.groups is not None and self.source != "cifar100" and not imported(self.source):
            raise ValueError(f"`groups` needs a source with groups (cifar100), not {self.source}")
        if self.storage == "jpeg" and self.source != "imagefolder":
            raise ValueError(f"`storage: jpeg` is for source imagefolder; {self.source} is stored raw")
        if self.test is not None and self.source != "imagefolder":
            raise ValueError(f"`test` is for source imagefolder; {self.source} has its test images")
        if self.image_size is not None and self.source != "imagefolder":
            raise ValueError(f"`image_size` is for source imagefolder; {self.source} has a size of its own")
        return self


RECORDED = "recorded"
"""Context of the validation of a study that was run before: it is read where its networks can't be imported, too."""


def known_network(name: str, *, importing: bool = True) -> str:
    """Return the name of a network that can be built.

    Args:
        name: of the network.
        importing: whether a function elsewhere is imported; else its name must only have the form.

    Raises:
        ValueError: for any other name, with the nearest known ones.
    """
    from gentrain.models.registry import check_model_name

    check_model_name(name, importing=importing)
    return name


def _valid_network(name: str, info: ValidationInfo) -> str:
    return known_network(name, importing=info.context != RECORDED)


NetworkName = Annotated[str, AfterValidator(_valid_network)]


class NetworkConfig(Settings):
    """The networks of the generations."""

    name: NetworkName = Field(
        "resnet20",
        description="A registered network (resnet20, densenet100, …), torchvision/NAME, or package.module:function, "
        "whose module may lie beside the study file.",
    )
    students: NetworkName | None = Field(
        None, description="Network of the students, which may be smaller than the patriarch's; default: the same."
    )
    memory_efficient: bool = Field(
        False, description="DenseNets: compute bottlenecks again in the backward pass; the same bits, less memory."
    )

    def of(self, generation: int) -> str:
        """Return the name of a generation's network."""
        return self.students if generation and self.students else self.name


class PretrainedConfig(Settings):
    """A pretrained network, as one of a chain's first generations."""

    checkpoint: str = Field(
        min_length=1,
        description="Weights (.safetensors, .pt, .pth), or a generation of the run folder (its key or folder).",
    )
    network: NetworkName | None = Field(None, description="Its network; default: `network.name`.")
    key: str | None = Field(None, description="Where in a .pt file the weights are, such as `ema_state_dict`.")


Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class ImagesConfig(Settings):
    """Augmentation of images of any size (`dataset.storage: jpeg`), in place of `padding`."""

    scale: Range = Field((0.08, 1.0), description="Area of the random resized crop, as parts of the image.")
    ratio: Range = Field((3 / 4, 4 / 3), description="Its aspect ratios.")
    rotation: float = Field(10.0, ge=0, le=180, description="Largest random rotation to either side, in degrees.")
    jitter: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.4, description="Brightness, contrast and saturation vary by factors of 1 ± this."
    )
    center: float = Field(0.875, gt=0, le=1, description="Test: part of the shorter side that the central crop keeps.")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if low > high or (name == "scale" and high > 1):
                raise ValueError(f"`{name}` must rise, and `scale` not exceed 1: got {low}, {high}")
        return self


class EMAConfig(Settings):
    """The exponential moving average of the weights, step by step, and what it is for."""

    decay: float = Field(0.999, ge=0, lt=1, description="d of w̄ ← d·w̄ + (1-d)·w after every step.")
    role: Annotated[Literal["result", "teacher"], Stored("as")] = Field(
        "result",
        alias="as",
        description="result: it is the generation's network; teacher: it teaches the next generation, and the network "
        "is the one that was trained.",
    )


class RecipeConfig(Settings):
    """How one generation is optimised (METHOD.md's CIFAR ResNet recipe by default)."""

    epochs: int = Field(164, ge=1, le=1_000_000, description="Passes over the training set.")
    batch_size: int = Field(128, ge=2, le=1 << 20, description="Global batch, split among the workers.")
    learning_rate: float = Field(0.1, gt=0, description="Base learning rate.")
    schedule: Annotated[Literal["milestones", "cosine"], Later("milestones", written=False)] = Field(
        "milestones",
        description="milestones: falls by `decay` at each; cosine: falls along half a cosine to 0, without milestones.",
    )
    milestones: tuple[Annotated[int, Field(le=MOST)], ...] = Field(
        (82, 123), description="Epochs after which the learning rate falls."
    )
    cycles: Annotated[int, Later(1, written=False)] = Field(
        1, ge=1, le=1000, description="cosine: so many equal parts of the epochs, each with a whole half cosine."
    )
    decay: float = Field(0.1, gt=0, le=1, description="Factor of the learning rate at each milestone.")
    warmup_epochs: int = Field(0, ge=0, le=1_000_000, description="Epochs of linear warm-up, step by step, from 0.")
    optimizer: Annotated[Literal["sgd", "adamw"], Later("sgd", written=False)] = Field(
        "sgd", description="adamw: Adam with decoupled weight decay; its usual `learning_rate` is 0.001."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; β1 of AdamW.")
    beta2: Annotated[float, Later("sgd", of="optimizer", written=False)] = Field(
        0.999, ge=0, lt=1, description="AdamW only: β2, of the mean of squared gradients."
    )
    nesterov: bool = Field(True, description="Nesterov momentum; SGD only.")
    weight_decay: float = Field(1e-4, ge=0, description="L2 weight decay on every parameter; decoupled in AdamW.")
    label_smoothing: Annotated[float, Later(0.0, written=False)] = Field(
        0.0,
        ge=0,
        lt=1,
        description="ε of students: their cross-entropy has labels (1-ε)·y + ε/C. Patriarchs: `process.patriarch`.",
    )
    mixup: Annotated[float, Later(0.0, written=False)] = Field(
        0.0,
        ge=0,
        le=100,
        description="α of mixup, such as 0.2: pairs of images are averaged, the same for teacher and student; 0: none.",
    )
    cutmix: Annotated[float, Later(0.0, written=False)] = Field(
        0.0,
        ge=0,
        le=100,
        description="α of CutMix, such as 1: a box of another image; with `mixup`, each image draws one of both.",
    )
    clip_gradients: Annotated[float | None, Later(None)] = Field(
        None,
        gt=0,
        description="Scale a step's gradients down to this norm, over all parameters, where theirs is larger.",
    )
    ema: Annotated[EMAConfig | None, Later(None, written=False)] = Field(
        None, description="Exponential moving average of the weights: `{decay: 0.999, as: result}`."
    )
    on_divergence: Annotated[Literal["stop", "rollback"], Later("stop")] = Field(
        "stop",
        description="Where a loss, weight or prediction isn't finite. rollback: go back to the last checkpoint and on "
        "with half the learning rate, three times at most.",
    )
    padding: Annotated[int, Stored("pad")] = Field(
        4, ge=0, le=8192, description="Zero padding in pixels on each side before the random crop."
    )
    flip: bool = Field(True, description="Mirror each training image with probability 1/2.")
    images: Annotated[ImagesConfig | None, Stored("pictures"), Later(None)] = Field(
        None, description="Augmentation for `dataset.storage: jpeg`; `{}` takes the defaults (those of ILSVRC2012)."
    )

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others."""
        return bool(self.mixup or self.cutmix)

    @property
    def result_as_trained(self) -> bool:
        """Whether the scores of training are the result's: no images are mixed, and it is no average of weights."""
        return not self.mixes and (self.ema is None or self.ema.role != "result")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)) or any(m < 1 for m in self.milestones):
            raise ValueError(f"`milestones` must be rising epochs from 1, not {shown(list(self.milestones))}")
        if self.cycles > 1 and self.schedule != "cosine":
            raise ValueError(f"`cycles` ({self.cycles}) needs `schedule: cosine`")
        if self.cycles > 1 and (self.epochs % self.cycles or self.warmup_epochs >= self.epochs // self.cycles):
            raise ValueError(
                f"`cycles` ({self.cycles}) must divide `epochs` ({self.epochs}) into parts that are longer than "
                f"`warmup_epochs` ({self.warmup_epochs})"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"`warmup_epochs` ({self.warmup_epochs}) must be fewer than `epochs` ({self.epochs})")
        if self.nesterov and self.momentum == 0:
            raise ValueError("`nesterov: true` needs `momentum` above 0; set `nesterov: false`")
        return self
