import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentrain.config import load_study
from gentrain.errors import ConfigError
from gentrain.lineage import build_chain


def chain(*overrides, data="d" * 64, num_classes=100):
    return build_chain(load_study(overrides=overrides), data=data, num_classes=num_classes)


def keys(*overrides, **settings):
    return [spec.key for spec in chain(*overrides, **settings).specs]


def test_a_chain_is_a_path_of_teachers():
    found = chain()
    assert found.name == "D(0.6,0.6)-resnet20-s0"
    assert len(found.specs) == 6
    assert found.specs[0].teacher is None
    for teacher, student in zip(found.specs, found.specs[1:], strict=False):
        assert student.teacher == teacher.key
    assert len(set(keys())) == 6
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys())


@pytest.mark.parametrize(
    "change",
    ["workers=2", "device=cpu", "name=other", "cpus_per_worker=1", "evaluate_every=7", "description=x",
     "dataset.path=/somewhere/else"],
)  # fmt: skip
def test_what_does_not_change_the_result_does_not_change_the_key(change):
    assert keys(change) == keys()


@pytest.mark.parametrize(
    "change",
    ["seed=1", "precision=fp32", "recipe.epochs=3", "recipe.batch_size=64", "network.name=resnet32", "recipe.pad=2",
     "recipe.weight_decay=0", "process.f_a1=0.7", "process.k=4", "sync_batchnorm=true"],
)  # fmt: skip
def test_what_changes_the_result_changes_every_key(change):
    assert not set(keys(change)) & set(keys())


def test_data_changes_every_key():
    assert not set(keys(data="e" * 64)) & set(keys())


def test_patriarchs_are_shared_between_lambdas():
    one, other = keys("process.lambda=0.5"), keys("process.lambda=0.7")
    assert one[0] == other[0]
    assert not set(one[1:]) & set(other[1:])


def test_the_baseline_is_the_born_again_patriarch_whatever_k():
    baseline = keys("process.f_a1=1.0", "process.lambda=0.0", "process.k=3")
    assert len(baseline) == 1
    assert baseline[0] == keys("process.f_a1=1.0", "process.lambda=0.5")[0]


def test_fewer_generations_are_a_prefix():
    assert keys("generations=2") == keys()[:3]


def test_k_above_the_number_of_classes_is_refused():
    with pytest.raises(ConfigError, match=r"process\.k: 5 is more than the dataset's 4 classes"):
        chain(num_classes=4)


@given(st.floats(0.21, 1.0), st.floats(0.01, 1.0))
def test_targets_rise_towards_one(f_a1, lam):
    targets = chain(f"process.f_a1={f_a1!r}", f"process.lambda={lam!r}").targets
    assert targets[0] == pytest.approx(f_a1)
    assert list(targets) == sorted(targets)
    assert targets[-1] <= 1
