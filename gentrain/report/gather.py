"""From the run folder to the records of a report; every file that is used is verified, what is damaged is told."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from pydantic import ValidationError

from gentrain.config import Study
from gentrain.data.manifest import Manifest
from gentrain.data.prepare import find_manifest, prepared_name
from gentrain.data.share import find_shared
from gentrain.errors import DataError, StoreError
from gentrain.lineage import GenerationSpec, StudentSpec, build_chain
from gentrain.metrics import reliability, score
from gentrain.predictions import decode_predictions
from gentrain.process import Process, primary_for_eta
from gentrain.report.records import ENSEMBLE, SINGLE, ChainRecord, GenerationRecord, Group, StudyReport
from gentrain.status import GenerationStatus, recorded_study, study_status
from gentrain.store import PREDICTIONS, SPEC, Done, RunStore

SCORES = ("top1_error", "top5_error", "nll", "ece")


def gather_study(store: RunStore, name: str) -> StudyReport:
    """Return everything that a report tells of a study, finished or not.

    Scores are computed from the stored predictions, whose checksums are verified first. The last epoch is the result.

    Raises:
        ConfigError, StoreError: see `status.recorded_study`.
    """
    study, status = recorded_study(store, name), study_status(store, name)
    reader = _Reader(store)
    points = {_name(point): point for point in study.points()}
    chains = [reader.chain(n, points[n], status.chains[n]) for n in points if n in status.chains]
    for stray in status.chains.keys() - points.keys():
        if found := reader.stray(stray, study, status.chains[stray], chains):
            chains.append(found)
    by_group: dict[tuple[Process, str], list[ChainRecord]] = {}
    for chain in chains:
        by_group.setdefault((chain.process, chain.network), []).append(chain)
    processes = list(dict.fromkeys(process for process, _ in by_group))
    data, manifest = _dataset(store, study, chains)
    return StudyReport(
        study=study,
        uri=store.uri,
        groups=tuple(Group(f"p{processes.index(p)}", tuple(found)) for (p, _), found in by_group.items()),
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
        process = Process(point.process.f_a1, point.process.lam, k=point.process.k)
        records: list[GenerationRecord] = []
        total: np.ndarray | None = None
        for cell in cells:
            record = GenerationRecord(
                cell.generation, cell.key, cell.state, cell.epoch, process.predicted_primary(cell.generation)
            )
            found = self._finished(cell.key) if cell.state == "done" else None
            if found is None:
                state = "damaged" if cell.state == "done" else cell.state
                records.append(GenerationRecord(**{**vars(record), "state": state}))
                continue
            spec, done, probabilities, labels = found
            values = {n: v for n, v in asdict(score(probabilities, labels)).items() if n in SCORES}
            values |= {"primary_measured": done.train_primary, "train_seconds": done.seconds}
            bins = {SINGLE: reliability(probabilities, labels)}
            if cell.generation == 0:
                total = probabilities.astype(np.float64)
            elif total is not None and all(earlier.values for earlier in records):
                total += probabilities
                mean = total / (cell.generation + 1)
                values |= {f"ensemble_{n}": v for n, v in asdict(score(mean, labels)).items() if n in SCORES}
                bins[ENSEMBLE] = reliability(mean, labels)
            records.append(
                GenerationRecord(**{**vars(record), "spec": spec, "done": done, "values": values, "bins": bins})
            )
        return ChainRecord(name, point, tuple(records))

    def stray(
        self, name: str, study: Study, cells: Sequence[GenerationStatus], others: Sequence[ChainRecord]
    ) -> ChainRecord | None:
        """Return a chain that the study's file doesn't name any more: `gentrain chain` run again with another process.

        Its settings are read from its finished generations. One of other data or another recipe is left out and told.
        """
        specs = [found[0] for cell in cells if cell.state == "done" and (found := self._finished(cell.key))]
        data = {record.spec.data for chain in others for record in chain.generations if record.spec}
        same = bool(specs) and specs[0].generation == 0 and (not data or specs[0].data in data)
        if not same or (specs[0].recipe, specs[0].precision) != (study.recipe, study.precision):
            self.notes[f"{name}: left out: it was run with other settings under this study's name"] = None
            return None
        point = _settings_of(study, specs)
        return self.chain(name, point, cells[: len(specs)] if isinstance(point.process.lam, tuple) else cells)

    def _finished(self, key: str) -> tuple[GenerationSpec, Done, np.ndarray, np.ndarray] | None:
        """Return a finished generation's identity, record, probabilities and labels; None, and a note, when damaged."""
        folder = self._store.generation(key)
        inspection = folder.inspect()
        for file in inspection.damaged:
            self.notes[f"{folder.folder}/{file}: damaged or missing; run the study again to restore it"] = None
        try:
            content = folder.read_verified(PREDICTIONS)
            spec = GenerationSpec.model_validate_json(folder.folder.read(SPEC) or b"{}")
        except StoreError:
            return None
        except ValidationError:
            spec = None
        if inspection.done is None or spec is None or spec.key != key:
            told = f"{folder.folder}/{SPEC}: damaged (it isn't of {key}); run the study again to restore it"
            self.notes[told] = None
            return None
        return spec, inspection.done, *decode_predictions(content)


def _name(point: Study) -> str:
    """Return the name of a point's chain, which neither data nor the number of classes is part of."""
    return build_chain(point, data="", num_classes=point.process.k).name


def _settings_of(study: Study, specs: Sequence[GenerationSpec]) -> Study:
    first = specs[0].task
    assert not isinstance(first, StudentSpec)
    students = [spec.task for spec in specs[1:] if isinstance(spec.task, StudentSpec)]
    lams = {student.lam for student in students}
    process = {
        "f_a1": round(primary_for_eta(first.eta, k=first.k or study.process.k), 12),
        "k": first.k or study.process.k,
        "lam": tuple(s.lam for s in students) if len(lams) > 1 else next(iter(lams), 0.0),
    }
    if students:
        process["temperature"] = students[0].temperature
    networks = [spec.network.name for spec in specs]
    network = {"name": networks[0], "students": next((n for n in networks[1:] if n != networks[0]), None)}
    return study.model_copy(
        update={
            "process": study.process.model_copy(update=process),
            "network": study.network.model_copy(update=network),
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
