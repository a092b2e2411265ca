"""Check whether this machine can run a study: versions, devices, libraries, disk, memory, speed of a step."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from gentrain.cluster.private import check_sockets
from gentrain.data.prepare.dataset import find_manifest
from gentrain.data.prepare.manifest import Manifest
from gentrain.errors import first_line
from gentrain.store.run import RunStore
from gentrain.study.schema import Study
from gentrain.train.precision import time_compiled, time_precisions, worker_threads

PACKAGES = ("torch", "torchvision", "ray", "ffcv", "numba", "numpy", "pyarrow")
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
DISK_BYTES, MEMORY_BYTES = 2e9, 4e9
"""Free space a first run needs: disk for prepared images and checkpoints; memory for Ray and one worker."""
SHAPES = {"digits": (10, 8), "cifar10": (10, 32), "cifar100": (100, 32), "fashion_mnist": (10, 28)}
"""Classes and side in pixels by source, for a dataset that isn't prepared yet."""
FOLDER_CLASSES = 1000


def _silent(_: str) -> None:
    pass


@dataclass(frozen=True)
class Check:
    """Hold one check: what it looked at, its result and, where the result isn't good, the remedy."""

    name: str
    result: str
    good: bool = True
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """Hold all checks, and the seconds of a training step."""

    checks: tuple[Check, ...]
    seconds: dict[str, dict[str, float]]
    """Seconds of a training step by network and precision."""
    precision: str
    """Precision that the study asks for."""

    @property
    def healthy(self) -> bool:
        """Return whether a run can work here; a slow precision doesn't count against it."""
        return all(check.good for check in self.checks)

    def rows(self) -> list[dict[str, Any]]:
        """Return checks and timings as rows for `--json`, with the keys name, found, good and remedy."""
        timed = [
            {"name": f"step of {network} in {precision}", "found": f"{seconds:.4f}", "good": True, "remedy": ""}
            for network, by_precision in self.seconds.items()
            for precision, seconds in by_precision.items()
        ]
        checks = [{"name": c.name, "found": c.result, "good": c.good, "remedy": c.remedy} for c in self.checks]
        return [*checks, *timed]


@dataclass(frozen=True)
class Processor:
    """Hold what decides how fast a CPU trains."""

    model: str
    count: int
    """CPUs that this process may use."""
    features: tuple[str, ...]
    """Those of `CPU_FEATURES` that it has."""


def examine(study: Study, *, runs: str, notify: Callable[[str], None] = _silent) -> Diagnosis:
    """Check versions, devices, FFCV, Ray's needs, disk and memory; time each precision, and the study's compiled.

    A step is timed with one worker's share of the batch and of the CPUs. Nothing is written to `runs`.

    Args:
        study: to be run.
        runs: the run folder.
        notify: receives a line before what takes long.
    """
    store = RunStore(runs)
    measured = _step_settings(study, store)
    checks = [
        *_versions(),
        _processor(),
        _devices(study),
        _attempt("FFCV", _write_and_read, "install libturbojpeg0 and libopencv (make setup), then reinstall ffcv"),
        _attempt(
            "Ray", _ports_and_sockets, "allow this user to open ports on 127.0.0.1; set RAY_TMPDIR to a short folder"
        ),
        *_space(store),
        _compilation(study, measured, notify),
    ]
    networks = dict.fromkeys(name for p in study.points() for name in (p.network.name, *p.trained_networks))
    seconds = {network: time_precisions(network, **measured) for network in networks}
    return Diagnosis(tuple(checks), seconds, study.precision)


def image_shape(study: Study, manifest: Manifest | None) -> tuple[int, int, int]:
    """Return classes, height and width of the study's images, from the manifest or as known for its source."""
    if manifest is not None:
        return len(manifest.classes), manifest.height, manifest.width
    classes, side = SHAPES.get(study.dataset.source, (FOLDER_CLASSES, 224 if study.dataset.storage == "jpeg" else 32))
    side = study.dataset.image_size or side
    return classes, side, side


def _versions() -> Iterator[Check]:
    yield Check("gentrain", f"{version('gentrain')}, Python {platform.python_version()}")
    for package in PACKAGES:
        try:
            yield Check(package, version(package))
        except PackageNotFoundError:
            yield Check(package, "missing", good=False, remedy="install gentrain again (make setup)")


def processor() -> Processor:
    """Return this machine's processor."""
    model, flags = platform.processor() or platform.machine(), ""
    if (info := Path("/proc/cpuinfo")).exists():
        for line in info.read_text().splitlines():
            model = line.partition(":")[2].strip() if line.startswith("model name") else model
            flags = line if line.startswith("flags") else flags
    features = tuple(name for name in CPU_FEATURES if name in flags.split())
    return Processor(model, len(os.sched_getaffinity(0)), features)


def _processor() -> Check:
    cpu = processor()
    return Check("CPU", f"{cpu.model}; {cpu.count} CPUs usable; {', '.join(cpu.features) or 'no AVX2'}")


def _devices(study: Study) -> Check:
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if not names:
        wanted = study.device == "cuda" or study.precision == "tf32"
        remedy = "the study needs one (device: cuda or precision: tf32); set device: auto, and precision: fp32 or bf16"
        return Check("GPU", "none", good=not wanted, remedy=remedy)
    bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
    return Check("GPU", f"{', '.join(names)}; {bf16}")


def _attempt(name: str, action: Callable[[], str], remedy: str) -> Check:
    try:
        return Check(name, action())
    except Exception as error:  # any failure is a result of the check
        first = first_line(error)
        return Check(name, first, good=False, remedy=remedy)


def _write_and_read() -> str:
    from gentrain.data.loading.beton import BetonReader, write_beton

    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    with tempfile.TemporaryDirectory(prefix="gentrain-doctor-") as folder:
        path = Path(folder) / "two.beton"
        write_beton(path, images, np.array([0, 1]))
        ((read, _, _),) = BetonReader(path, batch_size=2, threads=1).read(np.array([1, 0]))
        if not np.array_equal(read.numpy().transpose(0, 2, 3, 1), images[::-1]):
            raise ValueError("the images read differ from those written")
    return "wrote and read two images"


def _ports_and_sockets() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
    check_sockets()
    return "a port is free, and sockets fit the folder for temporary files"


def _space(store: RunStore) -> Iterator[Check]:
    folder = store.data
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    yield Check(
        "disk", f"{free / 1e9:,.1f} GB free at {folder}", free > DISK_BYTES, "free some space, or choose another --runs"
    )
    memory = psutil.virtual_memory().available
    yield Check("memory", f"{memory / 1e9:,.1f} GB free", memory > MEMORY_BYTES, "close other programs, or use --local")


def _compilation(study: Study, measured: Mapping[str, Any], notify: Callable[[str], None]) -> Check:
    """Compile the study's first network and time it; where that doesn't work, only `compile: true` is in trouble."""
    name, network = "torch.compile", study.network.name
    notify(f"compiling {network} to time it: up to a minute, once on this machine")
    try:
        step, compiling = time_compiled(network, **measured, precision=study.precision)
    except Exception as error:  # any failure is a result of the check
        first = first_line(error)
        remedy = "apt-get install g++ python3-dev, or set compile: false"
        result = first if study.compile is True else f"doesn't work here, so networks are trained without: {first}"
        return Check(name, result, good=study.compile is not True, remedy=remedy)
    said = str(study.compile).lower()
    return Check(
        name,
        f"{network} in {study.precision}: {step.eager / step.compiled:.2f} × as fast, {1000 * step.compiled:,.0f} ms a "
        f"step instead of {1000 * step.eager:,.0f} ms, after {compiling:,.0f} s; the study says compile: {said}",
    )


def _step_settings(study: Study, store: RunStore) -> dict[str, Any]:
    """Return what step is timed, and where: classes, pixels, one worker's images and threads, its device."""
    classes, height, width = image_shape(study, find_manifest(study.dataset, store.data))
    batch = study.recipe.batch_size // study.workers
    return {
        "num_classes": classes,
        "height": height,
        "width": width,
        "batch": batch,
        "threads": worker_threads(study),
        "device": torch.device("cuda:0" if study.device != "cpu" and torch.cuda.is_available() else "cpu"),
    }
