"""cluster.yaml and deploy/: valid by Ray's schema; what they promise on costs, access and versions."""

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

from gentrain.cluster._compat import START_TIMEOUT

ROOT = Path(__file__).parents[2]
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


def test_the_head_trains_nothing_and_every_node_states_how_many_drivers_it_holds(aws):
    assert aws["available_node_types"]["head"]["resources"]["CPU"] == 0
    assert "GPU" not in aws["available_node_types"]["head"]["resources"]
    for kind in aws["available_node_types"].values():
        assert kind["resources"]["gentrain_driver"] > 0
    local = load("deploy/local.yaml")
    assert "--num-cpus=0 --num-gpus=0" in local["head_start_ray_commands"][-1]
    for commands in (local["head_start_ray_commands"], local["worker_start_ray_commands"]):
        assert re.search(r"""--resources='\{"gentrain_driver": [1-9]""", commands[-1])


@pytest.mark.filterwarnings("ignore")
def test_what_ray_would_buy_and_open_on_aws(aws, tmp_path, monkeypatch):
    """Ray's steps from the file to machines, on a simulated AWS."""
    moto = pytest.importorskip("moto")
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    monkeypatch.setenv("HOME", str(tmp_path))  # for the key that Ray makes
    (tmp_path / ".ssh").mkdir()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    with moto.mock_aws():
        ec2, iam = (boto3.client(name, region_name=aws["provider"]["region"]) for name in ("ec2", "iam"))
        for profile in ("gentrain-head", "gentrain-worker"):
            iam.create_instance_profile(InstanceProfileName=profile)
        config = AWSNodeProvider.fillout_available_node_types_resources(prepare_config(copy.deepcopy(aws)))
        config = AWSNodeProvider.bootstrap_config(config)
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        machines = {}
        for name, kind in config["available_node_types"].items():
            (made,) = provider.create_node(kind["node_config"], {"ray-node-type": "test", "ray-node-name": name}, 1)
            (reservation,) = ec2.describe_instances(InstanceIds=[made])["Reservations"]
            (machines[name],) = reservation["Instances"]
        (group,) = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["gentrain"]}])[
            "SecurityGroups"
        ]

    assert {name: machine.get("InstanceLifecycle", "on-demand") for name, machine in machines.items()} == {
        "head": "on-demand",
        "l4": "spot",
        "a10g": "spot",
    }
    for name in workers(aws):
        assert config["available_node_types"][name]["resources"]["GPU"] == 1
    assert config["available_node_types"]["head"]["resources"]["CPU"] == 0
    for machine in machines.values():
        assert [each["GroupId"] for each in machine["SecurityGroups"]] == [group["GroupId"]]
    inner = [rule for rule in group["IpPermissions"] if rule["UserIdGroupPairs"]]
    (world,) = (rule for rule in group["IpPermissions"] if rule not in inner)
    assert (world["FromPort"], world["ToPort"], world["IpProtocol"]) == (22, 22, "tcp")
    for rule in inner:
        assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [group["GroupId"]]
        assert not rule["IpRanges"] + rule["Ipv6Ranges"] + rule["PrefixListIds"]


def test_every_node_wants_the_token_and_the_dashboard_is_local(config):
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
    environment = dict(line.split("=", 1) for line in run.stdout.split("\0") if line)
    assert environment["PATH"].split(":")[0] == "/home/someone/gentrain/.venv/bin"
    code = "from gentrain.cluster._compat import ENVIRONMENT as e; import json; print(json.dumps(e))"
    ours = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert environment["RAY_AUTH_MODE"] == "token"
    assert ours.items() <= environment.items()
    assert float(environment[START_TIMEOUT]) >= 900
