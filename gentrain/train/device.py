"""Where and how a network computes: threads, precision, memory layout, compiled graphs."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gentrain.errors import GentrainError


def configure(device: torch.device, *, threads: int, precision: str) -> None:
    """Make this process compute on the device the same way every time, in the study's precision."""
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = False  # may pick another algorithm in the resumed process
        torch.backends.cudnn.deterministic = True
        set_tf32(precision == "tf32")


def set_tf32(allowed: bool) -> None:
    """Let a GPU round the factors of float32 matrix products and convolutions to TF32, or keep them exact.

    Through the switches that all supported versions of torch know; what they were set by, torch.compile reads.
    """
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Return the block in which convolutions run in the study's precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def to_device(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to the device, channels last."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def device_name(device: torch.device) -> str:
    """Return what DONE.json calls the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def data_parallel(network: nn.Module, blank: Tensor, *, precision: str) -> nn.Module:
    """Wrap a network for data parallelism; `blank` is a worker's batch of images on its device.

    DDP regroups its gradient buckets after the first step, which would change the order of sums between a fresh and a
    resumed process. One step on blank images, undone, brings both to the same grouping before the real first step.
    """
    before = {name: value.clone() for name, value in network.state_dict().items()}
    wrapped = DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)
    with autocast(blank.device, precision):
        loss = wrapped(blank.contiguous(memory_format=torch.channels_last)).float().sum()
    loss.backward()
    wrapped.zero_grad(set_to_none=False)
    network.load_state_dict(before)
    return wrapped


# Compiled networks


def compile_network(network: nn.Module, device: torch.device, *, graphs: bool) -> nn.Module:
    """Return the network compiled whole, anew for every shape; it shares weights with the one given.

    Kernels are chosen by rule, not by timing, so that another process computes the same bits. With `graphs`, on CUDA,
    a call is one CUDA graph: its output is overwritten after the next `torch.compiler.cudagraph_mark_step_begin()`.
    """
    options: dict[str, Any] = {"deterministic": True, "triton.cudagraphs": graphs and device.type == "cuda"}
    compiled: Any = torch.compile(network, fullgraph=True, dynamic=False, options=options)
    return compiled  # type: ignore[no-any-return]


def prepare_compiler(device: torch.device) -> None:
    """Forget what this process compiled before, as few kinds are kept, and see that a sum can be compiled.

    Raises:
        GentrainError: when there is no compiler that works.
    """
    torch.compiler.reset()
    try:
        torch.compile(_sum, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # whatever a missing or broken compiler makes torch raise
        tool = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler"
        raise GentrainError(
            f"compile: true needs {tool} on every worker (apt-get install g++ python3-dev), or set compile: false; "
            f"{socket.gethostname()}: {_reason(error)}"
        ) from error


@contextlib.contextmanager
def told_uncompilable(network: str) -> Iterator[None]:
    """Turn what torch.compile says of a network, or of its teacher, that it can't compile whole into one line.

    Raises:
        GentrainError: naming the network and the remedy.
    """
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    try:
        yield
    except (FailOnRecompileLimitHit, TorchDynamoException) as error:
        raise GentrainError(f"compile: true: {network} or its teacher: {_reason(error)}; set compile: false") from error


def _sum(values: Tensor) -> Tensor:
    return values + values


def _reason(error: Exception) -> str:
    """Return the first line of what a compiler says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
