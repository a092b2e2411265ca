"""Our SGD is torch's, without torch.compile's modules."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from gentrain.study.sections import RecipeConfig
from gentrain.train.optimizer import SGD, AdamW, build_optimizer

SETTINGS = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}
ADAMW = {"lr": 0.1, "betas": (0.8, 0.99), "weight_decay": 1e-2}


def trained(kind, *, fused, settings=SETTINGS):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    optimizer = kind(model.parameters(), fused=fused, **settings)
    for step in range(6):
        if step == 3:
            saved = optimizer.state_dict()
            optimizer = kind(model.parameters(), fused=fused, **settings)
            optimizer.load_state_dict(saved)
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        model(torch.randn(4, 5)).square().mean().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("fused", [False, True])
def test_it_takes_torch_s_steps(fused):
    (ours, own), (theirs, torch_s) = (trained(kind, fused=fused) for kind in (SGD, torch.optim.SGD))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    state, wanted = own.state_dict(), torch_s.state_dict()
    assert state["param_groups"] == wanted["param_groups"]
    assert all(
        torch.equal(state["state"][i]["momentum_buffer"], wanted["state"][i]["momentum_buffer"]) for i in range(4)
    )
    assert not any(p.grad_fn for p in ours.parameters())


@pytest.mark.parametrize("fused", [False, True])
def test_it_takes_torch_s_steps_of_adamw(fused):
    (ours, own), (theirs, torch_s) = (trained(kind, fused=fused, settings=ADAMW) for kind in (AdamW, torch.optim.AdamW))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    state, wanted = own.state_dict(), torch_s.state_dict()
    assert state["param_groups"] == wanted["param_groups"]
    assert all(torch.equal(state["state"][i][k], wanted["state"][i][k]) for i in range(4) for k in wanted["state"][0])


def test_a_recipe_s_optimiser():
    weights = [nn.Parameter(torch.zeros(1))]
    sgd = build_optimizer(RecipeConfig(learning_rate=0.3, weight_decay=0.5), weights)
    group = sgd.param_groups[0]
    assert (type(sgd), group["lr"], group["momentum"], group["nesterov"]) == (SGD, 0.3, 0.9, True)
    assert (group["weight_decay"], group["fused"]) == (0.5, True)
    adamw = build_optimizer(RecipeConfig(optimizer="adamw", learning_rate=0.3, momentum=0.8, beta2=0.7), weights)
    group = adamw.param_groups[0]
    assert (type(adamw), group["lr"], group["betas"], group["weight_decay"]) == (AdamW, 0.3, (0.8, 0.7), 1e-4)


TRAIN = """
import sys
from gentrain import api
from gentrain.study.loading import parse_study

settings = {"name": "lean", "dataset": {"source": "digits", "limit": 10}, "network": {"name": "resnet8"},
            "recipe": {"epochs": 2, "batch_size": 50, "milestones": [], "optimizer": sys.argv[2]},
            "generations": 1, "device": "cpu"}
api.run(parse_study(settings, where="test"), runs=sys.argv[1], observe=lambda _: None, local=True)
print(sorted(name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules))
"""


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_loads_nothing_of_torch_compile(tmp_path, optimizer):
    command = [sys.executable, "-c", TRAIN, str(tmp_path), optimizer]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.stdout == "[]\n", process.stderr
