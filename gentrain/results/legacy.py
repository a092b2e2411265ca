"""Settings of chains that older versions recorded without them: from the study's grid, or from their generations."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Sequence
from typing import Any

from gentrain.models.registry import label
from gentrain.store.run import RunStore
from gentrain.store.study_record import ChainEntry
from gentrain.study.lineage import GenerationSpec, build_chain
from gentrain.study.process import DEFAULT_K, AdaptiveK, primary_for_eta
from gentrain.study.schema import Study
from gentrain.study.sections import PretrainedConfig
from gentrain.study.tasks import PatriarchSpec, PretrainedSpec, StudentSpec


def chain_settings(entry: ChainEntry, study: Study, store: RunStore) -> Study | None:
    """Return a recorded chain's settings; where an older version recorded none, what they must have been.

    Args:
        entry: of the chain.
        study: that it belongs to.
        store: the run folder, for the specs of the chain's generations.

    Returns:
        None where neither the record, the study's grid nor a finished patriarch tells.
    """
    if entry.settings is not None:
        return entry.settings
    for point in study.points(importing=False):
        if fnmatch.fnmatchcase(entry.name, _name_pattern(point)):
            return point
    specs = []
    for key in entry.keys:
        folder = store.generation(key)
        spec = folder.spec() if folder.done() else None
        if spec is None:
            break
        specs.append(spec)
    return _from_specs(study, specs) if specs and specs[0].generation == 0 else None


def _name_pattern(point: Study) -> str:
    """Return the pattern of a point's chain's name, which names pretrained networks by their content."""
    if not point.pretrained:
        return glob.escape(build_chain(point, data="", num_classes=point.process.classes_needed).name)
    start, name = point.process.label_from("given"), label(point.network.of(1))
    return f"{glob.escape(start).replace('D(given', 'D(given*', 1)}-*{glob.escape(name)}*-s{point.seed}"


def _from_specs(study: Study, specs: Sequence[GenerationSpec]) -> Study:
    """Return the study with the process, networks, recipe and seed of a chain's generations."""
    first = specs[0].task
    pretrained = [spec for spec in specs if isinstance(spec.task, PretrainedSpec)]
    students = [spec.task for spec in specs if isinstance(spec.task, StudentSpec)]
    lams = {student.lam for student in students}
    process: dict[str, Any] = {
        "lam": tuple(s.lam for s in students) if len(lams) > 1 else next(iter(lams), 0.0),
        "teacher": "ensemble" if any(student.members for student in students) else "previous",
    }
    if isinstance(first, PatriarchSpec) and first.adaptive is not None:
        adaptive = first.adaptive
        k = AdaptiveK(top_p=adaptive.top_p, by=adaptive.by, k_max=adaptive.k_max)
        process |= {"f_a1": adaptive.f_a1, "k": k}
    elif isinstance(first, PatriarchSpec):
        classes = first.k or DEFAULT_K
        process |= {"f_a1": round(primary_for_eta(first.eta or 0.0, k=classes), 12), "k": classes}
    if students:
        process["temperature"] = students[0].temperature
    networks = [spec.network.name for spec in specs]
    network = {"name": networks[0], "students": next((n for n in networks[1:] if n != networks[0]), None)}
    return study.model_copy(
        update={
            "process": study.process.model_copy(update=process),
            "network": study.network.model_copy(update=network),
            "recipe": specs[0].recipe,
            "precision": specs[0].precision,
            "compile": specs[0].compile,
            "pretrained": tuple(PretrainedConfig(checkpoint=spec.key) for spec in pretrained),
            "seed": specs[0].seed,
            "grid": type(study.grid)(),
        }
    )
