import os
from pathlib import Path

import pytest

from gentrain.study.loading import load_study

SMALL = (
    "name=small",
    "dataset.source=digits",
    "dataset.limit=20",
    "network.name=resnet8",
    "recipe.epochs=3",
    "recipe.batch_size=32",
    "recipe.milestones=[2]",
    "recipe.padding=1",
    "precision=fp32",
    "generations=1",
    "device=cpu",
    "cpus_per_worker=1",
)
"""A chain of two generations that trains in about a second."""


@pytest.fixture
def small():
    """Return a function that builds the small study with more overrides."""
    return lambda *overrides: load_study(overrides=[*SMALL, *overrides])


@pytest.fixture(scope="session")
def cifar100() -> Path:
    """Return the folder of the real CIFAR-100; tests that use it skip where GENTRAIN_CIFAR100 isn't set."""
    folder = os.environ.get("GENTRAIN_CIFAR100")
    if not folder:
        pytest.skip("GENTRAIN_CIFAR100 is not set: the folder of the real CIFAR-100 (Parquet)")
    return Path(folder)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share the tests among processes (`-n 2 --dist loadgroup`): a file stays together, long ones begin first.

    The resume tests share nothing and take minutes, so each is a group of its own.
    """
    for item in items:
        group = item.name if item.path.name == "test_resume.py" else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: (item.path.name != "test_resume.py", item.get_closest_marker("ray") is None))
