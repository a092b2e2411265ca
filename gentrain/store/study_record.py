"""A study's folder: the study as resolved, its chains, the table of results."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml

from gentrain.errors import ConfigError, StoreError
from gentrain.store.folder import Folder, check_files, decode_table, digest, encode_table, mapping_digest, read_metadata
from gentrain.store.run import RunStore
from gentrain.study.lineage import Chain
from gentrain.study.loading import dump_study, flat_settings, parse_study
from gentrain.study.schema import Study
from gentrain.study.settings import current_form

RESULTS = pa.schema(
    [(name, pa.string()) for name in ("chain", "key", "network")]
    + [(name, pa.int64()) for name in ("generation", "seed", "workers")]
    + [
        (name, pa.float64())
        for name in (
            "f_a1",
            "lambda",
            "top1_error",
            "top5_error",
            "nll",
            "ece",
            "ensemble_top1_error",
            "ensemble_top5_error",
            "ensemble_nll",
            "ensemble_ece",
            *(
                f"{kind}_{name}"
                for kind in ("weighted", "selected")
                for name in ("top1_error", "top5_error", "nll", "ece")
            ),
            "primary_measured",
            "primary_predicted",
            "primary_test",
            "validation_error",
            "train_seconds",
        )
    ]
    + [("ensemble_weights", pa.list_(pa.float64())), ("selected_generations", pa.list_(pa.int64()))]
)
"""results.parquet: errors are fractions; ensemble_* are null for the patriarch, which has none; primary_measured is the
training set's mean largest score in the last epoch, primary_test the test set's. weighted_* and selected_* are the test
errors of ensembles that were fitted on the held-out split, with the weight of every generation so far and the
generations selected; null where there is no such split. f_a1 is null where the first generations are given."""


STUDY, RESULTS_TABLE, CHAINS = "study.yaml", "results.parquet", "chains"
SHARED = (
    "dataset", "recipe", "precision", "compile", "sync_batchnorm", "fold_batchnorm", "patience", "scheduler"
)  # fmt: skip
"""Settings, or their sections, that all chains of a study without a grid have in common."""
_CHECKSUM = re.compile(rb"# sha256 of the lines below: ([0-9a-f]{64})")
_KEY = re.compile(r"[0-9a-f]{16}")
_DIGEST = b"gentrain.digest"


@dataclass(frozen=True)
class ChainEntry:
    """A chain as the study's last run recorded it."""

    name: str
    keys: tuple[str, ...]
    """Of its generations, in order."""
    settings: Study | None = None
    """The chain's own study; None where an older version recorded it."""
    stopped: bool = False
    """Whether the study's scheduler has ended it early."""
    failed: str | None = None
    """Why it could not be finished."""


def study_names(store: RunStore) -> list[str]:
    """Return the names of the studies in the run folder."""
    return (store.root / "studies").names()


def recorded_study(store: RunStore, name: str) -> Study:
    """Return a study as its last run resolved it.

    Raises:
        ConfigError: when there is no such study, naming the nearest and those there are.
        StoreError: when its record is damaged.
    """
    folder = store.study(name)
    content = folder.read(STUDY)
    if content is None:
        known = study_names(store)
        near = difflib.get_close_matches(name, [other for other in known if other != name], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        lost = f"its {STUDY} is missing: run the study again to restore it; " if name in known else ""
        raise ConfigError(f"{name}: no such study in {store.root}; {lost}{hint}there: {', '.join(known) or 'none'}")
    mapping = _study_mapping(content)
    if mapping is None:
        raise StoreError(f"{folder}/{STUDY}: damaged; run the study again to restore it")
    study = parse_study(mapping, where=f"{folder}/{STUDY}", recorded=True)
    if study.name != name:
        raise StoreError(f"{folder}/{STUDY}: is of study {study.name}; run study {name} again to restore it")
    return study


def _encode_study(study: Study) -> bytes:
    """Return the content of study.yaml: the sha256 of what follows as a comment, then the study."""
    content = dump_study(study).encode()
    return f"# sha256 of the lines below: {digest(content)}\n".encode() + content


def _study_mapping(content: bytes) -> dict[str, Any] | None:
    """Return the settings in a study.yaml, not validated; None where it is damaged.

    Versions before the checksum wrote none, and are read as they are.
    """
    first, _, rest = content.partition(b"\n")
    checksum = _CHECKSUM.fullmatch(first)
    if checksum is not None and checksum[1].decode() != digest(rest):
        return None
    try:
        mapping = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date that isn't, text that isn't UTF-8
        return None
    return mapping if isinstance(mapping, dict) else None


def recorded_chains(store: RunStore, study: str, *, warn: Callable[[str], None]) -> dict[str, ChainEntry]:
    """Return a study's recorded chains by name; `warn` is called with a line for each record that is damaged."""
    entries = {}
    folder = store.study(study) / CHAINS
    for file in folder.names():
        entry = _read_entry(folder, file)
        if entry is None:
            warn(f"{folder}/{file}: damaged, or no chain's; run the study again to restore it, or delete it")
        else:
            entries[entry.name] = entry
    return entries


def _read_entry(folder: Folder, file: str) -> ChainEntry | None:
    """Return a chain's record; None where it is damaged, or has another chain's name."""
    try:
        entry = json.loads(folder.read_record(file) or b"")
        if f"{entry['name']}.json" != file or entry.get("digest", checksum := mapping_digest(entry)) != checksum:
            return None
        settings, keys, failed = entry.get("settings"), entry["keys"], entry.get("failed")
        if not all(_KEY.fullmatch(key) for key in keys) or not isinstance(failed, str | None):
            return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return ChainEntry(
        name=entry["name"],
        keys=tuple(keys),
        settings=None if settings is None else parse_study(settings, where=f"{folder}/{file}", recorded=True),
        stopped=bool(entry.get("stopped")),
        failed=failed,
    )


def encode_rows(rows: Iterable[Mapping[str, Any]], study: str) -> bytes:
    """Return the content of a study's results.parquet, whose metadata has a digest of the rows and the study's name."""
    table = pa.Table.from_pylist(list(rows), RESULTS)
    return encode_table(table.replace_schema_metadata({_DIGEST: _rows_digest(table.to_pylist(), study)}))


def decode_rows(content: bytes | None, study: str) -> list[dict[str, Any]] | None:
    """Return the rows of a study's results.parquet; None where it is missing, damaged or another study's.

    Versions before the digest wrote none, and are read as they are.
    """
    if content is None:
        return None
    try:
        rows, metadata = decode_table(content), read_metadata(content)
    except (pa.ArrowException, OSError, ValueError):
        return None
    if metadata.get(_DIGEST, checksum := _rows_digest(rows, study).encode()) != checksum:
        return None
    return rows if all({"chain", "generation", "key"} <= row.keys() for row in rows) else None


def read_results(store: RunStore, study: str) -> list[dict[str, Any]]:
    """Return the rows of a study's results.parquet.

    Raises:
        ConfigError: when there is no such study (see `recorded_study`).
        StoreError: when the table is missing or damaged.
    """
    recorded_study(store, study)
    rows = decode_rows(store.study(study).read_record(RESULTS_TABLE), study)
    if rows is None:
        path = f"{store.study(study)}/{RESULTS_TABLE}"
        raise StoreError(f"{path}: missing or damaged; run the study again: it writes it from what is finished")
    return rows


def _rows_digest(rows: list[dict[str, Any]], study: str) -> str:
    return mapping_digest({"study": study, "rows": rows})


def _flat_record(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded study's settings by their dotted names, with the defaults of those that came later."""
    try:
        return flat_settings(parse_study(recorded, where=STUDY, recorded=True).dump())
    except ConfigError:
        return flat_settings(current_form(Study, recorded))


def _shared(key: str) -> bool:
    """Return whether all chains of a study without a grid have this setting in common."""
    return key not in ("dataset.path", "scheduler.order") and key.split(".", maxsplit=1)[0] in SHARED


def _differs(key: str, old: Any, new: Any) -> bool:
    """Return whether a setting has changed; `auto` in place of false, the default before it, has the same keys."""
    return old != new and (key not in ("compile", "pin_workers") or True in (old, new))


class StudyRecord:
    """Writes the folder of one study; what was recorded before is read once."""

    def __init__(self, study: Study, *, store: RunStore) -> None:
        self.study = study
        self.folder = store.study(study.name)
        self._damaged_chains: list[str] = []
        self.before = recorded_chains(store, study.name, warn=self._damaged_chains.append)
        """Chains as they were recorded before."""
        self._old_study = self.folder.read_record(STUDY)
        self._old_table = self.folder.read_record(RESULTS_TABLE)

    def damage(self, chains: Iterable[Chain]) -> list[str]:
        """Return a line for each file that was damaged when the study was opened.

        The study's own files, and those of `chains`, are written again by `begin` and `add`.
        """
        wanted = tuple(f"/{chain.name}.json: " for chain in chains)
        lines = [
            f"{line.partition(': ')[0]}: damaged; it is written again" if any(name in line for name in wanted) else line
            for line in self._damaged_chains
        ]
        if self._old_study is not None and _study_mapping(self._old_study) is None:
            lines.append(f"{self.folder}/{STUDY}: damaged; it is written again")
        if self._old_table is not None and self.table_lost:
            lines.append(f"{self.folder}/{RESULTS_TABLE}: damaged; it is written again from the generations")
        return lines

    @property
    def table_lost(self) -> bool:
        """Whether results.parquet was missing or damaged."""
        return decode_rows(self._old_table, self.study.name) is None

    def begin(
        self,
        chains: Iterable[Chain | ChainEntry],
        *,
        stopped: Container[str] = (),
        failed: Mapping[str, str] | None = None,
    ) -> None:
        """Write the study, and the keys and settings of its chains, beside those that are there.

        Args:
            chains: of the study.
            stopped: names of those that the study's scheduler has ended early.
            failed: why others could not be finished, by their names.
        """
        chains = list(chains)
        check_files(self.folder / CHAINS, *(f"{chain.name}.json" for chain in chains))
        check_files(self.folder, STUDY, RESULTS_TABLE)
        for folder in (self.folder, self.folder / CHAINS):
            folder.sweep()
        self.folder.write(STUDY, _encode_study(self.study))
        for chain in chains:
            entry: dict[str, Any] = {
                "name": chain.name,
                "keys": chain.keys,
                "settings": chain.settings and chain.settings.dump(),
                "stopped": chain.name in stopped,
                "failed": (failed or {}).get(chain.name),
            }
            sealed = entry | {"digest": mapping_digest(entry)}
            (self.folder / CHAINS).write_json(f"{chain.name}.json", sealed)

    def stopped(self) -> frozenset[str]:
        """Return the chains that the study's scheduler has stopped; where it has none now, they go on."""
        if self.study.scheduler.name == "fifo":
            return frozenset()
        return frozenset(name for name, entry in self.before.items() if entry.stopped)

    def check_unchanged(self, chains: Iterable[Chain], *, extend: bool) -> None:
        """Refuse to mix two studies: what one of this name wanted before must still be wanted, to the key.

        A study without a grid may be extended by a chain of another process, network or seed, or by generations.

        Raises:
            ConfigError: with the settings that differ; where chains or generations are only added, unless `extend`.
        """
        if self._old_study is None:
            return
        wanted = {chain.name: list(chain.keys) for chain in chains}
        recorded = _study_mapping(self._old_study)
        new = flat_settings(self.study.dump())
        old = new if recorded is None else _flat_record(recorded)
        differing = [key for key in {**old, **new} if _differs(key, old.get(key), new.get(key))]
        if self.study.grid.empty:
            known = {name: list(entry.keys) for name, entry in self.before.items() if name in wanted}
            added = [name for name in wanted if wanted[name] != known.get(name)]
            changed = [name for name, keys in known.items() if wanted[name][: len(keys)] != keys]
            changed += [key for key in differing if _shared(key)] if added else []
            changed += [key for key in differing if key.startswith("grid")]
        else:
            changed = [name for name, entry in self.before.items() if wanted.get(name) != list(entry.keys)]
            added = [name for name in wanted if name not in self.before]
        if not changed and (extend or not added):
            return
        if not differing and not changed:
            return  # the records of the chains that seem to be added are missing or damaged
        differences = [f"{key}: {old.get(key)} → {new.get(key)}" for key in differing]
        shown = "; ".join(differences) or "the dataset's pixels or the method"
        what = "chains or generations" if self.study.grid.empty else "chains"
        other = f"give the study a new name (--set name={self.study.name}-2)"
        remedy = other if changed else f"use --extend to add {what}, or give it a new name"
        raise ConfigError(f"study {self.study.name} was changed since its last run ({shown}); {remedy}")

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put rows into results.parquet, in place of those of the same chain and generation.

        Processes that add rows at once lose none (see `Folder.update`). The table is only a summary: a run of the study
        reads the rows of all its finished chains from their generations and adds them again.
        """
        rows = list(rows)

        def merged(content: bytes | None) -> bytes:
            old = decode_rows(content, self.study.name) or []
            table = {(row["chain"], row["generation"]): row for row in (*old, *rows)}
            return encode_rows((table[place] for place in sorted(table)), self.study.name)

        self.folder.update(RESULTS_TABLE, merged)
