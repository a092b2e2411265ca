"""Read a report's records from the run folder; every file used is verified, damaged ones are noted."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace

from gentrain.data.prepare.dataset import find_manifest, prepared_name
from gentrain.data.prepare.manifest import Manifest
from gentrain.data.prepare.share import find_shared, find_trained_on
from gentrain.errors import DataError
from gentrain.report.records import ENSEMBLE, MOST_CLASSES, SINGLE, ChainRecord, GenerationRecord, Group, StudyReport
from gentrain.results.chain import (
    COLUMNS,
    GenerationResult,
    Generations,
    RecordedChain,
    read_chain,
)
from gentrain.results.legacy import chain_settings
from gentrain.results.status import GenerationStatus, study_status
from gentrain.scores.confusion import confusion_matrix
from gentrain.scores.metrics import reliability
from gentrain.store.run import RunStore
from gentrain.store.study_record import recorded_chains, recorded_study
from gentrain.study.lineage import predicted_scores
from gentrain.study.schema import Study

OTHER_MEASURES = ("primary_measured", "train_seconds")


def gather_study(store: RunStore, study_name: str) -> StudyReport:
    """Return everything that a report shows of a study, finished or not.

    Scores are computed from the stored predictions, whose checksums are verified first. The last epoch is the result.

    Raises:
        ConfigError, StoreError: see `recorded_study` and `recorded_chains`.
    """
    study, status = recorded_study(store, study_name), study_status(store, study_name)
    points = {point: place for place, point in enumerate(study.points(importing=False))}
    notes: dict[str, None] = {}
    chains = []
    for entry in recorded_chains(store, study_name, warn=lambda line: notes.update({line: None})).values():
        settings = chain_settings(entry, study, store)
        if settings is None or (settings not in points and not _comparable(settings, study)):
            notes[f"{entry.name}: left out: it was run with other settings under this study's name"] = None
        else:
            chains.append(RecordedChain(entry.name, entry.keys, settings))
    chains.sort(key=lambda chain: points.get(chain.settings, len(points)))
    generations = Generations(store, chains)
    records = [_chain(chain, status.chains[chain.name], generations) for chain in chains]
    records = list(_of_the_same_data(records, points, notes))
    notes |= {f"{path}: damaged or missing; run the study again to restore it": None for path in generations.damaged}
    by_group: dict[tuple[str, str], list[ChainRecord]] = {}
    for record in records:
        by_group.setdefault((record.label, record.network), []).append(record)
    labels = list(dict.fromkeys(label for label, _ in by_group))
    data, manifest = _dataset(store, study, records)
    return StudyReport(
        study=study,
        uri=store.uri,
        groups=tuple(Group(f"p{labels.index(label)}", tuple(own)) for (label, _), own in by_group.items()),
        failures=status.failures,
        notes=tuple(notes),
        data=data,
        manifest=manifest,
    )


def _comparable(settings: Study, study: Study) -> bool:
    """Return whether a chain that isn't one of the study's own may stand beside them: same data and recipe."""
    same = all(getattr(settings, name) == getattr(study, name) for name in ("recipe", "precision"))
    same = same and (settings.compile is True) == (study.compile is True)
    return same and _content(settings) == _content(study)


def _of_the_same_data(
    records: Sequence[ChainRecord], points: Container[Study], notes: dict[str, None]
) -> Iterator[ChainRecord]:
    """Yield the chains whose finished generations were trained on the data of the study's own."""
    wanted = next((_data(record) for record in records if record.study in points and _data(record)), None)
    for record in records:
        if record.study in points or wanted is None or _data(record) in (None, wanted):
            yield record
        else:
            notes[f"{record.name}: left out: it was run on other data under this study's name"] = None


def _data(record: ChainRecord) -> str | None:
    """Return the fingerprint of the data that a chain was trained on; None where nothing of it is finished."""
    return next((generation.spec.data for generation in record.generations if generation.spec), None)


def _content(study: Study) -> dict[str, object]:
    return study.dataset.model_dump(exclude={"path"})


def _chain(chain: RecordedChain, cells: Sequence[GenerationStatus], generations: Generations) -> ChainRecord:
    """Return a chain's record, with the results of its finished generations."""
    results = [result for result, _ in zip(read_chain(chain, generations), cells, strict=True)]
    measured = [result.finished.done.train_primary for result in results[: len(chain.settings.pretrained)] if result]
    targets = predicted_scores(chain.settings, measured)
    records = []
    for place, (cell, result) in enumerate(zip(cells, results, strict=True)):
        target = targets[place] if place < len(targets) else None
        record = GenerationRecord(cell.generation, cell.key, cell.state, cell.epoch, target)
        records.append(_with_result(record, result))
    return ChainRecord(chain.name, chain.settings, tuple(records))


def _with_result(record: GenerationRecord, result: GenerationResult | None) -> GenerationRecord:
    if result is None:
        return replace(record, state="damaged" if record.state == "done" else record.state)
    finished, row = result.finished, result.row
    bins = {SINGLE: reliability(finished.probabilities, finished.labels)}
    if result.ensemble is not None:
        bins[ENSEMBLE] = reliability(result.ensemble, finished.labels)
    measures = {name: row[name] for name in row if name.endswith(COLUMNS) or name in OTHER_MEASURES}
    values = {name: value for name, value in measures.items() if value is not None}
    probabilities = finished.probabilities if result.ensemble is None else result.ensemble
    confusion = confusion_matrix(probabilities, finished.labels) if probabilities.shape[1] <= MOST_CLASSES else None
    return replace(record, spec=finished.spec, done=finished.done, values=values, bins=bins, confusion=confusion)


def _dataset(store: RunStore, study: Study, chains: Sequence[ChainRecord]) -> tuple[str | None, Manifest | None]:
    """Return the prepared dataset's folder name and manifest, by its fingerprint where a generation tells it."""
    spec = next((record.spec for chain in chains for record in chain.generations if record.spec), None)
    if spec is not None:
        return find_shared(spec.data, store) or (None, find_trained_on(spec.key, spec.data, store))
    with contextlib.suppress(DataError):
        return prepared_name(study.dataset), find_manifest(study.dataset, store.data)
    return None, None
