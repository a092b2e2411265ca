"""TF32 is for GPUs and said so at once; a worker's cores are its GPU's share of the node's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gentrain.cluster.cores import core_slice
from gentrain.cluster.session import fit_resources
from gentrain.errors import ConfigError, ResourceError
from gentrain.running.local import LocalExecutor
from gentrain.study.loading import load_study
from gentrain.train.device import set_tf32


@pytest.fixture
def exact():
    """Put the switches back to exact float32."""
    yield
    set_tf32(False)


def switches():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_tf32_is_switched_on_and_off_for_products_and_convolutions(exact):
    set_tf32(True)
    assert switches() == (True, True)
    set_tf32(False)
    assert switches() == (False, False)


def test_tf32_is_refused_where_the_study_asks_for_cpus():
    for setting in ("device=cpu", "gpus_per_worker=0"):
        with pytest.raises(ConfigError, match="`precision: tf32` is for GPUs; set fp32 or bf16"):
            load_study(overrides=["precision=tf32", setting])


def test_tf32_is_refused_where_there_is_no_gpu(monkeypatch):
    study = load_study(overrides=["precision=tf32"])
    with pytest.raises(ResourceError, match="precision: tf32 is for GPUs and the cluster has none"):
        fit_resources(study, {"CPU": 2.0})
    assert fit_resources(study, {"CPU": 2.0, "GPU": 1.0}).cuda
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ResourceError, match="precision: tf32 is for GPUs and torch finds none here"):
        LocalExecutor().check(study)


def test_what_is_computed_again_is_not_compiled():
    with pytest.raises(ConfigError, match=r"`compile: true` and `network\.memory_efficient: true` don't go together"):
        load_study(overrides=["compile=true", "network.memory_efficient=true"])


@given(st.sets(st.integers(0, 500), min_size=1), st.integers(1, 64))
def test_gpus_share_a_nodes_cores_without_overlap(cores, gpus):
    if len(cores) < gpus:
        with pytest.raises(ResourceError, match=r"pin_workers: true: can't share \d+ cores among"):
            core_slice(cores, gpu=0, gpus=gpus)
        return
    slices = [core_slice(cores, gpu=gpu, gpus=gpus) for gpu in range(gpus)]
    assert all(slices)
    assert [core for part in slices for core in part] == sorted(cores)  # all of them, each once, neighbours together
    assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_a_gpu_that_the_node_does_not_count_is_refused():
    with pytest.raises(ResourceError, match="CUDA_VISIBLE_DEVICES"):
        core_slice(range(16), gpu=4, gpus=4)
