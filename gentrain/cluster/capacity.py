"""What a cluster holds: trainings and chain drivers at once, now or once it has scaled up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from gentrain.cluster.session import Resources, fit_resources
from gentrain.study.schema import Study

DRIVER = "gentrain_driver"
"""Custom resource of a node (see cluster.yaml): how many running chains' helper processes its memory may hold."""
DRIVER_BYTES = 1.7e9
"""Memory of a running chain's helper processes: its trial, Ray Train's controller, their monitors."""
_HEAD = "node:__internal_head__"
_CONFIG_OPTION = "--autoscaling-config="


@dataclass(frozen=True)
class Capacity:
    """How much fits at once."""

    resources: Resources
    slots: int
    """Trainings that the devices hold."""
    drivers: int
    driver_resources: Mapping[str, float]
    """What a chain's trial takes: it holds no device."""
    drivers_told: str


def capacity(study: Study, scaled_up: Mapping[str, float]) -> Capacity:
    """Return what the connected cluster can hold, counting nodes that its autoscaler may still start.

    Args:
        study: whose trainings are to be held.
        scaled_up: what the autoscaler can reach, see `scaled_up`.

    Raises:
        ResourceError: when it can never hold one training of the study.
    """
    largest = _largest(ray.cluster_resources(), scaled_up)
    resources = fit_resources(study, largest)
    room = largest.get("CPU", 0) / (resources.workers * resources.cpus)
    if resources.cuda:
        room = min(room, largest.get("GPU", 0) / (resources.workers * resources.gpus))
    slots = max(1, math.floor(room + 1e-9))
    if DRIVER in largest:
        drivers = max(1, int(largest[DRIVER]))
        told = f"the nodes {drivers} drivers ({DRIVER})"
        return Capacity(resources, slots, drivers, {DRIVER: 1}, told)
    memory = next((node["Resources"].get("memory") for node in _alive() if _HEAD in node["Resources"]), None)
    drivers = max(1, int(memory // DRIVER_BYTES)) if memory else 10**9
    told = f"memory {drivers} drivers of {DRIVER_BYTES / 1e9:g} GB" if memory else "memory unknown"
    return Capacity(resources, slots, drivers, {_HEAD: 1e-3}, told)


def pending() -> str:
    """Return in a line what the cluster has no node for yet, and which nodes are being started; "" for nothing."""
    from ray.autoscaler.v2.sdk import get_cluster_status

    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    demands = [
        f"{sum(bundle.count for bundle in demand.bundles_by_count)} × {dict(demand.bundles_by_count[0].bundle)}"
        for demand in status.resource_demands.placement_group_demand
        if demand.bundles_by_count
    ]
    if not demands:
        return ""
    starting = [f"{launch.count} × {launch.ray_node_type_name}" for launch in status.pending_launches]
    starting += [node.ray_node_type_name for node in status.pending_nodes]
    told = f"starting {', '.join(starting)}" if starting else "none is being started"
    return f"waiting for room on the cluster's nodes for {', '.join(demands)}; {told}"


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def scaled_up() -> dict[str, float]:
    """Return the resources that the cluster's autoscaler can reach, as its configuration on the head tells."""
    here = ray.get_runtime_context().get_node_id()
    if any(node["NodeID"] == here and _HEAD in node["Resources"] for node in _alive()):
        return _scaled_up_of_this_node()
    found: dict[str, float] = ray.get(ray.remote(num_cpus=0, resources={_HEAD: 1e-3})(_scaled_up_of_this_node).remote())
    return found


def _scaled_up_of_this_node() -> dict[str, float]:
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        options = [word for word in process.info["cmdline"] or () if word.startswith(_CONFIG_OPTION)]
        path = Path(options[0].removeprefix(_CONFIG_OPTION)).expanduser() if options else None
        if path is not None and path.is_file():
            return reachable(path.read_text())
    return {}


def reachable(config: str) -> dict[str, float]:
    """Return the most resources that an autoscaler with this configuration (YAML of `ray up`) can bring up."""
    import yaml

    loaded = yaml.safe_load(config) or {}
    found: dict[str, float] = {}
    workers = loaded.get("max_workers", 0)
    for name, kind in (loaded.get("available_node_types") or {}).items():
        nodes = 1 if name == loaded.get("head_node_type") else min(kind.get("max_workers", workers), workers)
        for resource, amount in (kind.get("resources") or {}).items():
            found[resource] = found.get(resource, 0) + nodes * amount
    return found


def _largest(now: Mapping[str, float], later: Mapping[str, float]) -> dict[str, float]:
    return {name: max(now.get(name, 0), later.get(name, 0)) for name in {*now, *later}}
