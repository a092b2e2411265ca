"""The study: every setting, its default (the paper's) and what goes together; and the points of its grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from html import escape
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gentrain.errors import ConfigError
from gentrain.study.documents import write_yaml
from gentrain.study.losses import OwnTeacher, Snapshot
from gentrain.study.process import AdaptiveK, Process
from gentrain.study.search import SearchConfig, check_space
from gentrain.study.sections import DatasetConfig, NetworkConfig, PretrainedConfig, RecipeConfig, known_network
from gentrain.study.settings import Later, Settings, Stored

FOLDING = Stored("teacher_pass", values=((False, "exact"), (True, "folded")))
MOST_GENERATIONS = 100_000
"""Most generations of a study, counted once a chain."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Tracker = Literal["tensorboard", "mlflow", "wandb", "trackio"]


class PointConfig(Settings):
    """One explicit point of the grid; what it doesn't say is the study's own."""

    process: Process | None = None
    network: str | None = None
    seed: Seed | None = None


class GridConfig(Settings):
    """Many chains: every combination of the lists, then the extra points. An empty list means the study's own value."""

    process: tuple[Process, ...] = Field(
        (), description="Processes, each like the section `process`: `{f_a1: 0.6, lambda: 0.5}`."
    )
    network: tuple[str, ...] = Field((), description="Names of networks.")
    seed: tuple[Seed, ...] = Field((), description="Seeds.")
    points: tuple[PointConfig, ...] = Field(
        (), description="Extra points, each with any of `process`, `network` and `seed`."
    )

    @property
    def empty(self) -> bool:
        """Whether the study is one chain."""
        return not (self.process or self.network or self.seed or self.points)


class SchedulerConfig(Settings):
    """Which of a sweep's chains go on, by a scheduler of Ray Tune over the held-out error, and which go first."""

    order: Annotated[Literal["longest", "seeds"], Later("longest", written=False)] = Field(
        "longest",
        description="longest: first what most work waits for, for the shortest sweep; seeds: one seed of the grid "
        "after another, so that every finished one is a result.",
    )
    name: Literal["fifo", "asha", "median"] = Field(
        "fifo", description="fifo: every chain to its end; asha: successive halving; median: stop below the median."
    )
    grace: int = Field(1, ge=1, le=1000, description="Students that every chain may train before it can be stopped.")
    reduction: float = Field(2, gt=1, description="asha only: one in so many goes on at each rung.")


class Study(Settings):
    """All settings of a study; every default is the paper's."""

    name: str = Field(
        "study", max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Folder of the study's results."
    )
    description: str = Field("", description="What the study reproduces, what it costs, how to run it.")
    dataset: DatasetConfig = Field(default_factory=DatasetConfig)
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    recipe: RecipeConfig = Field(default_factory=RecipeConfig)
    process: Process = Field(default_factory=Process)
    pretrained: Annotated[tuple[PretrainedConfig, ...], Stored("given")] = Field(
        (),
        description="Networks that take the place of the first generations, each `{checkpoint, network, key}`; "
        "`process.f_a1` then plays no part.",
    )
    grid: GridConfig = Field(default_factory=GridConfig)
    search: SearchConfig | None = Field(
        None, description="Find the process by the held-out split: `{method, budget, space, …}` (docs/search.md)."
    )
    generations: int = Field(
        5, ge=0, le=1000, description="Number of the last generation: students after the patriarch."
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="End a chain after so many generations without a better error on the validation split.",
    )
    scheduler: SchedulerConfig = Field(default_factory=SchedulerConfig)
    seed: Seed = Field(0, description="Seed of initial weights, order and augmentation.")
    precision: Literal["bf16", "fp32", "tf32"] = Field(
        "bf16",
        description="bf16: autocast of the convolutions, losses are fp32; fp32: exact; tf32: fp32 with TF32 products "
        "(GPU only).",
    )
    compile: Literal["auto"] | bool = Field(
        "auto",
        description="Train through torch.compile, the teacher too: other last bits; as CUDA graphs on one GPU worker. "
        "Needs a C++ compiler. auto: where it saves more seconds than it costs, under the keys of false.",
    )
    sync_batchnorm: bool = Field(False, description="One BatchNorm statistic over all workers (GPU only).")
    fold_batchnorm: Annotated[bool, FOLDING] = Field(
        False,
        description="Fold the teacher's BatchNorms, on a CPU its ReLUs and sums too, into its convolutions: faster, "
        "other last bits in its logits.",
    )
    workers: int = Field(1, ge=1, le=100_000, description="Data-parallel processes of a generation.")
    cpus_per_worker: int | None = Field(
        None, ge=1, le=100_000, description="CPU threads a worker; default: an equal share."
    )
    gpus_per_worker: float | None = Field(
        None, ge=0, description="GPUs a worker; 0.25 packs four workers on one. Default: 1 on GPU, 0 on CPU."
    )
    pin_workers: Literal["auto"] | bool = Field(
        "auto",
        description="Keep each worker on cores of its own; on Ray only, not with `--local`. auto: CPU workers, outside "
        "containers; true: CPU workers everywhere, and GPU workers on their GPU's share of the node's; false: none.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is one.")
    evaluate_every: int = Field(
        1, ge=1, le=1_000_000, description="Epochs between evaluations of the test split; the last always."
    )
    trackers: tuple[Tracker, ...] = Field(
        (), description="What also gets losses, errors and scores of every epoch and generation (docs/trackers.md)."
    )

    @model_validator(mode="after")
    def _together(self) -> Self:
        for check in CHECKS:
            check(self)
        return self

    def points(self, *, importing: bool = True) -> tuple[Study, ...]:
        """Return the study of every chain of the grid, without repetition; this study itself where there is no grid.

        The parts were validated with the study, except for the networks' names.

        Args:
            importing: whether networks that are functions elsewhere are imported; a study can be looked at without.

        Raises:
            ConfigError: for an unknown network.
        """
        if not self.several:
            return (self,)
        alone = self.model_copy(update={"grid": GridConfig(), "search": None})
        return tuple(dict.fromkeys(alone.model_copy(update=changes) for changes in _changes_by_point(self, importing)))

    @property
    def several(self) -> bool:
        """Whether the study is a grid of chains, or a search for one, and not a chain."""
        return self.search is not None or not self.grid.empty

    @property
    def students(self) -> int:
        """Students that this study trains: none where λ = 0, which has no use for a teacher."""
        return 0 if self.process.lam == 0 else self.generations

    def network_of(self, generation: int) -> str:
        """Return the name of a generation's network."""
        last = self.process.last
        if last is not None and last.network and generation == self.students > 0:
            return last.network
        return self.network.of(generation)

    def epochs_of(self, generation: int) -> int:
        """Return the epochs of a generation's training."""
        patriarch = self.process.patriarch
        if isinstance(patriarch, OwnTeacher) and generation == 0 and not self.pretrained:
            return self.recipe.epochs * patriarch.trainings
        return self.recipe.epochs

    @property
    def trained_networks(self) -> tuple[str, ...]:
        """Names of the networks that this study trains: the patriarch's, unless it is pretrained, and the students'."""
        first = 1 if self.pretrained else 0
        return tuple(dict.fromkeys(self.network_of(generation) for generation in (first, 1, self.students or first)))

    @property
    def teaching_networks(self) -> tuple[str, ...]:
        """Names of the networks of the whole grid that are trained and then teach."""
        return tuple(
            dict.fromkeys(
                point.network_of(generation)
                for point in self.points()
                for generation in range(len(point.pretrained), point.students)
            )
        )

    def dump(self) -> dict[str, Any]:
        """Return the study as plain YAML types, with the file's own key names."""
        return self.model_dump(
            mode="json", by_alias=True, exclude={name for name in ("search", "trackers") if not getattr(self, name)}
        )

    def _repr_html_(self) -> str:
        """Show in a notebook what isn't at its default, as a study file says it."""
        changed = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return f"<pre>{escape(write_yaml({'name': self.name, **changed}))}</pre>"


def _changes_by_point(study: Study, importing: bool) -> Iterator[dict[str, Any]]:
    """Yield what each point of the grid puts in place of the study's own settings."""
    grid, own = study.grid, study.network
    names = (own.name, *grid.network, *(point.network for point in grid.points if point.network))
    try:
        known = {name: known_network(name, importing=importing) for name in dict.fromkeys(names)}
    except ValueError as error:
        raise ConfigError(f"grid: {error}") from None
    networks = {name: own.model_copy(update={"name": name}) for name in known}
    for name, seed, process in itertools.product(
        grid.network or (own.name,), grid.seed or (study.seed,), grid.process or (study.process,)
    ):
        yield {"process": process, "network": networks[name], "seed": seed}
    for point in grid.points:
        changes = {"process": point.process, "network": networks.get(point.network or ""), "seed": point.seed}
        yield {key: value for key, value in changes.items() if value is not None}


def _divides(study: Study) -> None:
    if study.recipe.batch_size % study.workers:
        raise ValueError(
            f"`recipe.batch_size` ({study.recipe.batch_size}) must be a multiple of `workers` ({study.workers})"
        )
    if study.recipe.mixes and study.recipe.batch_size % (2 * study.workers):
        raise ValueError(
            f"`recipe.batch_size` ({study.recipe.batch_size}) must be a multiple of 2 × `workers` ({study.workers}) "
            "with `recipe.mixup` or `recipe.cutmix`, which mix pairs"
        )
    if study.device == "cpu" and study.gpus_per_worker:
        raise ValueError(f"`gpus_per_worker` ({study.gpus_per_worker}) needs `device: auto` or `cuda`, not cpu")
    if study.gpus_per_worker and study.gpus_per_worker > 1:
        raise ValueError(f"`gpus_per_worker` ({study.gpus_per_worker}) is at most 1: raise `workers` instead")


def _arithmetic(study: Study) -> None:
    if study.precision == "tf32" and (study.device == "cpu" or study.gpus_per_worker == 0):
        raise ValueError("`precision: tf32` is for GPUs; set fp32 or bf16, or let workers have a GPU")
    if study.compile is True and study.network.memory_efficient:
        raise ValueError(
            "`compile: true` and `network.memory_efficient: true` don't go together (what is computed again can't "
            "be compiled); set one of them to false"
        )


def _whole_images(study: Study) -> None:
    if (study.dataset.storage == "jpeg") != (study.recipe.images is not None):
        raise ValueError("`dataset.storage: jpeg` and `recipe.images` go together; give both or neither")
    if study.recipe.images is not None and study.recipe.padding:
        raise ValueError(
            f"`recipe.padding` ({study.recipe.padding}) is for small images; set it to 0 with `recipe.images`"
        )


def _held_out(study: Study) -> None:
    wanted = "patience" if study.patience else f"scheduler.name: {study.scheduler.name}"
    if (study.patience or study.scheduler.name != "fifo") and not study.dataset.validation:
        raise ValueError(f"`{wanted}` needs images held out of the training set; set dataset.validation, say 0.1")


def _processes(study: Study) -> dict[str, Process]:
    """Return all processes of a study by where they stand."""
    processes = {"process": study.process}
    processes |= {f"grid.process.{i}": process for i, process in enumerate(study.grid.process)}
    return processes | {f"grid.points.{i}.process": p.process for i, p in enumerate(study.grid.points) if p.process}


def _one_label(study: Study) -> None:
    for where, process in _processes(study).items():
        if study.recipe.mixes and isinstance(process.k, AdaptiveK) and process.k.by == "class":
            raise ValueError(
                f"{where}: `k` by class needs one label an image, and `recipe.mixup` and `recipe.cutmix` give two; set "
                "by: sample"
            )


def _cycles(study: Study) -> None:
    for where, process in _processes(study).items():
        loss, recipe = process.patriarch, study.recipe
        if not isinstance(loss, Snapshot):
            continue
        epochs = recipe.epochs * loss.trainings
        if epochs % loss.cycles or recipe.warmup_epochs >= epochs // loss.cycles:
            raise ValueError(
                f"{where}: `patriarch.cycles` ({loss.cycles}) must divide its {epochs} epochs (`recipe.epochs` × "
                f"`trainings`) into parts that are longer than `recipe.warmup_epochs` ({recipe.warmup_epochs})"
            )


def _lambda_by_generation(study: Study) -> None:
    for where, process in _processes(study).items():
        if isinstance(process.lam, tuple) and len(process.lam) != study.generations:
            raise ValueError(
                f"{where}: `lambda` has {len(process.lam)} values but `generations` is {study.generations}; give "
                "one for each student"
            )


def _grid_of_a_size(study: Study) -> None:
    grid = study.grid
    chains = math.prod(max(1, len(values)) for values in (grid.process, grid.network, grid.seed)) + len(grid.points)
    wanted = chains * (study.generations + 1)
    if wanted > MOST_GENERATIONS:
        raise ValueError(
            f"`grid` has {chains:,} chains of {study.generations + 1:,} generations, {wanted:,} together, more than "
            f"{MOST_GENERATIONS:,}; shorten its lists"
        )


def _room_for_pretrained(study: Study) -> None:
    if len(study.pretrained) > study.generations + 1:
        raise ValueError(
            f"`pretrained` has {len(study.pretrained)} networks but `generations` is {study.generations}; raise "
            f"`generations` to {len(study.pretrained) - 1} at least"
        )


def _searchable(study: Study) -> None:
    if study.search is None:
        return
    if not study.dataset.validation:
        raise ValueError("`search` needs images held out of the training set; set dataset.validation, say 0.1")
    if study.grid.points:
        raise ValueError("`search` and `grid.points` don't go together; give grid.process, grid.seed or grid.network")
    idle = [key for key in study.search.space if key == "f_a1" or key.startswith("patriarch.")]
    if study.pretrained and idle:
        raise ValueError(f"`search.space`: {idle[0]} plays no part with `pretrained`; leave it out")
    check_space(study.process, study.search)


CHECKS = (
    _divides, _arithmetic, _whole_images, _held_out, _lambda_by_generation, _one_label, _cycles, _grid_of_a_size,
    _room_for_pretrained, _searchable,
)  # fmt: skip
"""What goes together, in order: each raises ValueError where the study's settings don't."""
