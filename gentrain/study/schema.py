"""The study file: one validated YAML schema, whose defaults are the paper's.

Unknown keys are refused with the nearest valid ones; `--set a.b=value` edits the file's mapping before it is validated.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from gentrain.errors import ConfigError
from gentrain.study.sections import (
    DatasetConfig,
    GivenConfig,
    NetworkConfig,
    ProcessConfig,
    RecipeConfig,
    Settings,
)


class PointConfig(Settings):
    """One explicit point of the grid; what it doesn't say is the study's own."""

    process: ProcessConfig | None = None
    network: str | None = None
    seed: int | None = Field(None, ge=0, lt=2**31)


class GridConfig(Settings):
    """Many chains: every combination of the lists, then the extra points. An empty list means the study's own value."""

    process: tuple[ProcessConfig, ...] = Field(
        (), description="Processes, each like the section `process`: `{f_a1: 0.6, lambda: 0.5}`."
    )
    network: tuple[str, ...] = Field((), description="Names of networks.")
    seed: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field((), description="Seeds.")
    points: tuple[PointConfig, ...] = Field(
        (), description="Extra points, each with any of `process`, `network` and `seed`."
    )

    @property
    def empty(self) -> bool:
        """Whether the study is one chain."""
        return not (self.process or self.network or self.seed or self.points)


class SchedulerConfig(Settings):
    """Which of a sweep's chains go on: a scheduler of Ray Tune over the held-out error by generation."""

    name: Literal["fifo", "asha", "median"] = Field(
        "fifo", description="fifo: every chain to its end; asha: successive halving; median: stop below the median."
    )
    grace: int = Field(1, ge=1, description="Students that every chain may train before it can be stopped.")
    reduction: float = Field(2, gt=1, description="asha only: one in so many goes on at each rung.")


class Study(Settings):
    """Everything that one study says."""

    name: str = Field("study", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Folder of the study's results.")
    description: str = Field("", description="What the study reproduces, what it costs, how to run it.")
    dataset: DatasetConfig = Field(default_factory=DatasetConfig)
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    recipe: RecipeConfig = Field(default_factory=RecipeConfig)
    process: ProcessConfig = Field(default_factory=ProcessConfig)
    given: tuple[GivenConfig, ...] = Field(
        (),
        description="Networks that take the place of the first generations, each `{checkpoint, network, key}`; "
        "`process.f_a1` then plays no part.",
    )
    grid: GridConfig = Field(default_factory=GridConfig)
    generations: int = Field(5, ge=0, description="Number of the last generation: students after the patriarch.")
    patience: int | None = Field(
        None, ge=1, description="End a chain after so many generations without a better error on the validation split."
    )
    scheduler: SchedulerConfig = Field(default_factory=SchedulerConfig)
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of initial weights, order and augmentation.")
    precision: Literal["bf16", "fp32", "tf32"] = Field(
        "bf16",
        description="bf16: autocast of the convolutions, losses are fp32; fp32: exact; tf32: fp32 with TF32 products "
        "(GPU only).",
    )
    compile: bool = Field(
        False,
        description="Train through torch.compile, the teacher too: other last bits; as CUDA graphs on one GPU worker. "
        "Needs a C++ compiler.",
    )
    sync_batchnorm: bool = Field(False, description="One BatchNorm statistic over all workers (GPU only).")
    teacher_pass: Literal["exact", "folded"] = Field(
        "exact",
        description="folded: the teacher's BatchNorms, on a CPU its ReLUs and sums too, go into its convolutions; "
        "faster, other last bits in its logits.",
    )
    workers: int = Field(1, ge=1, description="Data-parallel processes of a generation.")
    cpus_per_worker: int | None = Field(None, ge=1, description="CPU threads a worker; default: an equal share.")
    gpus_per_worker: float | None = Field(
        None, ge=0, description="GPUs a worker; 0.25 packs four workers on one. Default: 1 on GPU, 0 on CPU."
    )
    pin_workers: bool = Field(
        False,
        description="Ray, GPU workers: each stays on its GPU's share of the node's cores; CPU workers are left alone.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is one.")
    evaluate_every: int = Field(1, ge=1, description="Epochs between evaluations of the test split; the last always.")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.recipe.batch_size % self.workers:
            raise ValueError(
                f"`recipe.batch_size` ({self.recipe.batch_size}) must be a multiple of `workers` ({self.workers})"
            )
        if self.device == "cpu" and self.gpus_per_worker:
            raise ValueError(f"`gpus_per_worker` ({self.gpus_per_worker}) needs `device: auto` or `cuda`, not cpu")
        if self.gpus_per_worker and self.gpus_per_worker > 1:
            raise ValueError(f"`gpus_per_worker` ({self.gpus_per_worker}) is at most 1: raise `workers` instead")
        return self

    @model_validator(mode="after")
    def _arithmetic(self) -> Self:
        if self.precision == "tf32" and (self.device == "cpu" or self.gpus_per_worker == 0):
            raise ValueError("`precision: tf32` is for GPUs; set fp32 or bf16, or let workers have a GPU")
        if self.compile and self.network.memory_efficient:
            raise ValueError(
                "`compile: true` and `network.memory_efficient: true` don't go together (what is computed again can't "
                "be compiled); set one of them to false"
            )
        return self

    @model_validator(mode="after")
    def _pictures(self) -> Self:
        if (self.dataset.storage == "jpeg") != (self.recipe.pictures is not None):
            raise ValueError("`dataset.storage: jpeg` and `recipe.pictures` go together; give both or neither")
        if self.recipe.pictures is not None and self.recipe.pad:
            raise ValueError(
                f"`recipe.pad` ({self.recipe.pad}) is for small images; set it to 0 with `recipe.pictures`"
            )
        return self

    @model_validator(mode="after")
    def _held_out(self) -> Self:
        wanted = "patience" if self.patience else f"scheduler.name: {self.scheduler.name}"
        if (self.patience or self.scheduler.name != "fifo") and not self.dataset.validation:
            raise ValueError(f"`{wanted}` needs images held out of the training set; set dataset.validation, say 0.1")
        return self

    @model_validator(mode="after")
    def _lambda_by_generation(self) -> Self:
        for lam in (self.process.lam, *(process.lam for process in self.grid.process)):
            if isinstance(lam, tuple) and len(lam) != self.generations:
                raise ValueError(
                    f"`lambda` has {len(lam)} values but `generations` is {self.generations}; give one for each student"
                )
        return self

    @model_validator(mode="after")
    def _room_for_given(self) -> Self:
        if len(self.given) > self.generations + 1:
            raise ValueError(
                f"`given` has {len(self.given)} networks but `generations` is {self.generations}; raise `generations` "
                f"to {len(self.given) - 1} at least"
            )
        return self

    def points(self) -> tuple[Study, ...]:
        """Return the study of every chain of the grid, without repetition; this study itself where there is no grid.

        Raises:
            ConfigError: naming the point that makes no valid study.
        """
        if self.grid.empty:
            return (self,)
        grid = self.grid
        product = itertools.product(grid.network or (self.network.name,), grid.seed or (self.seed,))
        wanted = [
            PointConfig(process=process, network=network, seed=seed)
            for network, seed in product
            for process in (grid.process or (self.process,))
        ]
        own = self.dump() | {"grid": {}}
        found: dict[Study, None] = {}
        for point in (*wanted, *grid.points):
            given = point.model_dump(mode="json", by_alias=True, exclude_none=True)
            if "network" in given:
                given["network"] = own["network"] | {"name": given["network"]}
            found[parse_study(own | given, where=f"grid point {point.model_dump_json(exclude_none=True)}")] = None
        return tuple(found)

    @property
    def students(self) -> int:
        """Students that this study trains: none where λ = 0, which has no use for a teacher."""
        return 0 if self.process.lam == 0 else self.generations

    @property
    def trained_networks(self) -> tuple[str, ...]:
        """Names of the networks that this study trains: the patriarch's, unless one is given, and the students'."""
        return tuple(dict.fromkeys(self.network.of(generation) for generation in ((1,) if self.given else (0, 1))))

    @property
    def teaching_networks(self) -> tuple[str, ...]:
        """Names of the networks of the whole grid that are trained and then teach."""
        return tuple(
            dict.fromkeys(
                point.network.of(generation)
                for point in self.points()
                for generation in range(len(point.given), point.students)
            )
        )

    def dump(self) -> dict[str, Any]:
        """Return the study as plain YAML types, with the file's own key names."""
        return self.model_dump(mode="json", by_alias=True)


def load_study(
    path: Path | None = None, *, overrides: Iterable[str] = (), smoke: bool = False, **settings: Any
) -> Study:
    """Read a study file, apply `a.b=value` overrides in order, then dotted keyword settings that are not None.

    The section `smoke` of a file is no setting but overrides for `smoke=True`; they come first, and the study is then
    named `<name>-smoke`, so that it can't be mixed up with the whole one.

    Raises:
        ConfigError: naming the file, key, value and remedy.
    """
    where = str(path) if path else "default study"
    mapping = _read_yaml(path) if path else {}
    changes = mapping.pop("smoke", None)
    if smoke:
        _shrink(mapping, changes, where=where)
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--set {override}: expected key=value, such as --set recipe.epochs=10")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        _assign(mapping, key.strip(), value, where=f"--set {override}")
    for key, value in settings.items():
        if value is not None:
            _assign(mapping, key.replace("__", "."), value, where=where)
    return parse_study(mapping, where=where)


def _shrink(mapping: dict[str, Any], changes: object, *, where: str) -> None:
    if not isinstance(changes, dict) or not changes:
        raise ConfigError(f"{where}: --smoke: the study has no section `smoke`; shrink it with --set instead")
    for key, value in changes.items():
        _assign(mapping, str(key), value, where=f"{where}: smoke.{key}")
    mapping["name"] = f"{mapping.get('name', Study.model_fields['name'].default)}-smoke"


def source_settings(source: str) -> list[str]:
    """Return the overrides that make the default study one of a source; of class-per-folder trees as whole pictures."""
    whole = ["dataset.storage=jpeg", "recipe.pictures={}", "recipe.pad=0"] if source == "imagefolder" else []
    return [f"dataset.source={source}", f"name={source}", *whole]


def parse_study(mapping: Mapping[str, Any], *, where: str) -> Study:
    """Validate a mapping as a study; `where` names it in errors."""
    try:
        return Study.model_validate(mapping)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{where}: {_explain(e)}" for e in error.errors())) from None


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key given twice, which YAML would silently take the last of."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"{path}: no such study file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(loaded).__name__}")
    return loaded


def _assign(mapping: dict[str, Any], dotted: str, value: Any, *, where: str) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = mapping.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{where}: {parent!r} is a value, not a section")
        mapping = inner
    mapping[last] = value


def _explain(error: Any) -> str:
    location = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{location}: unknown key; {_nearest(error['loc'])}"
    message = error["msg"].removeprefix("Value error, ")
    value = error.get("input")
    shown = "" if isinstance(value, (dict, BaseModel)) else f" (got {value!r})"
    return f"{location + ': ' if location else ''}{message[:1].lower() + message[1:]}{shown}"


def _nearest(location: tuple[Any, ...]) -> str:
    model: type[BaseModel] = Study
    for part in location[:-1]:
        found = next((f.annotation for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        model = next(iter(held_sections(found)), model)  # an index into a list leaves us in the list's own section
    valid = [field.alias or name for name, field in model.model_fields.items()]
    everywhere = {leaf: path for path, leaf in _leaves(Study)}
    if path := everywhere.get(str(location[-1])):
        return f"did you mean {path}?"
    if near := difflib.get_close_matches(str(location[-1]), valid, n=2, cutoff=0.5):
        return "did you mean " + " or ".join(near) + "?"
    return "valid keys here: " + ", ".join(valid)


def held_sections(annotation: Any) -> Iterable[type[BaseModel]]:
    """Yield the sections that a field may hold: itself, an alternative, or the elements of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from held_sections(part)


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, field in model.model_fields.items():
        key = field.alias or name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", key
