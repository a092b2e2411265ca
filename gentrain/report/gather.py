"""From the run folder to the records of a report; every file that is used is verified, what is damaged is told."""

from __future__ import annotations

import contextlib
import fnmatch
import glob
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from gentrain.data.prepare.dataset import find_manifest, prepared_name
from gentrain.data.prepare.manifest import Manifest
from gentrain.data.prepare.share import find_shared
from gentrain.errors import DataError, StoreError
from gentrain.models.registry import label
from gentrain.report.records import ENSEMBLE, SINGLE, ChainRecord, GenerationRecord, Group, StudyReport
from gentrain.results.status import GenerationStatus, recorded_study, study_status
from gentrain.run.chain import ensemble_columns
from gentrain.scores.ensembles import label_scores, running_ensemble
from gentrain.scores.metrics import reliability, score
from gentrain.store.generation import PREDICTIONS, SPEC, VALIDATION_PREDICTIONS, Done
from gentrain.store.predictions import decode_predictions
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec, PatriarchSpec, PretrainedSpec, StudentSpec, build_chain
from gentrain.study.process import DEFAULT_K, AdaptiveK, predicted_energies, primary_for_eta
from gentrain.study.schema import Study
from gentrain.study.sections import PretrainedConfig

SCORES = ("top1_error", "top5_error", "nll", "ece")


def gather_study(store: RunStore, study_name: str) -> StudyReport:
    """Return everything that a report tells of a study, finished or not.

    Scores are computed from the stored predictions, whose checksums are verified first. The last epoch is the result.

    Raises:
        ConfigError, StoreError: see `status.recorded_study`.
    """
    study, status = recorded_study(store, study_name), study_status(store, study_name)
    reader = _Reader(store)
    left = dict(status.chains)
    named = ((point, next(iter(fnmatch.filter(left, _pattern(point))), None)) for point in study.points())
    chains = [reader.chain(name, point, left.pop(name)) for point, name in named if name is not None]
    for stray, cells in left.items():
        if found := reader.stray(stray, study, cells, chains):
            chains.append(found)
    by_group: dict[tuple[str, str], list[ChainRecord]] = {}
    for chain in chains:
        by_group.setdefault((chain.label, chain.network), []).append(chain)
    labels = list(dict.fromkeys(own for own, _ in by_group))
    data, manifest = _dataset(store, study, chains)
    return StudyReport(
        study=study,
        uri=store.uri,
        groups=tuple(Group(f"p{labels.index(own)}", tuple(found)) for (own, _), found in by_group.items()),
        failures=status.failures,
        notes=tuple(reader.notes),
        data=data,
        manifest=manifest,
    )


class _Reader:
    """Reads generations; `notes` collects what is wrong with them, once each."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self.notes: dict[str, None] = {}

    def chain(self, name: str, point: Study, cells: Sequence[GenerationStatus]) -> ChainRecord:
        """Return a chain with all that is finished of it; ensembles as far as every member is there."""
        finished = [self._finished(cell.key) if cell.state == "done" else None for cell in cells]
        targets = _targets(point, [None if found is None else found.done.train_primary for found in finished])
        records: list[GenerationRecord] = []
        members: list[np.ndarray] = []
        held_out: list[np.ndarray] = []
        for place, (cell, found) in enumerate(zip(cells, finished, strict=True)):
            target = targets[place] if place < len(targets) else None
            record = GenerationRecord(cell.generation, cell.key, cell.state, cell.epoch, target)
            if found is None:
                records.append(replace(record, state="damaged" if cell.state == "done" else cell.state))
                continue
            single = score(found.probabilities, found.labels)
            values = {n: v for n, v in asdict(single).items() if n in SCORES}
            values |= {"primary_measured": found.done.train_primary, "train_seconds": found.done.seconds}
            bins = {SINGLE: reliability(found.probabilities, found.labels)}
            if len(members) == place:
                members.append(found.probabilities)
                held_out += [] if found.held_out is None else [found.held_out]
                columns = ensemble_columns(members, found.labels, held_out)
                values |= {n: v for n, v in columns.items() if n.endswith(SCORES) and v is not None}
                if place:
                    bins[ENSEMBLE] = reliability(running_ensemble(np.stack(members))[-1], found.labels)
            records.append(replace(record, spec=found.spec, done=found.done, values=values, bins=bins))
        return ChainRecord(name, point, tuple(records))

    def stray(
        self, name: str, study: Study, cells: Sequence[GenerationStatus], others: Sequence[ChainRecord]
    ) -> ChainRecord | None:
        """Return a chain that the study's file doesn't name any more: `gentrain chain` run again with another process.

        Its settings are read from its finished generations. One of other data or another recipe is left out and told.
        """
        specs = [found.spec for cell in cells if cell.state == "done" and (found := self._finished(cell.key))]
        data = {record.spec.data for chain in others for record in chain.generations if record.spec}
        same = bool(specs) and specs[0].generation == 0 and (not data or specs[0].data in data)
        wanted = (study.recipe, study.precision, study.compile)
        if not same or (specs[0].recipe, specs[0].precision, specs[0].compile) != wanted:
            self.notes[f"{name}: left out: it was run with other settings under this study's name"] = None
            return None
        point = _settings_of(study, specs)
        return self.chain(name, point, cells[: len(specs)] if isinstance(point.process.lam, tuple) else cells)

    def _finished(self, key: str) -> _Finished | None:
        """Return a finished generation; None, and a note, when it is damaged."""
        folder = self._store.generation(key)
        inspection = folder.inspect()
        for file in inspection.damaged:
            self.notes[f"{folder}/{file}: damaged or missing; run the study again to restore it"] = None
        try:
            content = folder.read_verified(PREDICTIONS)
            done = inspection.done
            by = folder.read_verified(VALIDATION_PREDICTIONS) if done is not None and done.validation_scores else None
            spec = GenerationSpec.model_validate_json(folder.read(SPEC) or b"{}")
        except StoreError:
            return None
        except ValidationError:
            spec = None
        if done is None or spec is None or spec.key != key:
            told = f"{folder}/{SPEC}: damaged (it isn't of {key}); run the study again to restore it"
            self.notes[told] = None
            return None
        held_out = None if by is None else label_scores(*decode_predictions(by))
        return _Finished(spec, done, *decode_predictions(content), held_out)


@dataclass(frozen=True)
class _Finished:
    """A finished generation as it is stored."""

    spec: GenerationSpec
    done: Done
    probabilities: np.ndarray
    labels: np.ndarray
    held_out: np.ndarray | None
    """`ensemble.label_scores` of the held-out split, where there is one."""


def _targets(point: Study, measured: Sequence[float | None]) -> Sequence[float | None]:
    """Return w_g of each generation; None where given networks aren't measured yet."""
    process, given = point.process, len(point.pretrained)
    weights = process.weights(point.students)[max(0, given - 1) :]
    if not given:
        return predicted_energies((process.f_a1,), weights, teacher=process.teacher)
    start = [primary for primary in measured[:given] if primary is not None]
    return predicted_energies(start, weights, teacher=process.teacher) if len(start) == given else start


def _pattern(point: Study) -> str:
    """Return the pattern of a point's chain's name, which tells given networks by their content."""
    if not point.pretrained:
        return glob.escape(build_chain(point, data="", num_classes=point.process.classes_needed).name)
    start, name = point.process.label_from("given"), label(point.network.of(1))
    return f"{glob.escape(start).replace('D(given', 'D(given*', 1)}-*{glob.escape(name)}*-s{point.seed}"


def _settings_of(study: Study, specs: Sequence[GenerationSpec]) -> Study:
    first = specs[0].task
    given = [spec for spec in specs if isinstance(spec.task, PretrainedSpec)]
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
            "pretrained": tuple(PretrainedConfig(checkpoint=spec.key) for spec in given),
            "seed": specs[0].seed,
        }
    )


def _dataset(store: RunStore, study: Study, chains: Sequence[ChainRecord]) -> tuple[str | None, Manifest | None]:
    """Return the prepared dataset's folder name and manifest, by its fingerprint where a generation tells it."""
    fingerprint = next((r.spec.data for chain in chains for r in chain.generations if r.spec), None)
    if fingerprint is not None:
        found = find_shared(fingerprint, store)
        return found or (None, None)
    with contextlib.suppress(DataError):
        return prepared_name(study.dataset), find_manifest(study.dataset, store.data)
    return None, None
