"""Dockerfile, KubeRay's RayJob, SkyPilot's task, Grafana's dashboard: valid by their schemas, true to the project."""

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import ClassVar

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

from gentrain.cluster import metrics
from gentrain.cluster._compat import ENVIRONMENT, START_TIMEOUT
from gentrain.cluster.metrics import Gauges, RunGauges
from gentrain.events import ChainSaturated, EpochDone, GenerationDone, GenerationQueued, InChain
from gentrain.study.lineage import build_forest
from tests.cluster.dashboard import DASHBOARD, queries
from tests.test_cli import OPTIONS

ROOT = Path(__file__).parents[2]


def load(path):
    return yaml.safe_load(path.read_text())


def faults(manifest, schema):
    validator = jsonschema.Draft7Validator(load(Path(__file__).with_name(schema)))
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(manifest)]


@pytest.fixture
def rayjob():
    return load(ROOT / "deploy" / "kuberay.yaml")


@pytest.fixture
def task():
    return load(ROOT / "deploy" / "skypilot.yaml")


def pinned(name):
    lines = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    return next(str(pin.specifier).removeprefix("==") for pin in pins if pin.name == name)


def known_options(command):
    """Assert that a shell line `gentrain COMMAND …` names options that there are."""
    _, name, *arguments = shlex.split(command)
    options = [argument for argument in arguments if argument.startswith("-")]
    assert set(options) <= set(OPTIONS[name]), options


def test_kuberays_schema_accepts_the_job_and_refuses_a_slip(rayjob):
    assert faults(rayjob, "rayjob.schema.yaml") == []
    rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replica"] = 1
    rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    assert len(faults(rayjob, "rayjob.schema.yaml")) == 2


def test_the_job_runs_the_projects_ray_with_its_settings_and_a_token(rayjob):
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert json.loads(json.loads(group["rayStartParams"]["resources"]))["gentrain_driver"] > 0
        (container,) = group["template"]["spec"]["containers"]
        environment = {each["name"]: each["value"] for each in container["env"]}
        assert environment.items() >= ENVIRONMENT.items()
        assert float(environment[START_TIMEOUT]) >= 900
        assert container["image"] == f"REGISTRY/gentrain:{project()['version']}"
        names = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= names
    head, *workers = groups
    assert (head["rayStartParams"]["num-cpus"], head["rayStartParams"]["num-gpus"]) == ("0", "0")
    for worker in workers:
        assert (worker["minReplicas"], worker["replicas"]) == (0, 0)
    known_options(rayjob["spec"]["entrypoint"])
    assert "--address auto --runs s3://" in rayjob["spec"]["entrypoint"]
    assert rayjob["spec"]["shutdownAfterJobFinishes"] is True  # it costs nothing when it is done


def test_skypilots_schema_accepts_the_task_and_refuses_a_slip(task):
    assert faults(task, "skypilot.schema.yaml") == []
    assert faults(task | {"workdirs": "."}, "skypilot.schema.yaml")
    assert faults(task | {"resources": task["resources"] | {"spot": True}}, "skypilot.schema.yaml")


def test_skypilot_itself_reads_the_task(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    sky = pytest.importorskip("sky", reason="skypilot isn't installed")
    assert sky.Task.from_yaml(str(ROOT / "deploy" / "skypilot.yaml")).envs["RUNS"] == "s3://BUCKET/runs"


def test_the_task_installs_and_runs_what_there_is(task):
    assert task["setup"].strip() == "EXTRAS=aws PIP_CONSTRAINT=deploy/constraints.txt sh setup.sh ~/gentrain-env"
    known_options(task["run"])
    assert set(re.findall(r"\$(\w+)", task["run"])) == task["envs"].keys()
    assert (ROOT / task["envs"]["STUDY"]).exists()


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_dockerfile_copies_what_the_installation_needs_and_what_it_does_not_ignore():
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")[1:]
    sources = set()
    for stage in stages:
        copies = [
            shlex.split(line)[1:-1] for line in stage.splitlines() if line.startswith("COPY ") and "--from" not in line
        ]
        paths = {path for paths in copies for path in paths}
        if "image.sh build" in stage:
            wanted = {"gentrain", "deploy", "pyproject.toml", project()["readme"], *project()["license-files"]}
            assert wanted <= paths
        sources |= paths
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    ignored, *kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored == "*"
    for path in sources:
        assert (ROOT / path).exists()
        assert f"!{path.split('/')[0]}" in kept
    steps = [line.split()[1:] for line in lines if line.startswith("RUN ")]
    assert [step[2:] for step in steps] == [[stage, kind] for kind in ("cpu", "cuda") for stage in ("build", "run")]
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000", "USER 1000"]
    assert lines[-1] == 'ENTRYPOINT ["gentrain"]'
    assert [line.split()[1] for line in lines if line.startswith("FROM nvidia/")] == [
        "nvidia/cuda:13.0.2-base-ubuntu24.04"
    ] * 2
    subprocess.run(["sh", "-n", str(ROOT / "deploy" / "image.sh")], check=True)


class RecordedGauge:
    """Stands for Ray's gauge: what was set last, by name and tags."""

    values: ClassVar = {}

    def __init__(self, name, description, tag_keys):
        assert description
        self.name, self.tag_keys = name, tag_keys
        self.values.setdefault(name, {})

    def set(self, value, tags):
        assert tuple(tags) == self.tag_keys
        self.values[self.name][tuple(tags.values())] = value


@pytest.fixture
def gauges(monkeypatch):
    monkeypatch.setattr(metrics, "Gauge", RecordedGauge)
    monkeypatch.setattr(RecordedGauge, "values", {})
    return RecordedGauge.values


def test_the_dashboard_asks_for_metrics_and_labels_that_there_are(gauges, small):
    chains = build_forest(small(), data="d", num_classes=10).chains
    made = [Gauges("c", study="s"), RunGauges(chains, left=set(), slots=1)]
    labels = {f"ray_{each.name}": set(each.tag_keys) for own in made for each in own._gauges.values()}
    labels["ray_resources"] = {"Name", "State"}  # Ray's own
    dashboard = json.loads(DASHBOARD.read_text())
    asked = list(queries(dashboard))
    assert {name for _, expression in asked for name in re.findall(r"\bray_\w+", expression)} == labels.keys()
    asked += [(variable["name"], variable["definition"]) for variable in dashboard["templating"]["list"][1:]]
    for _, expression in asked:
        for name, selector in re.findall(r"\b(ray_\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)(?==)", selector)) <= labels[name], expression
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            (by,) = set(re.findall(r"by \(([^)]*)\)", target["expr"].replace("study, state", "study")))  # of a ratio
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert shown == set(re.split(r", ", by)) - {"study"} | (shown & {"study", "state"})
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert {"Test error", "Loss", "Primary score", "Devices busy", "Time left"} <= set(titles)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(titles)


def test_a_runs_gauges_follow_its_trainings_and_the_time_left(gauges, small, monkeypatch):
    chains = build_forest(small("generations=2"), data="d", num_classes=10).chains
    chain, (_, *left) = chains[0].name, chains[0].keys
    now = [100.0]
    run = RunGauges(chains, left=set(left), slots=1)
    run._state.clock = lambda: now[0]

    def states():
        return {state: value for (_, state), value in gauges["gentrain_trainings"].items()}

    assert states() == {"done": 1, "running": 0, "waiting": 2}
    assert gauges["gentrain_slots"] == {("small",): 1}
    assert gauges["gentrain_seconds_left"] == {}
    run(InChain(chain, GenerationQueued(1)))
    assert states() == {"done": 1, "running": 1, "waiting": 1}
    now[0] += 30
    run(InChain(chain, GenerationDone(1, {"top1_error": 0.1, "ensemble_top1_error": 0.1}, False)))
    assert states() == {"done": 2, "running": 0, "waiting": 1}
    assert gauges["gentrain_seconds_left"] == {("small",): pytest.approx(30)}
    run(InChain(chain, ChainSaturated(chain, 1)))
    assert gauges["gentrain_seconds_left"] == {("small",): 0}


def test_a_chains_gauges_are_tagged_with_study_chain_and_generation(gauges):
    chain = Gauges("c", study="s")
    chain(EpochDone(1, {"loss": 0.5, "test_error": None}))
    chain(GenerationDone(1, {"top1_error": 0.25}, False))
    assert gauges["gentrain_loss"] == {("s", "c", "1"): 0.5}
    assert gauges["gentrain_top1_error"] == {("s", "c", "1"): 0.25}
    assert gauges["gentrain_test_error"] == {}
