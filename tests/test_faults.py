"""A dozen faults against sweeps in one process; `make faults` does hundreds, on a cluster."""

import random

import pytest

from gentrain.store.done import DONE, MODEL, PREDICTIONS
from tests.faults.campaign import disturb, finish, scene
from tests.faults.scene import reference, settings
from tests.s3 import s3_server

STUDY = settings("dataset.limit=40", "recipe.epochs=20", "recipe.milestones=[15]")
DISK = ["damage checkpoint", "SIGKILL driver", "SIGSTOP driver", "disk full", f"damage {MODEL}", f"damage {DONE}"]
S3 = [
    "damage checkpoint",
    "S3 errors",
    "SIGKILL driver",
    "S3 errors",
    f"damage {PREDICTIONS}",
    "damage results.parquet",
]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    return reference(tmp_path_factory.mktemp("reference"), STUDY)


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as monkeypatch, s3_server(monkeypatch) as bucket:
        yield bucket


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("seed", "faults"), [(0, DISK), (1, S3)])
def test_a_sweep_under_faults_ends_in_the_same_bits(tmp_path, bucket, wanted, seed, faults):
    with scene(tmp_path, bucket, seed=seed, s3=bool(seed), cluster=False, study=STUDY) as made:
        done = list(disturb(made, random.Random(seed), faults, pause=1))
        assert [record["fault"] for record in done] == faults  # each hit something
        assert finish(made) == "", made.log.read_text()
        assert made.files() == wanted
        assert set(made.ends) <= {0, 1, 2, -9}, made.ends
