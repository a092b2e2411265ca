"""Connect to Ray: a private local instance, or the cluster at an address, with its output in a log file."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gentrain.cluster._compat import AUTH_MODE, health_check
from gentrain.cluster.private import loopback_only, provide_token
from gentrain.cluster.sentinel import sentinel
from gentrain.errors import ResourceError, TrainingError, first_line
from gentrain.study.schema import Study


@dataclass(frozen=True)
class Resources:
    """What a study's worker group takes of the cluster."""

    workers: int
    cpus: int
    gpus: float

    @property
    def cuda(self) -> bool:
        """Whether workers compute on GPUs."""
        return self.gpus > 0


@contextlib.contextmanager
def ray_session(*, address: str | None, log: Path, cpus: int | None = None, name: str = "gentrain") -> Iterator[str]:
    """Connect to Ray for the block; yield the address of its dashboard, "" where it has none.

    A Ray that this process is connected to already (`ray.init` in a notebook) is used, and stays up.

    Args:
        address: a running cluster ("auto" finds the one on this machine), or None for a private local instance.
        log: the file that gets all output of Ray and of this process.
        cpus: CPUs of the private instance; default: those this process may use.
        name: of the job on the dashboard.

    Raises:
        ResourceError: when there is no cluster at `address`, or this process is connected to another.
        TrainingError: when a part of Ray dies that Ray doesn't start again.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    theirs = connected(address)
    surroundings = contextlib.nullcontext() if theirs or address else loopback_only()
    with sentinel(log), _output_to(log), contextlib.closing(handler), surroundings, _loggers_to(handler):
        dashboard = _dashboard() if theirs else _connect(address, log=log, cpus=cpus, name=name)
        import ray

        try:
            yield dashboard
        except ray.exceptions.RayError as error:
            if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(error.cause, ray.exceptions.RayError):
                raise  # an error in our code, in another process
            raise TrainingError(
                f"Ray failed: {_reason(error)}; details in {log}; "
                "run the same command again to resume from the last epoch"
            ) from error
        finally:
            if not theirs:
                ray.shutdown()


def connected(address: str | None) -> bool:
    """Return whether this process is connected to Ray already, which is then used.

    Raises:
        ResourceError: when it is connected to another cluster than that at `address`.
    """
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    here = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", here):
        raise ResourceError(
            f"address {address}: this process is connected to Ray at {here} already; leave the address out to use that "
            "one, or call ray.shutdown() before"
        )
    return True


def _dashboard() -> str:
    """Return the dashboard's address of the Ray that this process is connected to."""
    import ray

    return ray.init(ignore_reinit_error=True).dashboard_url or ""


def _reason(error: Exception) -> str:
    """Return an error of Ray's in one line, with the class of the actor that died, if one did."""
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    actor = next((line.partition(": ")[2] for line in rest if line.startswith("class_name: ")), "")
    return f"its {actor} died" if actor else first


def _connect(address: str | None, *, log: Path, cpus: int | None, name: str) -> str:
    _agree_on_tokens(address)
    if address is None:
        provide_token(log.with_name("ray-token"))
    import ray

    job = ray.job_config.JobConfig(metadata={"job_name": name})
    try:
        if address:
            context = ray.init(address=address, job_config=job, log_to_driver=False, configure_logging=False)
        else:
            context = ray.init(
                address="local",
                job_config=job,
                num_cpus=cpus or len(os.sched_getaffinity(0)),
                log_to_driver=False,
                configure_logging=False,
                dashboard_host="127.0.0.1",
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"--address {address}" if address else "a local Ray instance"
        first = first_line(error)
        raise ResourceError(f"{where}: can't connect: {first} (details in {log})") from error
    return context.dashboard_url or ""


def _agree_on_tokens(address: str | None) -> None:
    """Set whether Ray uses a token, as the cluster does; Ray reads that when it is imported.

    A private instance always uses one. For a cluster Ray's default may be wrong: then connecting works, but every actor
    dies at once without a reason in any log.
    """
    if "ray" in sys.modules or AUTH_MODE in os.environ:
        return
    mode = "token"
    if address is not None:
        without_token = os.environ | {AUTH_MODE: "disabled"}
        open_to_all = subprocess.run(health_check(address), env=without_token, capture_output=True, check=False)
        mode = "disabled" if open_to_all.returncode == 0 else "token"
    os.environ[AUTH_MODE] = mode


def probe(address: str) -> None:
    """Check in at most 10 s that a server listens at host:port, for which Ray would wait minutes.

    Raises:
        ResourceError: when none does, or the address is a URL: the dashboard's, Ray Client's.
    """
    scheme, separator, rest = address.partition("://")
    if separator:
        kind = {"http": "the dashboard's address", "https": "the dashboard's address", "ray": "Ray Client's address"}
        job = f"http://{rest}" if scheme == "ray" else address
        raise ResourceError(
            f"--address {address}: {kind.get(scheme, 'a URL')}; give the head's HOST:PORT (6379 by default), auto on a "
            f"node of the cluster, or submit the command as a job (ray job submit --address {job} -- gentrain …)"
        )
    host, colon, port = address.rpartition(":")
    if not colon or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ResourceError(
            f"--address {address}: can't connect: {error.strerror or error}; is the cluster up, and is this its head's "
            "address (ray status)?"
        ) from error


def own_resources() -> dict[str, float]:
    """Return the CPUs and GPUs that a private instance on this machine would have."""
    import torch

    return {"CPU": len(os.sched_getaffinity(0)), "GPU": torch.cuda.device_count()}


def fit_resources(study: Study, available: Mapping[str, float]) -> Resources:
    """Return what the study's workers take of a cluster's `available` resources, with its defaults filled in.

    Raises:
        ResourceError: when the cluster can never hold them.
    """
    cpus, gpus = int(available.get("CPU", 0)), float(available.get("GPU", 0))
    if study.device == "cuda" and not gpus:
        raise ResourceError("device: cuda: the cluster has no GPU; set device: auto or cpu")
    wanted_gpus = 0.0
    if study.device != "cpu" and (gpus or study.gpus_per_worker):
        wanted_gpus = 1.0 if study.gpus_per_worker is None else study.gpus_per_worker
    if study.precision == "tf32" and not wanted_gpus:
        raise ResourceError("precision: tf32 is for GPUs and the cluster has none; set precision: fp32 or bf16")
    wanted_cpus = study.cpus_per_worker or max(
        1, cpus // study.workers if not wanted_gpus else min(8, cpus // study.workers)
    )
    if study.workers * wanted_cpus > cpus:
        raise ResourceError(
            f"workers: {study.workers} × {wanted_cpus} CPUs are more than the {cpus} CPUs there are; "
            f"lower workers or cpus_per_worker"
        )
    if study.workers * wanted_gpus > gpus:
        raise ResourceError(
            f"workers: {study.workers} × {wanted_gpus:g} GPUs are more than the {gpus:g} GPUs there are; "
            f"lower workers or gpus_per_worker (0.25 packs four workers on one GPU), or set device: cpu"
        )
    return Resources(workers=study.workers, cpus=wanted_cpus, gpus=wanted_gpus)


@contextlib.contextmanager
def _loggers_to(handler: logging.Handler) -> Iterator[None]:
    """Have Ray's loggers write to `handler` for the block."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.train", "ray.tune", "ray.data")]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers = [handler] if logger.name == "ray" else []
        logger.propagate = logger.name != "ray"
    try:
        yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Redirect this process's stdout and stderr to `log` for the block.

    Ray prints from C++ and from threads too, so the file descriptors themselves are redirected; views write to a copy
    made before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, target):
            os.close(descriptor)
