"""torch's SGD and AdamW without the modules of torch.compile, and which of them a recipe asks for.

To keep its methods from being compiled, torch's optimisers import all of `torch._dynamo` at their first call: more than
a second and 150 MB in every worker of every generation. Here the same methods are called without that decorator.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from gentrain.study.sections import RecipeConfig
from gentrain.train import _compat


class SGD(torch.optim.SGD):
    """torch.optim.SGD: the same kernels, arguments and state; not for `differentiable=True`."""

    add_param_group = _compat.add_param_group
    zero_grad = _compat.zero_grad
    state_dict = _compat.state_dict
    load_state_dict = _compat.load_state_dict
    step = torch.no_grad()(_compat.sgd_step)


class AdamW(torch.optim.AdamW):
    """torch.optim.AdamW: the same kernels, arguments and state; not for `differentiable=True`."""

    add_param_group = _compat.add_param_group
    zero_grad = _compat.zero_grad
    state_dict = _compat.state_dict
    load_state_dict = _compat.load_state_dict
    step = torch.no_grad()(_compat.adamw_step)


def build_optimizer(recipe: RecipeConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over a network's parameters.

    adamw is Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (ICLR 2019), alg. 2, with torch's ε of 1e-8.
    """
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, recipe.beta2)
        return AdamW(parameters, lr=recipe.learning_rate, betas=betas, weight_decay=recipe.weight_decay, fused=True)
    return SGD(
        parameters,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
