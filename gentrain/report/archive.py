"""Copy a study's results, without weights and images, into a run folder that git or a paper's supplement can hold.

Whatever reads results reads it like any run folder, and verifies it by the same records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gentrain.data.prepare.manifest import Manifest
from gentrain.errors import ConfigError
from gentrain.events import Note, Observer
from gentrain.report.gather import gather_study
from gentrain.report.training import training_scores
from gentrain.report.write import REPORT, TRAINING, Written, write_report
from gentrain.results.chain import Generations, RecordedChain, read_chain
from gentrain.results.legacy import chain_settings
from gentrain.store.done import AVERAGE, DATA, MODEL, SPEC
from gentrain.store.generation import GenerationFolder
from gentrain.store.run import RunStore
from gentrain.store.study_record import (
    ChainEntry,
    StudyRecord,
    recorded_chains,
    recorded_study,
    study_names,
)
from gentrain.study.schema import Study

WEIGHTS = frozenset({MODEL, AVERAGE})


@dataclass(frozen=True)
class Archived:
    """Hold what an archive has of a study."""

    generations: int
    """Finished ones."""
    bytes: int
    """Of their files and records, without the report."""
    report: Written


def archive_study(store: RunStore, study: str, to: str, *, observe: Observer = lambda _: None) -> Archived:
    """Write a study's finished generations, its record, table and report into another run folder.

    Each generation keeps its record, spec, epochs, predictions and the description of its data. Weights, images,
    checkpoints and the source's path (`dataset.path`) stay behind. What the archive has of this study stays, or is
    written again.

    Args:
        store: the run folder.
        study: name of a study in it, finished or not.
        to: the archive, a folder of a disk; the report's page names it as it is given here.
        observe: receives notes on slow steps and warnings on damaged files.

    Raises:
        ConfigError, StoreError: see `gather.gather_study`; or the archive is the run folder, or no folder of a disk.
        ResourceError: the archive can't be written.
    """
    if "://" in to or (target := RunStore(to)).uri == store.uri:
        raise ConfigError(f"--to {to}: must be a folder of a disk, and another one than the run folder")
    recorded, entries = recorded_study(store, study), recorded_chains(store, study, warn=lambda _: None)
    settings = {name: chain_settings(entry, recorded, store) for name, entry in entries.items()}
    chains = [RecordedChain(name, entries[name].keys, known) for name, known in settings.items() if known is not None]
    generations = Generations(store, chains)
    rows = [result.row for chain in chains for result in read_chain(chain, generations) if result]
    sizes = {row["key"]: _copy_generation(store.generation(row["key"]), target.generation(row["key"])) for row in rows}
    _record(
        _portable(recorded), [replace(entries[c.name], settings=_portable(c.settings)) for c in chains], rows, target
    )
    kept, copied = store.study(study) / REPORT / TRAINING, target.study(study) / REPORT / TRAINING
    gathered = gather_study(store, study)
    for note in gathered.notes:
        observe(Note(note, "warning"))
    training_scores(gathered, store, kept, observe=observe)
    for name in kept.names():
        copied.write(name, kept.read(name) or b"")
    return Archived(len(sizes), sum(sizes.values()), write_report(target, study, place=to, observe=observe))


def only_study(archive: RunStore) -> str:
    """Return the name of the archive's study.

    Raises:
        ConfigError: when there is none, or several.
    """
    names = study_names(archive)
    if len(names) != 1:
        raise ConfigError(f"{archive.root}: name one of its studies: {', '.join(names) or 'there is none'}")
    return names[0]


def _copy_generation(source: GenerationFolder, copy: GenerationFolder) -> int:
    """Copy a finished generation's files but its weights, the record last; return their size in bytes."""
    done = source.done()
    assert done is not None  # its row was read
    contents = {name: source.read_verified(name, done=done) for name in done.files if name not in WEIGHTS}
    contents.setdefault(SPEC, source.file(SPEC, done=done) or b"")  # version 0.1 recorded no digest of it
    if Manifest.parse(manifest := source.read_record(DATA)) is not None:
        contents[DATA] = manifest or b""
    for name, content in contents.items():
        copy.write(name, content)
    copy.record.write_done(done.with_plain_names(), token=None)
    return sum(map(len, contents.values()))


def _record(study: Study, chains: Sequence[ChainEntry], rows: Iterable[Mapping[str, Any]], target: RunStore) -> None:
    """Record the study and its chains, with how they ended, and their rows beside those that are there."""
    stopped = {chain.name for chain in chains if chain.stopped}
    failed = {chain.name: chain.failed for chain in chains if chain.failed is not None}
    record = StudyRecord(study, store=target)
    record.begin(chains, stopped=stopped, failed=failed)
    record.add(rows)


def _portable(study: Study) -> Study:
    """Return the study without the path of its images, which is this machine's."""
    return study.model_copy(update={"dataset": study.dataset.model_copy(update={"path": None})})
