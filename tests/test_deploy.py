"""cluster.yaml and deploy/: Ray's own schema, and the promises on money, access and versions that they make."""

import copy
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FILES = ("cluster.yaml", "deploy/local.yaml")


def load(name):
    return yaml.safe_load((ROOT / name).read_text())


@pytest.fixture(params=FILES)
def config(request):
    return load(request.param)


@pytest.fixture
def aws():
    return load("cluster.yaml")


def workers(config):
    return {name: kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_ray_accepts_the_file(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def test_a_sweep_costs_nothing_when_it_is_done(aws):
    assert "InstanceMarketOptions" not in aws["available_node_types"]["head"]["node_config"]  # on-demand
    assert aws["available_node_types"]["head"]["max_workers"] == 0
    assert workers(aws)
    for kind in workers(aws).values():
        assert kind["min_workers"] == 0
        assert kind["max_workers"] <= aws["max_workers"]
        assert kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert 0 < aws["idle_timeout_minutes"] <= 10
    assert aws["provider"]["cache_stopped_nodes"] is False


def test_the_head_trains_nothing_and_every_node_says_how_many_drivers_it_holds(aws):
    assert aws["available_node_types"]["head"]["resources"]["CPU"] == 0
    assert "GPU" not in aws["available_node_types"]["head"]["resources"]
    for kind in aws["available_node_types"].values():
        assert kind["resources"]["gentrain_driver"] > 0
    local = load("deploy/local.yaml")
    assert "--num-cpus=0 --num-gpus=0" in local["head_start_ray_commands"][-1]
    for commands in (local["head_start_ray_commands"], local["worker_start_ray_commands"]):
        assert re.search(r"""--resources='\{"gentrain_driver": [1-9]""", commands[-1])


def test_only_ssh_is_open_to_the_world(aws):
    """Ray's own rules and ours, as Ray would hand them to AWS."""
    pytest.importorskip("boto3", reason="comes with the extra `aws`")
    from ray.autoscaler._private.aws.config import _create_default_inbound_rules

    rules = _create_default_inbound_rules({"sg-of-the-cluster"}, aws["provider"]["security_group"]["IpPermissions"])
    world = [rule for rule in rules if rule.get("IpRanges") or rule.get("Ipv6Ranges") or rule.get("PrefixListIds")]
    assert [(rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) for rule in world] == [(22, 22, "tcp")]
    (inner,) = (rule for rule in rules if rule not in world)
    assert inner["UserIdGroupPairs"] == [{"GroupId": "sg-of-the-cluster"}]
    for kind in aws["available_node_types"].values():
        assert not {"SecurityGroupIds", "NetworkInterfaces"} & kind["node_config"].keys()  # would go round these rules


def test_every_node_wants_the_token_and_the_dashboard_stays_at_home(config):
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert commands[0] == "ray stop"
        assert "RAY_AUTH_MODE=token ray start " in commands[-1]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]
    arguments = shlex.split(config["head_start_ray_commands"][-1])
    assert "--dashboard-host=127.0.0.1" in arguments
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in arguments
    assert not any(argument.startswith("--ray-client-server-port") for argument in arguments)


def test_nodes_get_all_that_an_installation_needs_and_no_more(config):
    mounts = config["file_mounts"]
    wanted = {"gentrain", "setup.sh", "pyproject.toml", "deploy", "experiments", project()["readme"]}
    wanted |= set(project()["license-files"])
    assert {local for remote, local in mounts.items() if remote.startswith("~/gentrain/")} == wanted
    for local in wanted:
        assert mounts[f"~/gentrain/{local}"] == local
        assert (ROOT / local).exists()
    install = next(command for command in config["setup_commands"] if "setup.sh" in command)
    assert install == "cd ~/gentrain && EXTRAS=aws PIP_CONSTRAINT=deploy/constraints.txt sh setup.sh .venv"
    assert "aws" in project()["optional-dependencies"]
    assert 'install -q --disable-pip-version-check -e ".[${EXTRAS:-dev}]"' in (ROOT / "setup.sh").read_text()


def test_both_files_install_the_same(aws):
    local = load("deploy/local.yaml")
    for key in ("file_mounts", "setup_commands", "rsync_exclude"):
        assert aws[key] == local[key]


def test_nodes_run_what_the_project_asks_for_in_one_version():
    lines = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    pinned = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    wanted = {canonicalize_name(each.name): each for each in map(Requirement, project()["dependencies"])}
    assert pinned.keys() == wanted.keys()
    for name, each in wanted.items():
        assert each.specifier.contains(pinned[name]), name


def test_what_gentrain_sets_for_ray_holds_on_the_nodes_too():
    """A trial's processes inherit the environment of their node's Ray, not of the sweep's command."""
    run = subprocess.run(
        ["bash", "-c", '. "$0" && env -0', str(ROOT / "deploy" / "environment.sh")],
        env={"HOME": "/home/someone", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(line.split("=", 1) for line in run.stdout.split("\0") if line)
    assert found["PATH"].split(":")[0] == "/home/someone/gentrain/.venv/bin"
    code = "from gentrain.cluster import _ENVIRONMENT as e; import json; print(json.dumps(e))"
    ours = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert ours["RAY_AUTH_MODE"] == "token"
    assert ours.items() <= found.items()
    from ray.train.v2._internal.constants import WORKER_GROUP_START_TIMEOUT_S_ENV_VAR

    assert float(found[WORKER_GROUP_START_TIMEOUT_S_ENV_VAR]) >= 900
