"""One contender of a race: which network, on which images, with how many workers and threads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gentrain.data.prepare.dataset import PreparedData

MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
"""Of CIFAR-100's training pixels."""
LAM, ETA, K = 0.6, 4 / 7, 5
"""The tasks' settings: of students, and of patriarchs (f_a1 = 0.6)."""


@dataclass(frozen=True)
class Entry:
    """The settings of one contender, written to a file for its process."""

    kind: str
    """gentrain (on Ray), loop (its debug runner), ideal, plain or torchdistill."""
    network: str
    task: str
    """patriarch or student."""
    batch: int
    images: int
    """Of a block."""
    workers: int
    threads: int
    """Of each worker."""
    data: str
    """Folder of the Parquet files."""
    runs: str
    gate: str
    teacher: str
    """Key of a finished generation in `runs`."""
    precision: str = "bf16"
    keep: bool = True
    """Whether freed memory stays with the process (`gentrain.train.allocator`)."""
    seed: int = 0
    """A different one for every contender, so that no two of gentrain's train the same generation."""
    address: str = ""
    """Of the Ray cluster that gentrain's contenders share."""
    device: str = "cpu"
    settings: dict[str, Any] = field(default_factory=dict)
    """More of gentrain's study, such as {"compile": True}."""

    @property
    def sizes(self) -> list[int]:
        """Batches of a block: the last may be smaller."""
        full, rest = divmod(self.images, self.batch)
        return [self.batch] * full + [rest] * bool(rest)

    def write(self, path: Path) -> None:
        """Write the entry as JSON for the process that runs it."""
        path.write_text(json.dumps(asdict(self)))


def prepared(entry: Entry) -> PreparedData:
    """Return the block's images as gentrain prepares them, once in a run of the suite."""
    from gentrain.data.prepare.dataset import prepare
    from gentrain.study.sections import DatasetConfig

    config = DatasetConfig(source="cifar100", path=entry.data, limit=entry.images // 100)
    return prepare(config, Path(entry.runs) / "data")
