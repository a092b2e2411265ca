"""torch's SGD without the modules of torch.compile.

To keep its methods from being compiled, torch's optimisers import all of `torch._dynamo` at their first call: more than
a second and 150 MB in every worker of every generation. Here the same methods are called without that decorator.
"""

from __future__ import annotations

import torch

from gentrain.train import _compat


class SGD(torch.optim.SGD):
    """torch.optim.SGD: the same kernels, arguments and state; not for `differentiable=True`."""

    add_param_group = _compat.add_param_group
    zero_grad = _compat.zero_grad
    state_dict = _compat.state_dict
    load_state_dict = _compat.load_state_dict
    step = torch.no_grad()(_compat.sgd_step)
