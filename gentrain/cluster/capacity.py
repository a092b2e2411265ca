"""What a cluster holds at once: trainings and chains' trials, now and once it has scaled up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from gentrain.cluster._compat import AUTOSCALER_OPTION, cluster_status, head_resource
from gentrain.cluster.session import Resources, fit_resources
from gentrain.study.schema import Study

DRIVER = "gentrain_driver"
"""Custom resource of a node (see cluster.yaml): how many running chains' helper processes its memory may hold."""
DRIVER_BYTES = 1.7e9
"""Memory of a running chain's helper processes: its trial, Ray Train's controller, their monitors."""


@dataclass(frozen=True)
class Capacity:
    """How much fits at once."""

    resources: Resources
    slots: int
    """Trainings that the devices hold."""
    drivers: int
    """Chains' trials that memory holds."""
    driver_resources: Mapping[str, float]
    """What a chain's trial takes: it holds no device."""
    drivers_reason: str
    """What limits `drivers`, for the user."""


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
        return Capacity(resources, slots, drivers, {DRIVER: 1}, f"the nodes {drivers} drivers ({DRIVER})")
    head = head_resource()
    memory = next((node["Resources"].get("memory") for node in _alive() if head in node["Resources"]), None)
    drivers = max(1, int(memory // DRIVER_BYTES)) if memory else 10**9
    reason = f"memory {drivers} drivers of {DRIVER_BYTES / 1e9:g} GB" if memory else "memory unknown"
    return Capacity(resources, slots, drivers, {head: 1e-3}, reason)


def pending() -> str:
    """Return in a line what the cluster has no node for yet, and which nodes are being started; "" for nothing."""
    status = cluster_status()
    demands = [
        f"{sum(bundle.count for bundle in demand.bundles_by_count)} × {dict(demand.bundles_by_count[0].bundle)}"
        for demand in status.resource_demands.placement_group_demand
        if demand.bundles_by_count
    ]
    if not demands:
        return ""
    launches = [f"{launch.count} × {launch.ray_node_type_name}" for launch in status.pending_launches]
    launches += [node.ray_node_type_name for node in status.pending_nodes]
    nodes = f"starting {', '.join(launches)}" if launches else "none is being started"
    return f"waiting for room on the cluster's nodes for {', '.join(demands)}; {nodes}"


def scaled_up() -> dict[str, float]:
    """Return the resources that the cluster's autoscaler can reach by its configuration on the head; {} without one."""
    here, head = ray.get_runtime_context().get_node_id(), head_resource()
    if any(node["NodeID"] == here and head in node["Resources"] for node in _alive()):
        return _scaled_up_of_this_node()
    on_head = ray.remote(num_cpus=0, resources={head: 1e-3})(_scaled_up_of_this_node)
    resources: dict[str, float] = ray.get(on_head.remote())
    return resources


def _scaled_up_of_this_node() -> dict[str, float]:
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        options = [word for word in process.info["cmdline"] or () if word.startswith(AUTOSCALER_OPTION)]
        path = Path(options[0].removeprefix(AUTOSCALER_OPTION)).expanduser() if options else None
        if path is not None and path.is_file():
            return reachable(path.read_text())
    return {}


def reachable(config: str) -> dict[str, float]:
    """Return the most resources that an autoscaler with this configuration (YAML of `ray up`) can bring up."""
    import yaml

    loaded = yaml.safe_load(config) or {}
    resources: dict[str, float] = {}
    workers = loaded.get("max_workers", 0)
    for name, kind in (loaded.get("available_node_types") or {}).items():
        nodes = 1 if name == loaded.get("head_node_type") else min(kind.get("max_workers", workers), workers)
        for resource, amount in (kind.get("resources") or {}).items():
            resources[resource] = resources.get(resource, 0) + nodes * amount
    return resources


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _largest(now: Mapping[str, float], later: Mapping[str, float]) -> dict[str, float]:
    return {name: max(now.get(name, 0), later.get(name, 0)) for name in {*now, *later}}
