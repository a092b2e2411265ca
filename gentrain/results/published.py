"""Hold printed results and settings of the paper, and of other methods' papers, for comparison.

Errors are per cent; None is a dash in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gentrain.study.losses import DIST, DKD, KL, ScoreDifference
from gentrain.study.process import DEFAULT_K, Process
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
DISTILLATION = RecipeConfig(
    epochs=240, batch_size=64, learning_rate=0.05, milestones=(150, 180, 210), weight_decay=5e-4, nesterov=False
)
"""Common to papers on distillation to small networks on CIFAR-100 (github.com/megvii-research/mdistiller)."""
PAPER_RESNETS = {f"resnet{depth}" for depth in (20, 32, 44, 56, 74, 92, 110)}


@dataclass(frozen=True)
class PublishedRow:
    """Hold one printed row: a process on one network, alone or with the running ensemble."""

    table: str
    """Where it is printed, as in "paper: its table 1"."""
    source: str
    network: str
    """As in the report: `patriarch → students` where the students use another network."""
    process: Process
    ensemble: bool
    errors: Mapping[Measure, Figures]
    """By generation, from generation 0."""

    @property
    def label(self) -> str:
        """Return the process as written in chain names."""
        return self.process.label

    @property
    def baseline(self) -> bool:
        """Return whether this is plain cross-entropy training, without students."""
        return self.process.eta == 0 and self.process.lam == 0

    def at(self, measure: Measure, generation: int) -> float | None:
        """Return a generation's printed error in per cent; None where the paper has none."""
        figures = self.errors.get(measure, ())
        return figures[generation] if generation < len(figures) else None


def _row(network: str, process: tuple[float, float], *top1: float | None, ensemble: bool = False) -> PublishedRow:
    return PublishedRow(TABLE_1, "cifar100", network, _process(process), ensemble, {"top1_error": top1})


def _ilsvrc(process: tuple[float, float], *, top1: Figures, top5: Figures, ensemble: bool = False) -> PublishedRow:
    errors: dict[Measure, Figures] = {"top1_error": top1, "top5_error": top5}
    return PublishedRow("its table 2", "imagefolder", "resnet18", _process(process), ensemble, errors)


def _process(process: tuple[float, float]) -> Process:
    return Process(f_a1=process[0], lam=process[1])


def _method(table: str, process: Process, accuracy: float) -> PublishedRow:
    """Return the row of a method that teaches ResNet-20 by ResNet-56, which has a top-1 accuracy of 72.34 %."""
    errors = tuple(round(100 - of, 2) for of in (RESNET56, accuracy))
    return PublishedRow(table, "cifar100", METHODS_NETWORK, process, ensemble=False, errors={"top1_error": errors})


TABLE_1 = "its table 1"
PLAIN_TABLE = "Tian et al., ICLR 2020 (plain, KD)"
TABLE_NOTES = {
    TABLE_1: "Baselines: the paper takes table 1's from a website (github.com/bearpaw/pytorch-classification); "
    "its own reimplementation, it says, reports slightly worse numbers.",
    PLAIN_TABLE: "Ours is the error of the last epoch. The papers' networks have shortcuts of 1×1 convolutions, DKD "
    "has a warm-up, and where they weigh cross-entropy and method 1 : 1, λ = 0.5 halves both.",
}
"""What is to be known of a table's figures, by the first table's name."""
RESNET56, METHODS_NETWORK, PLAIN_NETWORK = 72.34, "resnet56-strided → resnet20-strided", "resnet20-strided"
BASELINE, SIX, SEVEN = (1.0, 0.0), (0.6, 0.6), (0.6, 0.7)
DIST_PROCESS = Process(f_a1=1.0, lam=0.5, student=DIST(beta=2.0, gamma=2.0, temperature=4.0))
STANDARDISED_PROCESS = Process(f_a1=1.0, lam=0.5, student=DKD(alpha=9.0, beta=81.0, standardise=True))
"""Weights as in the authors' code (github.com/sunshangquan/logit-standardization-KD)."""
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
    PublishedRow(
        PLAIN_TABLE, "cifar100", PLAIN_NETWORK, _process(BASELINE), ensemble=False, errors={"top1_error": (30.94,)}
    ),
    _method(PLAIN_TABLE, Process(f_a1=1.0, lam=0.9, temperature=4.0), 70.66),
    _method("Huang et al., NeurIPS 2022 (DIST)", DIST_PROCESS, 71.75),
    _method("Zhao et al., CVPR 2022 (DKD)", Process(f_a1=1.0, lam=0.5, student=DKD(beta=2.0)), 71.97),
    _method("Sun et al., CVPR 2024 (DKD with standardised logits)", STANDARDISED_PROCESS, 72.32),
)  # fmt: skip


def published_rows(source: str, network: str) -> tuple[PublishedRow, ...]:
    """Return the papers' rows for a source and a network (as in the report); none where there are none."""
    return tuple(row for row in PUBLISHED if (row.source, row.network) == (source, network))


def network_label(study: Study) -> str:
    """Return the network's name; `patriarch → students → last` where students, or the last, use another network."""
    network, last = study.network, study.process.last
    students = None if network.students == network.name else network.students
    return " → ".join(filter(None, (network.name, students, last.network if last else None)))


def paper_recipe(source: str, network: str) -> RecipeConfig | None:
    """Return the paper's recipe for a network on a source, or the methods' papers'; None where none trains it."""
    if source == "cifar100" and network in {METHODS_NETWORK, PLAIN_NETWORK}:
        return DISTILLATION
    network = network.partition(" → ")[0]
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
    network = network_label(study)
    recipe = paper_recipe(study.dataset.source, network)
    if recipe is None:
        return (f"network {study.network.name} on {study.dataset.source} (not in the paper)",)
    ours, theirs = (settings.model_dump(by_alias=True) for settings in (study.recipe, recipe))
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
    if network != METHODS_NETWORK and study.network.students not in (None, study.network.name):
        differences.append(f"network.students is {study.network.students} (the paper: as the patriarch)")
    if study.process.label not in {row.label for row in published_rows(data.source, network)}:
        differences += _process_deviations(study.process)
    return (*differences, *(["the first generations are pretrained networks"] if study.pretrained else []))


def _process_deviations(process: Process) -> list[str]:
    differences: list[str] = []
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
    return differences


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
