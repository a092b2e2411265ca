"""Private names of Ray: a missing one is one clear error, and no process imports more of Ray than it needs."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from gentrain.cluster import _compat
from gentrain.errors import DependencyError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def forget_lookups():
    import gentrain.cluster.sweep  # noqa: F401  (with Ray Train and Tune: only gentrain's look-ups may miss a name)

    yield
    for cached in (_compat.head_resource, _compat.trainer_class):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("missing", "use"),
    [
        ("ray._common.constants.HEAD_NODE_RESOURCE_NAME", _compat.head_resource),
        ("ray.autoscaler.v2.sdk.get_cluster_status", _compat.cluster_status),
        ("ray.tune.trainable.function_trainable.wrap_function", lambda: _compat.function_trainable(print)),
        ("ray.train.v2._internal.callbacks.DatasetsCallback", _compat.trainer_class),
        (
            "ray.train.v2._internal.callbacks.placement_group_callback.PlacementGroupCleanerCallback",
            _compat.trainer_class,
        ),
        ("ray.train.v2.api.data_parallel_trainer.DataParallelTrainer._create_default_callbacks", _compat.trainer_class),
        (
            "ray.train.v2.api.data_parallel_trainer.DataParallelTrainer._initialize_and_run_controller",
            _compat.trainer_class,
        ),
        ("ray.train.v2._internal.execution.controller.TrainController", _compat.trainer_class),
        ("ray.train.v2._internal.constants.get_env_vars_to_propagate", _compat.trainer_class),
        ("ray.train.v2._internal.constants.HEALTH_CHECK_INTERVAL_S_ENV_VAR", _compat.trainer_class),
    ],
)
def test_a_missing_name_is_one_error_with_the_versions_that_work(missing, use, monkeypatch):
    _compat.head_resource.cache_clear()
    _compat.trainer_class.cache_clear()
    monkeypatch.delattr(missing)
    with pytest.raises(DependencyError, match=r"^ray [\d.]+ has no \S+, which gentrain uses; ") as error:
        use()
    assert missing.rpartition(".")[2] in str(error.value)
    assert f"versions that work: {_compat.RAY.works}" in str(error.value)


def test_a_missing_module_is_the_same_error(monkeypatch):
    module = "ray.train.v2._internal.callbacks.placement_group_callback"
    _compat.trainer_class.cache_clear()
    monkeypatch.delattr(module)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyError, match=rf"^ray [\d.]+ has no {module}, "):
        _compat.trainer_class()


def test_a_renamed_environment_variable_is_an_error_too(monkeypatch):
    _compat.trainer_class.cache_clear()
    monkeypatch.setattr("ray.train.v2._internal.constants.HEALTH_CHECK_INTERVAL_S_ENV_VAR", "RAY_TRAIN_POLL_S")
    with pytest.raises(DependencyError, match="has no RAY_TRAIN_HEALTH_CHECK_INTERVAL_S, which gentrain uses"):
        _compat.trainer_class()


def test_a_missing_command_is_an_error(monkeypatch):
    assert _compat.health_check("host:1")[-2:] == ["--address", "host:1"]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    with pytest.raises(DependencyError, match="has no console script `ray`"):
        _compat.health_check("host:1")


def test_the_versions_that_work_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = (each for each in map(Requirement, project["dependencies"]) if each.name == "ray")
    assert wanted.specifier == SpecifierSet(_compat.RAY.works)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("gentrain.cluster.session", ("ray", "torch")),  # Ray's environment is set before Ray is imported
        ("gentrain.cluster.worker", ("ray", "torch")),  # in Ray Train's controller
        ("gentrain.cluster.leases", ("ray.train", "ray.tune", "ray.data", "torch")),
        ("gentrain.cluster.queue", ("ray.train", "ray.tune", "ray.data", "torch")),
        ("gentrain.cluster.capacity", ("ray.train", "ray.tune", "ray.data", "torch")),
        ("gentrain.cluster.sweep", ("torch",)),
    ],
)
def test_a_process_loads_no_more_than_it_needs(module, absent):
    code = f"import sys, {module}; print([name for name in {absent} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "[]\n", run.stderr
