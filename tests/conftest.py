import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from gentrain.study.loading import load_study

# Other tests run beside it, so times mean nothing. The same examples every time; `make properties` draws others.
settings.register_profile("gentrain", deadline=None, derandomize=True)
settings.register_profile("others", deadline=None, max_examples=300)
settings.load_profile("gentrain")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in all that a script starts with `&`, and inherited
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


def claim_token(folder):
    """Return the token of a claim on a generation's folder, for a job that no runner starts."""
    with folder.claimed("a test", waiting=pytest.fail) as claim:
        return claim.token


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


_guard = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that tests without the `ray` marker give to Ray, here and in what they start.

    Ray makes its folder there, which is noticed when the test has ended.
    """
    config.stash[_guard] = Path(tempfile.mkdtemp(prefix="gentrain-"))


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_guard], ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Point Ray at the folder where it is noticed, unless the test says that it starts Ray."""
    if item.get_closest_marker("ray"):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(item.config.stash[_guard]))
        return (yield)


def _refuse_ray(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    finally:
        folder = item.config.stash[_guard]
        if started := list(folder.iterdir()):
            for path in started:
                shutil.rmtree(path)
            pytest.fail(f"{item.nodeid} starts Ray but isn't marked so: put @pytest.mark.ray on it", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Fail a test whose fixtures start Ray without its marker."""
    return (yield from _refuse_ray(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that starts Ray without its marker."""
    return (yield from _refuse_ray(item))
