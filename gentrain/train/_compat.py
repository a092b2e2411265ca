"""The private names of torch that training uses, each with the reason why; one that is gone is an error.

Those of `torch._dynamo` are looked up when a network is to be compiled: importing it takes more than a second and
150 MB in every worker, which runs without `compile: true` are spared (see `gentrain.train.optimizer`).
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from gentrain.upstream import Library

TORCH = Library("torch", works=">=2.10,<2.15")


def _undecorated(method: Any) -> Any:
    """Return an optimiser's method without torch's decorator, which imports `torch._dynamo` at the first call."""
    return TORCH.private(method, "__wrapped__")


# Decorated with torch._disable_dynamo (https://github.com/pytorch/pytorch/pull/98453), and `step` with
# _use_grad_for_differentiable, which does the same.
add_param_group = _undecorated(torch.optim.Optimizer.add_param_group)
zero_grad = _undecorated(torch.optim.Optimizer.zero_grad)
state_dict = _undecorated(torch.optim.Optimizer.state_dict)
load_state_dict = _undecorated(torch.optim.Optimizer.load_state_dict)
sgd_step = _undecorated(torch.optim.SGD.step)
adamw_step = _undecorated(torch.optim.AdamW.step)


def constant_weights() -> contextlib.AbstractContextManager[None]:
    """Return a block in which a network that is compiled without gradient has its weights as constants of the program.

    The option `freezing` alone does nothing: torch looks at its configuration while it traces, before options count.

    Raises:
        DependencyError: when torch has no such setting any more.
    """
    with TORCH.modules():
        import torch._inductor.config as settings
    TORCH.private(settings, "freezing")
    patch: contextlib.AbstractContextManager[None] = settings.patch(freezing=True)
    return patch


def compile_errors() -> tuple[type[Exception], ...]:
    """Return what torch.compile raises of a network that it can't compile whole; there is no public base class.

    Raises:
        DependencyError: when torch has no such classes any more.
    """
    with TORCH.modules():
        import torch._dynamo.exc
    names = ("FailOnRecompileLimitHit", "TorchDynamoException")
    return tuple(TORCH.private(torch._dynamo.exc, name) for name in names)  # noqa: SLF001
