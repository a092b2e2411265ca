"""Is this machine fit for a study: what there is, what works, and which precision is faster."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from gentrain import __version__
from gentrain.data.prepare.dataset import find_manifest
from gentrain.data.prepare.manifest import Manifest
from gentrain.store.run import RunStore
from gentrain.study.schema import Study
from gentrain.train.precision import time_precisions, worker_threads

PACKAGES = ("torch", "torchvision", "ray", "ffcv", "numba", "numpy", "pyarrow")
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
DISK_BYTES, MEMORY_BYTES = 2e9, 4e9
"""What a first run wants free: prepared images and checkpoints; Ray's own processes and one worker."""
SHAPES = {"digits": (10, 8), "cifar10": (10, 32), "cifar100": (100, 32), "fashion_mnist": (10, 28)}
"""Classes and side in pixels by source, for a dataset that isn't prepared."""
FOLDER_CLASSES = 1000


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    found: str
    good: bool = True
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found."""

    checks: tuple[Check, ...]
    seconds: dict[str, dict[str, float]]
    """Of a training step, by network and precision."""
    precision: str
    """The study's."""

    @property
    def healthy(self) -> bool:
        """Whether a run can work here; a slow precision is no illness."""
        return all(check.good for check in self.checks)

    def rows(self) -> list[dict[str, Any]]:
        """Return everything as plain rows, for machines."""
        timed = [
            {"name": f"step of {network} in {precision}", "found": f"{seconds:.4f}", "good": True, "remedy": ""}
            for network, by_precision in self.seconds.items()
            for precision, seconds in by_precision.items()
        ]
        return [*map(asdict, self.checks), *timed]


def examine(study: Study, *, runs: str) -> Diagnosis:
    """Look at versions, devices, FFCV, Ray's needs, disk and memory; time every precision on the study's networks.

    A step is timed with a worker's share of the batch, on a worker's share of the CPUs.
    """
    store = RunStore(runs)
    checks = [
        *_versions(),
        _processor(),
        _devices(study),
        _attempt("FFCV", _write_and_read, "install libturbojpeg0 and libopencv (make setup), then FFCV anew"),
        _attempt("Ray", _ports_and_token, "free a port on 127.0.0.1, and make ~/.ray readable and writable for you"),
        *_room(store),
    ]
    return Diagnosis(tuple(checks), _timings(study, store), study.precision)


def image_shape(study: Study, manifest: Manifest | None) -> tuple[int, int, int]:
    """Return classes, height and width of the study's images, as prepared or as its source is known to be."""
    if manifest is not None:
        return len(manifest.classes), manifest.height, manifest.width
    classes, side = SHAPES.get(study.dataset.source, (FOLDER_CLASSES, 224 if study.dataset.storage == "jpeg" else 32))
    side = study.dataset.image_size or side
    return classes, side, side


def _versions() -> Iterator[Check]:
    yield Check("gentrain", f"{__version__}, Python {platform.python_version()}")
    for package in PACKAGES:
        try:
            yield Check(package, version(package))
        except PackageNotFoundError:
            yield Check(package, "missing", good=False, remedy="install gentrain again (make setup)")


def _processor() -> Check:
    told, flags = platform.processor() or platform.machine(), ""
    if (info := Path("/proc/cpuinfo")).exists():
        for line in info.read_text().splitlines():
            told = line.partition(":")[2].strip() if line.startswith("model name") else told
            flags = line if line.startswith("flags") else flags
    features = [name for name in CPU_FEATURES if name in flags.split()]
    return Check("CPU", f"{told}; {len(os.sched_getaffinity(0))} CPUs for us; {', '.join(features) or 'no AVX2'}")


def _devices(study: Study) -> Check:
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if not names:
        wanted = study.device == "cuda" or study.precision == "tf32"
        remedy = "the study says device: cuda or precision: tf32; set device: auto, and precision: fp32 or bf16"
        return Check("GPU", "none", good=not wanted, remedy=remedy)
    bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
    return Check("GPU", f"{', '.join(names)}; {bf16}")


def _attempt(name: str, action: Callable[[], str], remedy: str) -> Check:
    try:
        return Check(name, action())
    except Exception as error:  # whatever it is, it's what the doctor is asked for
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Check(name, first, good=False, remedy=remedy)


def _write_and_read() -> str:
    from gentrain.data.loading.beton import BetonReader, write_beton

    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    with tempfile.TemporaryDirectory(prefix="gentrain-doctor-") as folder:
        path = Path(folder) / "two.beton"
        write_beton(path, images, np.array([0, 1]))
        ((read, _, _),) = BetonReader(path, batch_size=2, threads=1).read(np.array([1, 0]))
        if not np.array_equal(read.numpy().transpose(0, 2, 3, 1), images[::-1]):
            raise ValueError("images aren't those that were written")
    return "wrote and read two images"


def _ports_and_token() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
    folder = Path("~/.ray").expanduser()
    token = folder / "auth_token"
    nearest = folder if folder.exists() else folder.parent
    if not os.access(token if token.exists() else nearest, os.R_OK if token.exists() else os.W_OK):
        raise PermissionError(f"{token}: can't be {'read' if token.exists() else 'written'}")
    return f"ports are free; {'a token is there' if token.exists() else 'a token will be made'} ({token})"


def _room(store: RunStore) -> Iterator[Check]:
    folder = store.data
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    yield Check(
        "disk", f"{free / 1e9:,.1f} GB free at {folder}", free > DISK_BYTES, "free some, or choose another --runs"
    )
    memory = psutil.virtual_memory().available
    yield Check("memory", f"{memory / 1e9:,.1f} GB free", memory > MEMORY_BYTES, "end other programs, or use --local")


def _timings(study: Study, store: RunStore) -> dict[str, dict[str, float]]:
    classes, height, width = image_shape(study, find_manifest(study.dataset, store.data))
    cuda = study.device != "cpu" and torch.cuda.is_available()
    return {
        network: time_precisions(
            network,
            num_classes=classes,
            height=height,
            width=width,
            batch=study.recipe.batch_size // study.workers,
            threads=worker_threads(study),
            device=torch.device("cuda:0" if cuda else "cpu"),
        )
        for network in dict.fromkeys(p.network.of(generation) for p in study.points() for generation in (0, 1))
    }
