"""torch's SGD without the modules of torch.compile.

To keep its methods from being compiled, torch's optimisers import all of `torch._dynamo` at their first call: more than
a second and 150 MB in every worker of every generation. Here the same methods are called as they are.
"""

from __future__ import annotations

from typing import Any

import torch


def _as_it_is(method: Any) -> Any:
    return getattr(method, "__wrapped__", method)


class SGD(torch.optim.SGD):
    """torch.optim.SGD: the same kernels, arguments and state; not for `differentiable=True`."""

    add_param_group = _as_it_is(torch.optim.Optimizer.add_param_group)
    zero_grad = _as_it_is(torch.optim.Optimizer.zero_grad)
    state_dict = _as_it_is(torch.optim.Optimizer.state_dict)
    load_state_dict = _as_it_is(torch.optim.Optimizer.load_state_dict)
    step = torch.no_grad()(_as_it_is(torch.optim.SGD.step))
