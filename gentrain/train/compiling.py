"""Networks compiled by torch.compile: whole, by rule instead of by timing, and with one line where that fails."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gentrain.errors import GentrainError, first_line
from gentrain.train._compat import compile_errors, constant_weights
from gentrain.train.compiler_cache import use_cache


def compile_network(network: nn.Module, device: torch.device, *, graphs: bool, constant: bool = False) -> nn.Module:
    """Return the network compiled whole, once for every shape; it shares weights with the one given.

    Kernels are chosen by rule, not by timing, so that another process computes the same bits. With `graphs`, on CUDA,
    a call is one CUDA graph: its output is overwritten after the next `torch.compiler.cudagraph_mark_step_begin()`.
    `constant` is `ConstantNetwork`'s: torch keeps programs apart by their options, so none takes another's.
    """
    options: dict[str, Any] = {"deterministic": True, "triton.cudagraphs": graphs and device.type == "cuda"}
    options |= {"freezing": True} if constant else {}
    compiled: Any = torch.compile(network, fullgraph=True, dynamic=False, options=options)
    return compiled  # type: ignore[no-any-return]


class ConstantNetwork(nn.Module):
    """Computes a network whose weights never change: on a CPU they are constants of the compiled program.

    The compiler then folds BatchNorms into convolutions, adds sums and ReLUs to them, and packs their weights once.
    That is faster but rounds more than the network itself (docs/performance.md), so it is for `fold_batchnorm`. On
    CUDA, where this was never run, it is compiled like any other network.
    """

    def __init__(self, network: nn.Module, device: torch.device, *, graphs: bool) -> None:
        super().__init__()
        constant = device.type == "cpu"
        self.compiled = compile_network(network, device, graphs=graphs, constant=constant)
        self._constant = constant_weights if constant else contextlib.nullcontext

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, C) of images (N, 3, H, W); for blocks without gradient."""
        with self._constant():
            logits: Tensor = self.compiled(images)
        return logits


def prepare_compiler(device: torch.device) -> None:
    """Drop what this process compiled before, as torch keeps few kinds, and check that a sum can be compiled.

    Raises:
        GentrainError: when there is no compiler that works.
    """
    if problem := compiler_problem(device):
        tool = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler"
        raise GentrainError(
            f"compile: true needs {tool} on every worker (apt-get install g++ python3-dev), or set compile: false; "
            f"{problem}"
        )


def compiler_problem(device: torch.device) -> str | None:
    """Drop what this process compiled before, and compile a sum; return the host and why that fails, None if it works.

    What is compiled from now on is kept in the node's cache (`gentrain.train.compiler_cache`).
    """
    use_cache()
    torch.compiler.reset()
    try:
        torch.compile(_sum, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # whatever a missing or broken compiler makes torch raise
        return f"{socket.gethostname()}: {first_line(error)}"
    return None


@contextlib.contextmanager
def compile_errors_named(network: str) -> Iterator[None]:
    """Turn torch.compile's error on a network, or its teacher, that it can't compile whole into one line.

    Raises:
        GentrainError: naming the network and the remedy.
    """
    errors = compile_errors()
    try:
        yield
    except errors as error:
        raise GentrainError(
            f"compile: true: {network} or its teacher: {first_line(error)}; set compile: false"
        ) from error


def _sum(values: Tensor) -> Tensor:
    return values + values
