"""A study's folder: the study as resolved, its chains, the table of results."""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml

from gentrain.errors import ConfigError, StoreError
from gentrain.store.folder import Folder, decode_table, encode_table
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
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{name}: no such study in {store.root}; {hint}there: {', '.join(known) or 'none'}")
    try:
        mapping = yaml.safe_load(content)
    except yaml.YAMLError:
        mapping = None
    if not isinstance(mapping, dict):
        raise StoreError(f"{folder}/{STUDY}: damaged; run the study again to restore it")
    return parse_study(mapping, where=f"{folder}/{STUDY}")


def recorded_chains(store: RunStore, study: str) -> dict[str, ChainEntry]:
    """Return a study's recorded chains by name.

    Raises:
        StoreError: naming a record that is damaged.
    """
    entries = {}
    folder = store.study(study) / CHAINS
    for file in folder.names():
        entry = _read_entry(folder, file)
        if entry is None:
            raise StoreError(f"{folder}/{file}: damaged; run the study again to restore it")
        entries[entry.name] = entry
    return entries


def _read_entry(folder: Folder, file: str) -> ChainEntry | None:
    """Return a chain's record; None where it is damaged."""
    try:
        entry = json.loads(folder.read(file) or b"")
        settings = entry.get("settings")
        return ChainEntry(
            name=entry["name"],
            keys=tuple(entry["keys"]),
            settings=None if settings is None else parse_study(settings, where=f"{folder}/{file}"),
            stopped=bool(entry.get("stopped")),
            failed=entry.get("failed"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class StudyRecord:
    """Writes the folder of one study; what was recorded before is read once."""

    def __init__(self, study: Study, *, store: RunStore) -> None:
        self.study = study
        self.folder = store.study(study.name)
        chains = self.folder / CHAINS
        entries = (_read_entry(chains, file) for file in chains.names())
        self._before = {entry.name: entry for entry in entries if entry is not None}  # a damaged one is written again

    def begin(
        self, chains: Iterable[Chain], *, stopped: Container[str] = (), failed: Mapping[str, str] | None = None
    ) -> None:
        """Write the study, and the keys and settings of its chains, beside those that are there.

        Args:
            chains: of the study.
            stopped: names of those that the study's scheduler has ended early.
            failed: why others could not be finished, by their names.
        """
        self.folder.write(STUDY, dump_study(self.study).encode())
        for chain in chains:
            entry = {
                "name": chain.name,
                "keys": chain.keys,
                "settings": chain.settings.dump(),
                "stopped": chain.name in stopped,
                "failed": (failed or {}).get(chain.name),
            }
            (self.folder / CHAINS).write_json(f"{chain.name}.json", entry)

    def stopped(self) -> frozenset[str]:
        """Return the chains that the study's scheduler has stopped; where it has none now, they go on."""
        if self.study.scheduler.name == "fifo":
            return frozenset()
        return frozenset(name for name, entry in self._before.items() if entry.stopped)

    def check_unchanged(self, chains: Iterable[Chain], *, extend: bool) -> None:
        """Refuse to mix two sweeps: what a sweep of this name wanted before must still be wanted, to the key.

        Raises:
            ConfigError: with the settings that differ; where chains are only added, unless `extend`.
        """
        content = self.folder.read(STUDY)
        if content is None:
            return
        wanted = {chain.name: chain.keys for chain in chains}
        changed = [name for name, entry in self._before.items() if wanted.get(name) != entry.keys]
        added = [name for name in wanted if name not in self._before]
        if not changed and (extend or not added):
            return
        old = flat_settings(current_form(Study, yaml.safe_load(content) or {}))
        new = flat_settings(self.study.dump())
        differences = [
            f"{key}: {old.get(key)} → {new.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key)
        ]
        shown = "; ".join(differences) or "the dataset's pixels or the method"
        remedy = "give the study a new name" if changed else "use --extend to add chains, or give it a new name"
        raise ConfigError(f"study {self.study.name} was changed since its last run ({shown}); {remedy}")

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put rows into results.parquet, in place of those of the same chain and generation.

        Processes that add rows at once lose none (see `Folder.update`). The table is only a summary: a run of the study
        reads the rows of all its finished chains from their generations and adds them again.
        """
        rows = list(rows)

        def merged(content: bytes | None) -> bytes:
            table = {(row["chain"], row["generation"]): row for row in (*_rows(content), *rows)}
            ordered = sorted(table.values(), key=lambda row: (row["chain"], row["generation"]))
            return encode_table(pa.Table.from_pylist(ordered, RESULTS))

        self.folder.update(RESULTS_TABLE, merged)


def _rows(content: bytes | None) -> list[dict[str, Any]]:
    if content is not None:
        with contextlib.suppress(pa.ArrowInvalid):  # a damaged table is only a summary: it is written again
            return decode_table(content)
    return []
