"""List what nothing in a run folder needs any more, and remove it.

A study needs the generations that its chains' records name, those that these learned from, and its prepared dataset.
What isn't of a form that gentrain writes is never listed, nor what a process is at work on, nor what changed a short
time ago: a run prepares its data, and adopts pretrained weights, before it records its study.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gentrain.data.prepare.dataset import MANIFEST, prepared_name
from gentrain.data.prepare.manifest import Manifest
from gentrain.data.prepare.writing import discard, preparing
from gentrain.data.sources.registry import source_missing
from gentrain.errors import ConfigError, GentrainError, StoreError
from gentrain.models.registry import label
from gentrain.results.status import study_status
from gentrain.store import disk
from gentrain.store.done import DATA, DONE, FILES
from gentrain.store.folder import Folder
from gentrain.store.generation import GenerationFolder
from gentrain.store.record import RECORD
from gentrain.store.removal import REMOVED, StoredFile, files_below, holder, remove_folder, remove_generation
from gentrain.store.run import RunStore
from gentrain.store.study_record import recorded_chains, recorded_study, study_names
from gentrain.study.sections import DatasetConfig
from gentrain.study.tasks import StudentSpec

Kind = Literal["generation", "prepared data", "checkpoints", "log", "temporary file"]
DAY = 86_400.0
KEY = re.compile(r"[0-9a-f]{16}")
PREPARED = re.compile(r".+-[0-9a-f]{12}")
_CHECKSUM = re.compile(r"\.[0-9a-f]{16}(?=\.)")
_UNFINISHED = re.compile(r"\.(?:building-(?P<built>.+)-[0-9a-f]{8}(?:\.old)?|shards-(?P<sharded>.+))")
"""Folders of preparations that were killed, and the name of the dataset."""
ENDED = ("done", "stopped", "saturated")


@dataclass(frozen=True)
class Unneeded:
    """Something that nothing needs."""

    kind: Kind
    path: str
    """In the run folder."""
    bytes: int
    changed: float
    """When its newest file was written, in seconds since 1970."""


@dataclass(frozen=True)
class Leftovers:
    """What nothing in a run folder needs."""

    items: tuple[Unneeded, ...]
    young: int
    """How many more nothing needs, which changed lately."""
    notes: tuple[str, ...]
    """A line for each thing that is kept because it, or who needs it, can't be made out."""

    @property
    def bytes(self) -> int:
        """Size of all."""
        return sum(item.bytes for item in self.items)


@dataclass
class Needs:
    """What the studies of a run folder need."""

    keys: set[str] = field(default_factory=set)
    data: set[str] = field(default_factory=set)
    """Names of prepared datasets."""
    fingerprints: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    """Beginnings of names of prepared datasets of which it isn't known whether they are needed."""
    problems: list[str] = field(default_factory=list)
    """A line for each record without which it isn't known what is needed."""


def find_unneeded(store: RunStore, *, older_than: float = 1.0) -> Leftovers:
    """Return what nothing needs; nothing is changed.

    Args:
        store: the run folder, on a disk or an object store.
        older_than: days for which it must not have changed.
    """
    needs = needs_of(store)
    notes: list[str] = []
    items = [*_generations(store, needs, notes.append), *_prepared(store, needs, notes.append)]
    if store.local:
        within = tuple(f"{item.path}/" for item in items)
        items += _logs(store)
        items += [item for item in _temporary(store, needs) if not item.path.startswith(within)]
    if needs.problems:
        notes += [*needs.problems, "so no generation and no prepared data is listed: it may be needed"]
    oldest = time.time() - older_than * DAY
    old = tuple(item for item in items if item.changed <= oldest)
    return Leftovers(old, len(items) - len(old), tuple(notes))


def remove_unneeded(store: RunStore, items: Iterable[Unneeded], *, notify: Callable[[str], None]) -> int:
    """Remove what `find_unneeded` returned; return how many bytes that were.

    Each is looked at again: what a study that has begun meanwhile needs, or a process is at work on, stays.

    Args:
        store: the run folder.
        items: to remove.
        notify: gets a line for each that stays.
    """
    removed = 0
    for item in items:
        try:
            gone = _remove(store, item)
        except StoreError as error:
            notify(f"{item.path}: kept: {error}")
            continue
        removed += item.bytes if gone else 0
        if not gone:
            notify(f"{item.path}: kept: it is needed, or worked on, by now")
    return removed


def needs_of(store: RunStore) -> Needs:
    """Return what the studies need, by their records."""
    needs = Needs()
    for name in study_names(store):
        _add_study(store, name, needs)
    pending = list(needs.keys)
    while pending:
        spec = store.generation(pending.pop()).spec()
        if spec is None:
            continue  # not trained yet, or damaged
        needs.fingerprints.add(spec.data)
        teachers = spec.task.teachers if isinstance(spec.task, StudentSpec) else ()
        pending += [key for key in teachers if key not in needs.keys]
        needs.keys.update(teachers)
    return needs


def _add_study(store: RunStore, name: str, needs: Needs) -> None:
    try:
        study = recorded_study(store, name)
        entries = recorded_chains(store, name, warn=needs.problems.append)
        if len(study.points(importing=False)) > len(entries):
            raise ConfigError(f"study {name}: chains without a record; run it again, or delete {store.study(name)}")
    except GentrainError as error:
        if any(not file.name.startswith((".", "ray.log", "ray/")) for file in files_below(store.study(name))):
            needs.problems.append(str(error))
        return
    needs.keys.update(key for entry in entries.values() for key in entry.keys)
    settings = [study, *(entry.settings for entry in entries.values() if entry.settings)]
    for dataset in dict.fromkeys(part.dataset for part in settings):
        _add_dataset(dataset, needs)


def _add_dataset(dataset: DatasetConfig, needs: Needs) -> None:
    try:
        if not source_missing(dataset):
            needs.data.add(prepared_name(dataset))
            return
    except (GentrainError, OSError):
        pass
    needs.sources.add(f"{label(dataset.source)}-")


def _generations(store: RunStore, needs: Needs, note: Callable[[str], None]) -> Iterator[Unneeded]:
    """Yield generations of no study, and checkpoints of finished ones."""
    for key in (store.root / "generations").names():
        folder = store.generation(key)
        if not KEY.fullmatch(key) or not _is_folder(folder):
            note(f"{folder}: no generation's folder; kept")
        elif key in needs.keys:
            yield from _checkpoints(folder)
        elif not needs.problems and not folder.at_work():
            files = files_below(folder)
            if strange := [file.name for file in files if not _of_generation(file)]:
                note(f"{folder}/{strange[0]}: no file of a generation; the folder is kept")
            elif any(not file.name.startswith(".") and file.name != RECORD for file in files):
                yield _unneeded("generation", str(folder), files)


def _checkpoints(folder: GenerationFolder) -> Iterator[Unneeded]:
    """Yield the checkpoints of a generation that is finished, and verified."""
    if folder.training and folder.done() is not None and not folder.at_work() and folder.inspect().valid:
        yield _unneeded("checkpoints", str(folder.train), files_below(folder.train))


def _prepared(store: RunStore, needs: Needs, note: Callable[[str], None]) -> Iterator[Unneeded]:
    for name in (store.root / "data").names() if not needs.problems else ():
        folder = store.root / "data" / name
        files = files_below(folder)
        if not PREPARED.fullmatch(name) or not _is_folder(folder):
            note(f"{folder}: no prepared dataset; kept")
        elif strange := [file.name for file in files if not _of_prepared(file)]:
            note(f"{folder}/{strange[0]}: no file of a prepared dataset; the folder is kept")
        elif not _needed(store, name, needs) and not _being_prepared(store, name):
            yield _unneeded("prepared data", str(folder), files)


def _needed(store: RunStore, name: str, needs: Needs) -> bool:
    if name in needs.data or any(name.startswith(source) for source in needs.sources):
        return True
    manifest = Manifest.parse((store.root / "data" / name).read_record(MANIFEST))
    return manifest is not None and manifest.fingerprint in needs.fingerprints


def _logs(store: RunStore) -> Iterator[Unneeded]:
    """Yield what Ray left in the folders of studies that have come to their end."""
    for name in study_names(store):
        folder = store.study(name)
        try:
            cells = [cell for chain in study_status(store, name).chains.values() for cell in chain]
        except GentrainError:
            continue
        if not cells or any(cell.state not in ENDED for cell in cells):
            continue
        log = [file for file in files_below(folder) if file.name == "ray.log"]
        tune = files_below(folder / "ray") if _is_folder(folder / "ray") else []
        yield from [_unneeded("log", f"{folder}/ray.log", log)] * bool(log)
        yield from [_unneeded("log", f"{folder}/ray", tune)] * bool(tune)


def _temporary(store: RunStore, needs: Needs) -> Iterator[Unneeded]:
    """Yield what killed writes, preparations and removals left on a disk."""
    root = Path(store.root.path)
    folders = [root, *root.glob("studies/*"), *root.glob("studies/*/*"), root / "data", *root.glob("data/*")]
    folders += [*root.glob("generations/*"), *root.glob("generations/*/train")]
    for folder in folders:
        if folder.is_dir():
            for name in disk.litter(str(folder)):
                status = (folder / name).lstat()
                yield Unneeded("temporary file", str(folder / name), status.st_size, status.st_mtime)
    for folder in (*root.glob(f"generations/{REMOVED}*"), *root.glob(f"data/{REMOVED}*")):
        yield _unneeded("temporary file", str(folder), files_below(_on(store, folder)))
    for folder in root.glob("data/.*"):
        if (match := _UNFINISHED.fullmatch(folder.name)) is None or _being_prepared(store, match["built"] or ""):
            continue
        if (name := match["sharded"]) and (_being_prepared(store, name) or _may_go_on(store, name, needs)):
            continue
        yield _unneeded("temporary file", str(folder), files_below(_on(store, folder)))


def _may_go_on(store: RunStore, name: str, needs: Needs) -> bool:
    """Return whether a preparation that was killed may yet go on from its shards."""
    return bool(needs.problems) or (_needed(store, name, needs) and not (store.data / name / MANIFEST).exists())


def _remove(store: RunStore, item: Unneeded) -> bool:
    """Remove one thing unless it is needed or worked on by now; return whether it is gone."""
    folder = _on(store, Path(item.path))
    name = folder.path.rpartition("/")[2]
    if item.kind == "generation":
        return _remove_generation(store, name)
    if item.kind == "checkpoints":
        generation = store.generation(Path(item.path).parent.name)
        if generation.at_work() or not generation.inspect().valid:
            return False
        generation.clear_training()
        return True
    if item.kind == "prepared data":
        return _remove_prepared(store, name)
    if item.kind == "log" and item.path not in {log.path for log in _logs(store)}:
        return False
    discard(Path(item.path))
    return not Path(item.path).exists()


def _remove_generation(store: RunStore, key: str) -> bool:
    folder = store.generation(key)
    if folder.at_work():
        return False
    claim = (
        folder.locked(waiting=lambda: None, holder=holder())
        if folder.local
        else folder.claimed(holder(), waiting=lambda _: None)
    )
    with claim:
        needs = needs_of(store)
        if needs.problems or key in needs.keys:
            return False
        remove_generation(folder)
    return True


def _remove_prepared(store: RunStore, name: str) -> bool:
    needs = needs_of(store)
    if needs.problems or _needed(store, name, needs) or _being_prepared(store, name):
        return False
    if not store.local:
        remove_folder(store.root / "data" / name, first=(MANIFEST,))
        return True
    with preparing(store.data / name, notify=lambda _: None):
        remove_folder(store.root / "data" / name)
    return True


def _being_prepared(store: RunStore, name: str) -> bool:
    return store.local and (store.root / "data" / f".preparing-{name}").lock_held()


def _of_generation(file: StoredFile) -> bool:
    """Return whether gentrain writes such a file into a generation's folder."""
    name = _CHECKSUM.sub("", file.name, count=1)
    known = name in FILES or name in (DATA, DONE, RECORD) or name.startswith(("train/", "."))
    return known and file.regular and "/." not in file.name.removeprefix("train/")


def _of_prepared(file: StoredFile) -> bool:
    known = file.name == MANIFEST or file.name.endswith(".beton") or file.name.startswith(".")
    return known and "/" not in file.name and file.regular


def _is_folder(folder: Folder) -> bool:
    return not folder.local or (Path(folder.path).is_dir() and not Path(folder.path).is_symlink())


def _on(store: RunStore, path: Path) -> Folder:
    return Folder(store.root.filesystem, str(path), store.root.objects)


def _unneeded(kind: Kind, path: str, files: Iterable[StoredFile]) -> Unneeded:
    files = list(files)
    changed = max((file.changed for file in files), default=0.0)
    return Unneeded(kind, path, sum(file.bytes for file in files), changed)
