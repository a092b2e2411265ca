"""What each chain of a plan takes by itself, so that processes are compared at equal epochs or equal cost."""

from __future__ import annotations

from dataclasses import dataclass

from gentrain.running.plan import Plan


@dataclass(frozen=True)
class ChainCost:
    """What one chain takes by itself, all its generations counted, finished ones and those that it shares too."""

    name: str
    trainings: int
    epochs: int
    """Of all its trainings."""
    device_seconds: float | None
    """None where one of them is of unknown length."""
    cost: float | None


def chain_costs(plan: Plan) -> tuple[ChainCost, ...]:
    """Return what each chain takes by itself, in their order."""
    costs = []
    for chain in plan.forest.chains:
        trained = chain.specs[chain.pretrained :]
        seconds = [plan.taken.get(spec.key, plan.seconds.get(spec.key)) for spec in trained]
        known = [s * plan.devices_per_training for s in seconds if s is not None]
        total = sum(known) if len(known) == len(seconds) else None
        cost = None if total is None or plan.price is None else total / 3600 * plan.price
        epochs = sum(spec.recipe.epochs for spec in trained)
        costs.append(ChainCost(chain.name, len(trained), epochs, total, cost))
    return tuple(costs)
