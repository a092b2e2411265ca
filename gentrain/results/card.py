"""Write the model card of an exported model: Markdown under the header that Hugging Face reads."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from gentrain.results.html import HEADINGS, shown_value
from gentrain.results.published import PublishedRow, deviations, network_label, published_rows
from gentrain.results.units import duration
from gentrain.scores.ensembles import weighted_ensemble
from gentrain.scores.metrics import TOP5_CLASSES, reliability
from gentrain.study.documents import write_yaml
from gentrain.study.lineage import GenerationSpec
from gentrain.study.losses import ScoreDifference
from gentrain.study.schema import Study
from gentrain.study.sections import SOURCES
from gentrain.study.tasks import PretrainedSpec, StudentSpec

if TYPE_CHECKING:
    from gentrain.results.trained import TrainedNetwork

HUB_NAMES = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
}
"""Names of data sets on the Hugging Face Hub."""
MOST_NAMES = 30
"""Most classes that are named before the others are folded away."""
PAPER = (
    'C. Yang, L. Xie, S. Qiao, A. Yuille, "Knowledge Distillation in Generations: More Tolerant Teachers Educate '
    'Better Students", 2018 ([arXiv:1805.05551](https://arxiv.org/abs/1805.05551))'
)
FILES = {
    "model.safetensors": "weights, by the network's own names",
    "model.json": "classes, preprocessing, members, scores, lineage, settings",
    "model.pt2": "torch.export's program, for torch without gentrain",
    "model.onnx": "the same for ONNX runtimes",
}


def model_card(network: TrainedNetwork, *, preprocessing: bool, files: Collection[str]) -> str:
    """Return the card of a model.

    Args:
        network: that is exported.
        preprocessing: whether its programs take uint8 images.
        files: names of the files that are written beside it.
    """
    sections: tuple[tuple[str, Callable[[], Iterable[str]]], ...] = (
        ("Use", lambda: _use(network, preprocessing=preprocessing, files=files)),
        ("Data", lambda: _data(network)),
        ("Process", lambda: _process(network)),
        ("Errors", lambda: _errors(network)),
        ("Calibration", lambda: _calibration(network)),
        ("Lineage", lambda: _lineage(network)),
        ("Published results", lambda: _published(network)),
        ("How it was made", lambda: _made(network)),
    )
    lines = [_header(network, onnx="model.onnx" in files), *_opening(network)]
    for title, write in sections:
        if body := list(write()):
            lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _header(network: TrainedNetwork, *, onnx: bool) -> str:
    source, scores = network.study.dataset.source, network.scores
    name = HUB_NAMES.get(source)
    metrics: list[dict[str, Any]] = [
        {"type": "accuracy", "name": "top-1 accuracy", "value": round(1 - scores["top1_error"], 6)}
    ]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": source, "type": name or source, "split": "test"},
        "metrics": metrics,
    }
    fields = {
        "library_name": "gentrain",
        "pipeline_tag": "image-classification",
        "tags": ["gentrain", "knowledge-distillation", "pytorch", *(["onnx"] if onnx else [])],
        **({"datasets": [name]} if name else {}),
        "metrics": ["accuracy"],
        "model-index": [{"name": f"{network.study.name} {network.name}", "results": [result]}],
    }
    return f"---\n# license: as the data allows it\n{write_yaml(fields)}---\n"


def _opening(network: TrainedNetwork) -> list[str]:
    manifest, row = network.manifest, network.scores
    images = manifest.splits["test"].count
    wrong = round(row["top1_error"] * images)
    networks = " and ".join(dict.fromkeys(spec.network.name for spec in network.specs))
    what = f"The {network.kind} ensemble of generations 0 to {network.generation}" if network.kind else (
        f"Generation {network.generation}"
    )  # fmt: skip
    size = f"{manifest.height} × {manifest.width}"
    return [
        f"# {network.name}",
        "",
        f"{what} of the chain {network.chain}, trained by knowledge distillation in generations: {_text(networks)}, "
        f"{len(manifest.classes):,} classes, images of {size} pixels. "
        f"Top-1 error {100 * row['top1_error']:.2f} % on the test images ({wrong:,} of {images:,} wrong), "
        f"calibration error {100 * row['ece']:.2f} %.",
    ]


def _use(network: TrainedNetwork, *, preprocessing: bool, files: Collection[str]) -> Iterable[str]:
    height, width = network.manifest.height, network.manifest.width
    inputs = f"uint8 images (N, {height}, {width}, 3)" if preprocessing else (
        f"normalised float32 images (N, 3, {height}, {width})"
    )  # fmt: skip
    yield "With this folder as `MODEL`:"
    yield from ("", "```sh", "gentrain predict MODEL image.jpg folder/", "```", "", "```python", "import gentrain", "")
    yield f'model = gentrain.load_model("MODEL")  # takes uint8 images (N, {height}, {width}, 3), or floats in 0..1'
    yield "probabilities = model(images).softmax(dim=1)  # of model.classes"
    yield from ("```", "", "| file | holds |", "|---|---|")
    for name in files:
        more = f"; takes {inputs}" if name in ("model.pt2", "model.onnx") else ""
        yield f"| `{name}` | {FILES[name]}{more} |"
    yield ""
    yield (
        "It gives every image scores of these classes, whatever the image shows: what is unlike the training images "
        "isn't recognised as such. Images of another size are cut to their middle and resized."
    )


def _data(network: TrainedNetwork) -> Iterable[str]:
    manifest, dataset = network.manifest, network.study.dataset
    counts = ", ".join(f"{info.count:,} {name}" for name, info in manifest.splits.items())
    twice = sum(manifest.duplicates.within.values()) + sum(manifest.duplicates.across.values())
    rows = {
        "source": _text(dataset.source),
        "images": counts,
        "size": f"{manifest.height} × {manifest.width} pixels",
        "mean, std by channel": f"{_numbers(manifest.mean)}; {_numbers(manifest.std)}",
        "exact duplicates": f"{twice:,}",
        "fingerprint": f"`{manifest.fingerprint[:16]}`",
    }
    if dataset.limit:
        rows["limit"] = f"at most {dataset.limit:,} images a class"
    if manifest.skipped:
        rows["left out"] = f"{len(manifest.skipped):,} broken images"
    yield from _table(("", ""), rows.items())
    names = ", ".join(map(_text, manifest.classes))
    yield ""
    if len(manifest.classes) <= MOST_NAMES:
        yield f"Classes: {names}."
    else:
        yield f"<details><summary>{len(manifest.classes):,} classes</summary>\n\n{names}\n\n</details>"


def _process(network: TrainedNetwork) -> Iterable[str]:
    study, process, recipe = network.study, network.study.process, network.study.recipe
    patriarch = f"{process.patriarch.name}, aim f_a1 = {process.f_a1:g}"
    if isinstance(process.patriarch, ScoreDifference):
        patriarch = "cross-entropy" if process.eta == 0 else f"eq. (3) of the paper, aim f_a1 = {process.f_a1:g}"
    if study.pretrained:
        patriarch = f"{len(study.pretrained)} pretrained networks"
    weights = list(dict.fromkeys(spec.task.lam for spec in network.lineage if isinstance(spec.task, StudentSpec)))
    teacher = "the generation before" if process.teacher == "previous" else "the mean of all generations before"
    students = f"(1-λ)·cross-entropy + λ·{process.student.label} from {teacher}, λ = {_numbers(weights)}"
    schedule = "half a cosine to 0" if recipe.schedule == "cosine" else (
        f"× {recipe.decay:g} after epochs {', '.join(map(str, recipe.milestones)) or 'none'}"
    )  # fmt: skip
    yield from (
        "The patriarch M(0) is trained to be tolerant: it leaves some score on similar classes. Each student learns",
        f"from the labels and from its teacher. {PAPER}",
        "",
    )
    rows = {
        "process": process.label,
        "patriarch": patriarch,
        "students": students if weights else "none",
        "recipe": f"{recipe.epochs:,} epochs, batches of {recipe.batch_size:,}, {recipe.optimizer}, learning rate "
        f"{recipe.learning_rate:g}, {schedule}; weight decay {recipe.weight_decay:g}",
        **({"last student": process.last.label} if process.last else {}),
        "arithmetic": study.precision,
        "seed": str(study.seed),
    }
    yield from _table(("", ""), rows.items())


def _errors(network: TrainedNetwork) -> Iterable[str]:
    """Yield a row for each generation, and one for an ensemble; the model's own row is bold."""
    scores = ["nll", "ece"] if len(network.manifest.classes) < TOP5_CLASSES else ["top5_error", "nll", "ece"]
    columns = ["network", "top1_error", "ensemble_top1_error", *scores, "primary_measured", "primary_predicted"]
    rows = [
        [f"M({result.row['generation']})", *(_text(shown_value(name, result.row.get(name))) for name in columns)]
        for result in network.results
    ]
    if network.kind:
        own = (shown_value(name, network.scores.get(name)) for name in columns[1:])
        rows.append([f"{network.kind} ensemble", "", *own])
    beside = 1 + columns.index("ensemble_top1_error")  # another model's, but in an ensemble's own row
    rows[-1] = [f"**{text}**" if text.strip("–") and place != beside else text for place, text in enumerate(rows[-1])]
    yield from _table(("generation", *(HEADINGS[name] for name in columns)), rows)
    yield ""
    yield "Of the test images, after the last epoch; this model's row is bold. + ensemble: the mean of all so far."


def _calibration(network: TrainedNetwork) -> Iterable[str]:
    results = [
        network.results[spec.generation] if len(network.specs) > 1 else network.results[-1] for spec in network.specs
    ]
    members = np.stack([result.finished.probabilities for result in results])
    counts, confidence, hits = reliability(weighted_ensemble(members, network.weights), results[0].finished.labels)
    error = f"{100 * network.scores['ece']:.2f} %"
    yield f"Expected calibration error over {len(counts)} bins: {error}. Test images by the model's confidence:"
    yield ""
    rows = [
        (
            f"{bin_ / len(counts):.2f} to {(bin_ + 1) / len(counts):.2f}",
            f"{count:,.0f}",
            f"{100 * confidence[bin_] / count:.1f} %",
            f"{100 * hits[bin_] / count:.1f} %",
        )
        for bin_, count in enumerate(counts)
        if count
    ]
    yield from _table(("confidence", "images", "mean confidence", "right"), rows)


def _lineage(network: TrainedNetwork) -> Iterable[str]:
    yield "```"
    used = {spec.key: weight for spec, weight in zip(network.specs, network.weights, strict=True)}
    names = max(len(spec.network.name) for spec in network.lineage)
    for place, result in enumerate(network.results):
        spec = result.finished.spec
        branch = f"{'   ' * (place - 1)}└─ " if place else ""
        label = f"{branch}M({place})"
        line = f"{label:<{3 * len(network.results) + 6}}{spec.network.name:<{names}}  {_task(spec):<24}  "
        line += f"top-1 error {100 * result.row['top1_error']:.2f} %  {spec.key}"
        yield line + (f"  × {used[spec.key]:.3f}" if network.kind and used.get(spec.key) else "")
    if network.kind:
        error = f"{100 * network.scores['top1_error']:.2f} %"
        yield f"= {network.kind} ensemble, by the weights marked ×: top-1 error {error}"
    yield "```"


def _task(spec: GenerationSpec) -> str:
    task = spec.task
    if isinstance(task, PretrainedSpec):
        return "pretrained"
    if isinstance(task, StudentSpec):
        several = f" of {len(task.members)} teachers" if task.members else ""
        return f"student{several}, λ = {task.lam:g}"
    if task.loss is not None:
        return f"patriarch, {task.loss.name}"
    return "patriarch" if task.eta is None else f"patriarch, η = {task.eta:.3g}"


def _published(network: TrainedNetwork) -> Iterable[str]:
    """Yield our errors beside the paper's, where it prints any for this process; and in what the settings differ."""
    study, manifest = network.study, network.manifest
    rows = () if study.pretrained else published_rows(study.dataset.source, network_label(study))
    printed = [row for row in rows if row.label == study.process.label]
    if not printed:
        return
    yield from _table(("top-1 error %", *(f"M({g})" for g in range(len(network.results)))), _beside(network, printed))
    yield ""
    images = manifest.splits["train"].count
    if differing := deviations(study, num_classes=len(manifest.classes), images=images):
        yield f"Not the paper's setting: {'; '.join(map(_text, differing))}."
    else:
        yield "The paper's setting."


def _beside(network: TrainedNetwork, printed: Sequence[PublishedRow]) -> Iterable[tuple[str, ...]]:
    for paper in printed:
        column = "ensemble_top1_error" if paper.ensemble else "top1_error"
        name = "+ ensemble" if paper.ensemble else network.study.process.label
        yield (name, *(shown_value(column, result.row[column]) for result in network.results))
        figures = (paper.at("top1_error", place) for place in range(len(network.results)))
        yield (f"the paper: {_text(paper.table)}", *("–" if figure is None else f"{figure:.2f}" for figure in figures))


def _made(network: TrainedNetwork) -> Iterable[str]:
    study = network.study
    data = " --data DIR" if study.dataset.source in SOURCES and study.dataset.source != "digits" else ""
    option = f" --ensemble-kind {network.kind}" if network.kind else ""
    yield from (
        "```sh",
        f"gentrain chain study.yaml{data}",
        f"gentrain export {study.name}{option} --generation {network.generation} --to MODEL",
        "```",
        "",
        "<details><summary>study.yaml</summary>",
        "",
        "```yaml",
        write_yaml(shared_settings(study, exclude_defaults=True)).strip(),
        "```",
        "",
        "</details>",
        "",
    )
    rows = []
    for result in network.results:
        done = result.finished.done
        versions = ", ".join(f"{name} {number}" for name, number in done.versions.items())
        trained = f"{done.workers} × {done.device}, {done.threads} thread{'s' * (done.threads != 1)}"
        rows.append((f"M({result.row['generation']})", duration(done.seconds), _text(trained), _text(versions)))
    yield from _table(("", "trained for", "on", "versions"), rows)
    yield ""
    versions = f"gentrain {version('gentrain')}, torch {version('torch')}, Python {platform.python_version()}"
    yield f"Exported on {datetime.now(UTC):%Y-%m-%d} with {versions}."


def shared_settings(study: Study, *, exclude_defaults: bool = False) -> dict[str, Any]:
    """Return a study's settings for others: without the path of its data on this machine."""
    settings = study.model_dump(mode="json", by_alias=True, exclude_defaults=exclude_defaults)
    settings.get("dataset", {}).pop("path", None)
    return {"name": study.name, **settings}


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _text(text: str) -> str:
    """Return a name from elsewhere as Markdown shows it."""
    for character in "\\|<>*_`[]":
        text = text.replace(character, f"\\{character}")
    return text
