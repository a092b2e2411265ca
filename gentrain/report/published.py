"""Hold the paper's printed results and settings, for comparison. Errors are per cent; None is a dash in the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gentrain.study.losses import KL, ScoreDifference
from gentrain.study.process import DEFAULT_K
from gentrain.study.schema import Study
from gentrain.study.sections import ImagesConfig, RecipeConfig

Measure = Literal["top1_error", "top5_error"]
Figures = tuple[float | None, ...]

ILSVRC_CLASSES = 1000
TRAINING_IMAGES = {"cifar100": 50_000, "imagefolder": 1_281_167}
CIFAR_DENSENETS = RecipeConfig(epochs=300, batch_size=64, milestones=(150, 225))
ILSVRC2012 = RecipeConfig(
    epochs=100, batch_size=1024, learning_rate=0.6, milestones=(30, 60, 90), padding=0, images=ImagesConfig()
)
PAPER_RESNETS = {f"resnet{depth}" for depth in (20, 32, 44, 56, 74, 92, 110)}


@dataclass(frozen=True)
class PublishedRow:
    """Hold one row of table 1 or 2: a process on one network, alone or with the running ensemble."""

    table: str
    source: str
    network: str
    f_a1: float
    lam: float
    ensemble: bool
    errors: Mapping[Measure, Figures]
    """By generation, from generation 0."""

    @property
    def label(self) -> str:
        """Return the process as written in chain names."""
        return f"D({self.f_a1},{self.lam})"

    @property
    def baseline(self) -> bool:
        """Return whether this is plain cross-entropy training, without students."""
        return self.f_a1 == 1.0

    def at(self, measure: Measure, generation: int) -> float | None:
        """Return a generation's printed error in per cent; None where the paper has none."""
        figures = self.errors.get(measure, ())
        return figures[generation] if generation < len(figures) else None


def _row(network: str, process: tuple[float, float], *top1: float | None, ensemble: bool = False) -> PublishedRow:
    return PublishedRow("table 1", "cifar100", network, *process, ensemble, {"top1_error": top1})


def _ilsvrc(process: tuple[float, float], *, top1: Figures, top5: Figures, ensemble: bool = False) -> PublishedRow:
    errors: dict[Measure, Figures] = {"top1_error": top1, "top5_error": top5}
    return PublishedRow("table 2", "imagefolder", "resnet18", *process, ensemble, errors)


BASELINE_NOTES = {
    "table 1": "Baselines: the paper takes table 1's from a website (github.com/bearpaw/pytorch-classification); "
    "its own reimplementation, it says, reports slightly worse numbers."
}
"""What the paper says of where a table's baselines come from."""
BASELINE, SIX, SEVEN = (1.0, 0.0), (0.6, 0.6), (0.6, 0.7)
PUBLISHED = (
    _row("densenet100", BASELINE, 22.88),
    _row("densenet100", SIX, 23.96, 21.29, 20.51, 20.83, 21.01, 21.27),
    _row("densenet100", SIX, None, 20.22, 18.29, 17.62, 17.32, 17.05, ensemble=True),
    _row("densenet100", SEVEN, 23.96, 21.72, 20.77, 21.02, 21.47, 21.61),
    _row("densenet100", SEVEN, None, 20.57, 19.19, 18.63, 17.94, 17.42, ensemble=True),
    _row("densenet190", BASELINE, 17.17),
    _row("densenet190", SIX, 18.87, 17.42, 17.26, 17.13, 17.24, 17.01),
    _row("densenet190", SIX, None, 16.64, 16.00, 15.41, 15.24, 15.11, ensemble=True),
    _row("densenet190", SEVEN, 18.87, 17.81, 17.55, 17.51, 17.37, 17.50),
    _row("densenet190", SEVEN, None, 16.91, 16.12, 15.72, 15.15, 14.85, ensemble=True),
    _ilsvrc(BASELINE, top1=(30.50,), top5=(11.07,)),
    _ilsvrc(
        SIX, top1=(32.52, 30.28, 30.12, 29.92, 29.77, 29.60), top5=(11.23, 10.23, 10.15, 10.25, 10.19, 10.11)
    ),
    _ilsvrc(
        SIX, top1=(None, 30.01, 28.94, 28.51, 28.23, 28.08), top5=(None, 9.98, 9.53, 9.36, 9.28, 9.23), ensemble=True
    ),
)  # fmt: skip


def published_rows(source: str, network: str) -> tuple[PublishedRow, ...]:
    """Return the paper's rows for a source and a network; none where it prints no numbers for them."""
    return tuple(row for row in PUBLISHED if (row.source, row.network) == (source, network))


def paper_recipe(source: str, network: str) -> RecipeConfig | None:
    """Return the paper's recipe for a network on a source; None where the paper doesn't train it."""
    if source == "cifar100" and network in PAPER_RESNETS:
        return RecipeConfig()
    if source == "cifar100" and network in {"densenet100", "densenet190"}:
        return CIFAR_DENSENETS
    return ILSVRC2012 if source == "imagefolder" and network == "resnet18" else None


def deviations(study: Study, *, num_classes: int | None, images: int | None = None) -> tuple[str, ...]:
    """Return the settings of a chain that differ from the paper's, each as `setting is ours (the paper: theirs)`.

    Args:
        study: settings of one chain, on a source and network of the paper (see `paper_recipe`).
        num_classes: classes of the prepared dataset; None where it isn't known.
        images: images of its training set; None where it isn't known.
    """
    recipe = paper_recipe(study.dataset.source, study.network.name)
    if recipe is None:
        return (f"network {study.network.name} on {study.dataset.source} (not in the paper)",)
    ours, theirs = study.recipe.model_dump(), recipe.model_dump()
    augmented = [recipe.pop("images") is not None for recipe in (ours, theirs)]  # the paper gives no numbers for it
    differences = [
        f"recipe.{name} is {_shown(ours[name])} (the paper: {_shown(theirs[name])})"
        for name in ours
        if ours[name] != theirs[name]
    ]
    if augmented[0] != augmented[1]:
        ours_set, theirs_set = ("set" if present else "not set" for present in augmented)
        differences.append(f"recipe.images is {ours_set} (the paper: {theirs_set})")
    data = study.dataset
    if data.classes or data.groups:
        differences.append("a subset of the classes (the paper: all)")
    if data.limit:
        differences.append(f"at most {data.limit:,} images a class (the paper: all)")
    if data.validation:
        differences.append(f"dataset.validation is {data.validation:g} (the paper trains on all images)")
    elif images is not None and images != TRAINING_IMAGES[data.source] and not data.limit:
        differences.append(f"{images:,} training images (the paper: {TRAINING_IMAGES[data.source]:,})")
    if data.source == "imagefolder" and num_classes != ILSVRC_CLASSES:
        count = "an unknown number of" if num_classes is None else f"{num_classes:,}"
        differences.append(f"{count} classes (ILSVRC2012: {ILSVRC_CLASSES:,})")
    if data.source == "imagefolder" and data.image_size not in (None, 224):
        differences.append(f"dataset.image_size is {data.image_size} (the paper: 224)")
    if study.network.students not in (None, study.network.name):
        differences.append(f"network.students is {study.network.students} (the paper: as the patriarch)")
    return tuple(differences + _process_deviations(study))


def _process_deviations(study: Study) -> list[str]:
    differences: list[str] = []
    process = study.process
    if process.k != DEFAULT_K:
        k = str(process.k) if isinstance(process.k, int) else f"by {process.k.by}, up to a score of {process.k.top_p:g}"
        differences.append(f"process.k is {k} (the paper: {DEFAULT_K})")
    if process.temperature != 1:
        differences.append(f"process.temperature is {process.temperature:g} (the paper: 1)")
    if not isinstance(process.patriarch, ScoreDifference):
        differences.append(f"process.patriarch is {process.patriarch.name} (the paper: score_difference)")
    if not isinstance(process.student, KL):
        differences.append(f"process.student is {process.student.label} (the paper: kl)")
    if process.teacher != "previous":
        differences.append(f"process.teacher is {process.teacher} (the paper: previous)")
    if process.last:
        differences.append(f"process.last is {process.last.label.removeprefix('last-')} (the paper: as the others)")
    if study.pretrained:
        differences.append("the first generations are pretrained networks")
    return differences


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
