"""The sections of a study file: which images, networks, recipe and process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gentrain.study.process import DEFAULT_K, LambdaSchedule, Mass, Process, Teacher, eta_for_primary


class Settings(BaseModel):
    """A section of the study file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


Source = Literal["digits", "cifar10", "cifar100", "fashion_mnist", "imagefolder"]
SOURCES: tuple[str, ...] = get_args(Source)
Fraction = Annotated[float, Field(ge=0, lt=1)]


class DatasetConfig(Settings):
    """Which images, and which part of them."""

    source: Source = Field("cifar100", description="`digits` is embedded; the others are read from `path`.")
    path: str | None = Field(
        None, description="Folder of the source: Parquet (Hugging Face layout), torchvision's files, or a class tree."
    )
    classes: tuple[str, ...] | None = Field(None, description="Keep only these classes (names), in this order.")
    groups: tuple[str, ...] | None = Field(None, description="Keep only the classes of these groups (CIFAR-100's 20).")
    limit: int | None = Field(None, ge=1, description="At most this many training, and as many test, images a class.")
    validation: Fraction = Field(0.0, description="Stratified part of the training set that is held out.")
    image_size: int | None = Field(
        None,
        ge=4,
        description="Side in pixels that the network sees, `imagefolder` only (default 32, with `storage: jpeg` 224).",
    )
    storage: Literal["raw", "jpeg"] = Field(
        "raw",
        description="`imagefolder` only. raw: pixels at `image_size`; jpeg: whole pictures, cut while they are read.",
    )
    max_side: int = Field(
        500, ge=16, le=65535, description="`storage: jpeg`: longer side of a stored picture, at most."
    )
    quality: int = Field(90, ge=1, le=100, description="`storage: jpeg`: quality of pictures that are encoded anew.")
    skip_broken: bool = Field(False, description="Skip and list broken pictures instead of refusing them.")

    @model_validator(mode="after")
    def _one_filter(self) -> Self:
        if self.classes is not None and self.groups is not None:
            raise ValueError("give `classes` or `groups`, not both")
        if self.groups is not None and self.source != "cifar100":
            raise ValueError(f"`groups` needs a source with groups (cifar100), not {self.source}")
        if self.storage == "jpeg" and self.source != "imagefolder":
            raise ValueError(f"`storage: jpeg` is for source imagefolder; {self.source} is stored raw")
        if self.image_size is not None and self.source != "imagefolder":
            raise ValueError(f"`image_size` is for source imagefolder; {self.source} has a size of its own")
        return self


def _known_network(name: str) -> str:
    from gentrain.models.registry import check_model_name

    check_model_name(name)
    return name


NetworkName = Annotated[str, AfterValidator(_known_network)]


class NetworkConfig(Settings):
    """The networks of the generations."""

    name: NetworkName = Field(
        "resnet20",
        description="A registered network (resnet20, densenet100, …), torchvision/NAME, or package.module:function.",
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


class GivenConfig(Settings):
    """A network that is there already, as one of a chain's first generations."""

    checkpoint: str = Field(
        min_length=1,
        description="Weights (.safetensors, .pt, .pth), or a generation of the run folder (its key or folder).",
    )
    network: NetworkName | None = Field(None, description="Its network; default: `network.name`.")
    key: str | None = Field(None, description="Where in a .pt file the weights are, such as `ema_state_dict`.")


Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class PicturesConfig(Settings):
    """Augmentation of pictures of any size (`dataset.storage: jpeg`), in place of `pad`."""

    scale: Range = Field((0.08, 1.0), description="Area of the random resized crop, as parts of the picture.")
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


class RecipeConfig(Settings):
    """How one generation is optimised (METHOD.md's CIFAR ResNet recipe by default)."""

    epochs: int = Field(164, ge=1, description="Passes over the training set.")
    batch_size: int = Field(128, ge=2, description="Global batch, split among the workers.")
    learning_rate: float = Field(0.1, gt=0, description="Base learning rate of SGD.")
    milestones: tuple[int, ...] = Field((82, 123), description="Epochs after which the learning rate falls.")
    decay: float = Field(0.1, gt=0, le=1, description="Factor of the learning rate at each milestone.")
    warmup_epochs: int = Field(0, ge=0, description="Epochs of linear warm-up, step by step, from 0.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    nesterov: bool = Field(True, description="Nesterov momentum.")
    weight_decay: float = Field(1e-4, ge=0, description="L2 weight decay on every parameter.")
    pad: int = Field(4, ge=0, description="Zero padding on each side before the random crop.")
    flip: bool = Field(True, description="Mirror each training image with probability 1/2.")
    pictures: PicturesConfig | None = Field(
        None, description="Augmentation for `dataset.storage: jpeg`; `{}` takes the defaults (those of ILSVRC2012)."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)) or any(m < 1 for m in self.milestones):
            raise ValueError(f"`milestones` must be rising epochs from 1, not {list(self.milestones)}")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"`warmup_epochs` ({self.warmup_epochs}) must be fewer than `epochs` ({self.epochs})")
        if self.nesterov and self.momentum == 0:
            raise ValueError("`nesterov: true` needs `momentum` above 0; set `nesterov: false`")
        return self


class LambdaConfig(Settings):
    """λ by generation as a curve between two ends (`process.LambdaSchedule`)."""

    schedule: Literal["linear", "cosine"] = Field(description="linear: equal steps; cosine: slow at both ends.")
    start: float = Field(alias="from", gt=0, le=1, description="λ of the first student.")
    end: float = Field(alias="to", gt=0, le=1, description="λ of the last student.")


class MassConfig(Settings):
    """K by sample or by class (`losses.adaptive_patriarch_loss`)."""

    mass: float = Field(gt=0, lt=1, description="Score that the K largest must reach together.")
    by: Literal["sample", "class"] = Field(
        "sample", description="sample: each sample's own scores; class: means over its class in a worker's batch."
    )
    most: int = Field(20, ge=2, description="The largest K; never more than there are classes.")


_Section = TypeVar("_Section", bound=Settings)


def _section(kind: type[_Section], value: object) -> _Section:
    """Return a mapping as a section; what is wrong with it in one line, as pydantic tells it for every alternative."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        valid = ", ".join(field.alias or name for name, field in kind.model_fields.items())
        told = []
        for problem in error.errors():
            key = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                told.append(f"{key}: unknown key; valid keys here: {valid}")
            else:
                told.append(f"{key}: {problem['msg'][:1].lower()}{problem['msg'][1:]}")
        raise ValueError("; ".join(told)) from None


def _weights(value: object) -> object:
    """Check a λ, or one for each student: 0 has no use for a teacher, so only a chain without students may say it."""
    if isinstance(value, Mapping | LambdaConfig):
        return _section(LambdaConfig, value)
    several = isinstance(value, list | tuple)
    for weight in value if several else [value]:  # type: ignore[attr-defined]
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight <= 1 or (several and weight == 0):
            raise ValueError("must be a number from 0 to 1, or a list of such above 0, one for each student")
    return tuple(value) if several else value  # type: ignore[arg-type]


def _classes(value: object) -> object:
    """Check a K, or how it is found."""
    if isinstance(value, Mapping | MassConfig):
        return _section(MassConfig, value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be an integer from 2, or a mapping such as {mass: 0.95, by: sample, most: 20}")  # noqa: TRY004
    if value < 2:
        raise ValueError("input should be greater than or equal to 2")
    return value


class ProcessConfig(Settings):
    """D(f_a1, λ): how tolerant the patriarch is, and how much of it the students keep."""

    f_a1: float = Field(0.6, description="Aim of the patriarch's primary score, in (1/K, 1]; 1.0 is cross-entropy.")
    lam: Annotated[float | tuple[float, ...] | LambdaConfig, BeforeValidator(_weights)] = Field(
        0.6,
        alias="lambda",
        description="Weight of the teacher in a student's loss; by generation: a list, or `{schedule, from, to}`.",
    )
    k: Annotated[int | MassConfig, BeforeValidator(_classes)] = Field(
        DEFAULT_K,
        description="K: the primary class and its K-1 secondary classes, 2 or more; or by score, `{mass, by, most}`.",
    )
    temperature: float = Field(1.0, gt=0, description="Softening of both softmaxes in the KL term (the paper: 1).")
    teacher: Teacher = Field(
        "previous", description="Whom a student learns from: the generation before it, or the mean of all before it."
    )

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if not isinstance(self.k, MassConfig):
            eta_for_primary(self.f_a1, k=self.k)
        elif not 1 / 2 < self.f_a1 <= 1:
            raise ValueError(
                f"f_a1 is {self.f_a1}; with k by mass, which may be as small as 2, it must lie above 1/2 and be at "
                "most 1; raise f_a1 or give k as a number"
            )
        return self

    @property
    def most_classes(self) -> int:
        """Classes that there must be."""
        return 2 if isinstance(self.k, MassConfig) else self.k

    @property
    def process(self) -> Process:
        """The process that these settings say."""
        lam, k = self.lam, self.k
        return Process(
            f_a1=self.f_a1,
            lam=LambdaSchedule(lam.schedule, lam.start, lam.end) if isinstance(lam, LambdaConfig) else lam,
            k=Mass(k.mass, k.by, k.most) if isinstance(k, MassConfig) else k,
            temperature=self.temperature,
            teacher=self.teacher,
        )
