"""Networks that can't train on every batch of a study are refused before anything is started, with what to change."""

import pytest
from torch import nn

from gentrain import api
from gentrain.data.loading.order import worker_parts
from gentrain.data.prepare.share import prepare_shared
from gentrain.errors import ConfigError
from gentrain.running.networks import check_networks
from gentrain.store.run import RunStore

HERE = "network.name=tests.running.test_networks:"


def pooled(num_classes):
    """Return a network that ends like torchvision's: its last BatchNorm has one value of a channel an image."""
    body = [nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(8, num_classes))


class Viewed(nn.Module):
    """Flattens by a view that can't be of no images."""

    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.last = nn.LazyLinear(num_classes)

    def forward(self, images):
        features = self.body(images)
        return self.last(features.view(len(features), -1))


class TwoOutputs(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = pooled(num_classes)

    def forward(self, images):
        logits = self.body(images)
        return (logits, logits) if self.training else logits


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Return the manifest of 200 digits."""
    from gentrain.study.loading import load_study
    from tests.conftest import SMALL

    return prepare_shared(load_study(overrides=SMALL).dataset, RunStore(str(tmp_path_factory.mktemp("runs")))).manifest


@pytest.fixture
def refused(small, manifest):
    """Return a function that returns the line by which a study is refused."""

    def check(*overrides):
        with pytest.raises(ConfigError) as error:
            check_networks(small(*overrides), manifest)
        assert error.value.exit_status == 2
        return str(error.value)

    return check


@pytest.mark.parametrize(
    ("batch", "workers", "left", "instead"),
    [(199, 1, "the last with 1", 198), (66, 2, "one of 2 workers with 1", 64), (66, 3, "one of 3 workers with 1", 63),
     (4, 4, "one of 4 workers with 1", 8)],
)  # fmt: skip
def test_one_image_left_for_a_batchnorm_at_one_pixel(small, manifest, refused, batch, workers, left, instead):
    line = refused(HERE + "pooled", f"recipe.batch_size={batch}", f"workers={workers}")
    assert line.startswith("small: network 'tests.running.test_networks:pooled' can't train on 1 image of 8 × 8 ")
    assert f"; 200 training images in batches of {batch} leave {left}; set recipe.batch_size: {instead}, or" in line
    check_networks(small(HERE + "pooled", f"recipe.batch_size={instead}", f"workers={workers}"), manifest)
    check_networks(small(f"recipe.batch_size={batch}", f"workers={workers}"), manifest)  # resnet8 ends in 2 × 2 pixels


@pytest.mark.parametrize(("batch", "workers"), [(32, 1), (28, 2), (48, 3)])
def test_batches_that_leave_nobody_alone_are_taken(small, manifest, batch, workers):
    check_networks(small(HERE + "pooled", f"recipe.batch_size={batch}", f"workers={workers}"), manifest)


def test_the_students_network_is_checked_too(refused):
    assert "can't train on 1 image" in refused("recipe.batch_size=199", HERE.replace("name", "students") + "pooled")


def test_a_worker_without_images_computes_nothing(small, manifest):
    """Of the last two images three workers have 1, 1 and none; with one worker less nobody is alone."""
    assert worker_parts(200, batch_size=99, world_size=3) == {33, 1, 0}
    check_networks(small(HERE + "Viewed", "recipe.batch_size=99", "workers=3"), manifest)


def test_synchronised_batchnorms_see_whole_batches_and_parts_without_images(small, manifest, refused):
    synchronised = ("sync_batchnorm=true", "workers=3")
    check_networks(small(HERE + "pooled", "recipe.batch_size=99", *synchronised), manifest)
    line = refused(HERE + "Viewed", "recipe.batch_size=99", *synchronised)
    assert "Viewed' can't train on no images of 8 × 8 pixels: cannot reshape" in line
    assert "in batches of 99 leave one of 3 workers with none; set recipe.batch_size: 96, or" in line
    check_networks(small(HERE + "Viewed", "recipe.batch_size=96", *synchronised), manifest)


def test_a_network_with_more_outputs_while_it_trains_is_refused(refused):
    line = refused(HERE + "TwoOutputs")
    assert line.endswith(
        "TwoOutputs' gives tuple while it trains, not logits (2, 10) alone; name a function (package.module:function) "
        "that builds it without other outputs"
    )


def test_nothing_is_trained_before(small, tmp_path):
    with pytest.raises(ConfigError, match="can't train on 1 image"):
        api.run(small(HERE + "pooled", "recipe.batch_size=199"), runs=str(tmp_path), local=True)
    assert not (tmp_path / "generations").exists()
