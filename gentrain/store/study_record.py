"""What a study's folder holds: the study as resolved, its chains' keys, the table of results. One process writes it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Container, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from gentrain.errors import ConfigError
from gentrain.store.run import RunStore
from gentrain.study.lineage import Chain
from gentrain.study.loading import dump_study, flat_settings
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


class StudyRecord:
    """The folder of one study."""

    def __init__(self, study: Study, *, store: RunStore) -> None:
        self.study = study
        self.folder = store.study(study.name)

    def begin(
        self, chains: Iterable[Chain], *, stopped: Container[str] = (), failed: Mapping[str, str] | None = None
    ) -> None:
        """Write the study and the keys of its chains, beside those that are there.

        Args:
            chains: of the study.
            stopped: names of those that the study's scheduler has ended early.
            failed: why others could not be finished, by their names.
        """
        self.folder.write("study.yaml", dump_study(self.study).encode())
        for chain in chains:
            entry = {"name": chain.name, "keys": chain.keys, "stopped": chain.name in stopped}
            entry["failed"] = (failed or {}).get(chain.name)
            (self.folder / "chains").write_json(f"{chain.name}.json", entry)

    def stopped(self) -> frozenset[str]:
        """Return the chains that the study's scheduler has stopped; where it has none now, they go on."""
        if self.study.scheduler.name == "fifo":
            return frozenset()
        return frozenset(name for name, entry in self._chains().items() if entry.get("stopped"))

    def check_unchanged(self, chains: Iterable[Chain], *, extend: bool) -> None:
        """Refuse to mix two sweeps: what a sweep of this name wanted before must still be wanted, to the key.

        Raises:
            ConfigError: with the settings that differ; where chains are only added, unless `extend`.
        """
        content = self.folder.read("study.yaml")
        if content is None:
            return
        before = {name: tuple(entry["keys"]) for name, entry in self._chains().items()}
        wanted = {chain.name: chain.keys for chain in chains}
        changed = [name for name, keys in before.items() if wanted.get(name) != keys]
        added = [name for name in wanted if name not in before]
        if not changed and (extend or not added):
            return
        old = flat_settings(current_form(Study, yaml.safe_load(content) or {}))
        new = flat_settings(self.study.dump())
        differences = [
            f"{key}: {old.get(key)} → {new.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key)
        ]
        told = "; ".join(differences) or "the dataset's pixels or the method"
        remedy = "give the study a new name" if changed else "use --extend to add chains, or give it a new name"
        raise ConfigError(f"study {self.study.name} was changed since its last run ({told}); {remedy}")

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put rows into results.parquet, in place of those of the same chain and generation."""
        table = {(row["chain"], row["generation"]): row for row in (*self._rows(), *rows)}
        ordered = sorted(table.values(), key=lambda row: (row["chain"], row["generation"]))
        self.folder.write_table("results.parquet", pa.Table.from_pylist(ordered, RESULTS))

    def _rows(self) -> list[dict[str, Any]]:
        content = self.folder.read("results.parquet")
        if content is not None:
            with contextlib.suppress(pa.ArrowInvalid):  # a damaged table is only a summary: it is written anew
                found: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
                return found
        return []

    def _chains(self) -> dict[str, dict[str, Any]]:
        folder = self.folder / "chains"
        records = (json.loads(folder.read(name) or b"{}") for name in folder.names())
        return {record["name"]: record for record in records}
