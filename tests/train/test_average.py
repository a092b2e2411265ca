"""The moving average of the weights: by hand, as result and as teacher, the same bits after a stop, damage."""

import pytest
import torch
from torch import nn

from gentrain import api
from gentrain.data.prepare.share import prepare_shared
from gentrain.errors import ConfigError
from gentrain.events import Note
from gentrain.store.done import AVERAGE, DONE, MODEL, PREDICTIONS
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_chain
from gentrain.study.loading import load_study
from gentrain.train.checkpoint import checkpoint_problem, encode_training_state
from gentrain.train.companions import Companions
from gentrain.train.inference import predict_split
from tests.train.stops import finished_files, stopped_everywhere

SHORT = ("recipe.epochs=2", "recipe.milestones=[1]")
RESULT, TEACHER = "recipe.ema={decay: 0.9, as: result}", "recipe.ema={decay: 0.9, as: teacher}"


def spec(*overrides):
    return build_chain(load_study(overrides=overrides), data="d" * 64, num_classes=10).specs[0]


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def test_the_average_by_hand():
    network = model()
    companions = Companions(network, spec("recipe.ema={decay: 0.75}"))
    first = network[0].weight.detach().clone()
    for step in (1, 2):
        with torch.no_grad():
            network[0].weight.fill_(float(step))
        network[1].running_mean.fill_(step)
        network[1].num_batches_tracked.fill_(step)
        companions.after_step()
    wanted = 0.75 * (0.75 * first + 0.25 * 1) + 0.25 * 2
    torch.testing.assert_close(companions.average[0].weight, wanted)
    assert companions.average[1].running_mean.tolist() == [2, 2]  # copied
    assert companions.average[1].num_batches_tracked == 2
    assert not companions.average.training
    assert not any(parameter.requires_grad for parameter in companions.average.parameters())
    companions.reset()
    assert companions.average[0].weight.equal(network[0].weight)


def test_whose_weights_are_the_result():
    network = model()
    assert Companions(network, spec()).networks == {}
    assert Companions(network, spec(TEACHER)).result is network
    average = Companions(network, spec(RESULT))
    assert average.result is average.average


def test_as_result_and_as_teacher_are_the_same_average(small, tmp_path):
    """One trains what the other does: the first's networks are the second's averages, in both generations."""
    plain = finished_files(small(*SHORT, "name=plain"), tmp_path, names=(MODEL,))
    results = finished_files(small(*SHORT, "name=result", RESULT), tmp_path, names=(MODEL,))
    both = finished_files(small(*SHORT, "name=teacher", TEACHER), tmp_path, names=(MODEL, AVERAGE))
    assert both[0][0] == plain[0][0]
    assert [average for _, average in both] == [network for (network,) in results]
    assert results[0] != plain[0]
    assert both[1][0] != plain[1][0]  # the student had another teacher


def test_every_epoch_resumes_in_the_same_bits(small, tmp_path):
    whole, parts = stopped_everywhere(small(*SHORT, TEACHER), tmp_path, names=(MODEL, AVERAGE, PREDICTIONS))
    assert whole == parts


def test_the_primary_score_is_the_averages(small, tmp_path):
    study, store = small("generations=0", "recipe.ema={decay: 0.99}"), RunStore(str(tmp_path))
    (row,) = api.run(study, runs=str(tmp_path), local=True)
    data, spec = prepare_shared(study.dataset, store), store.generation(row["key"]).spec()
    scores, _ = predict_split(spec, "train", store=store, data=data.folder.name, threads=1)
    assert row["primary_measured"] == pytest.approx(scores.max(axis=1).mean(), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "how"), [(AVERAGE, "trained again"), (PREDICTIONS, "evaluated again from its weights")]
)
def test_a_damaged_file_is_restored_and_the_average_is_kept(small, tmp_path, name, how):
    study, names, notes = small(*SHORT, TEACHER, "generations=0"), (MODEL, AVERAGE, PREDICTIONS), []
    before = finished_files(study, tmp_path, names=names)
    (done,) = tmp_path.glob(f"generations/*/{DONE}")
    (done.parent / name).write_bytes(b"?")
    api.run(study, runs=str(tmp_path), local=True, observe=notes.append)
    assert f"{name} damaged or missing; it is {how}" in " ".join(n.text for n in notes if isinstance(n, Note))
    assert finished_files(study, tmp_path, names=names) == before


def test_a_checkpoint_without_the_average_is_damaged():
    network = model()
    optimizer = torch.optim.SGD(network.parameters())
    companions = Companions(network, spec(RESULT)).networks
    metadata = {"key": "k", "epoch": 1, "rows": [{}]}
    content = encode_training_state(network, optimizer, metadata, companions=companions)
    bare = encode_training_state(network, optimizer, metadata)
    asked = {"key": "k", "epoch": 1, "model": network}
    assert checkpoint_problem(content, **asked, companions=companions) is None
    assert checkpoint_problem(bare, **asked) is None
    assert checkpoint_problem(bare, **asked, companions=companions) == "its tensors aren't the network's"


def test_it_is_part_of_the_key_and_read_as_it_is_written():
    one, other = spec(RESULT), spec(TEACHER)
    assert len({spec().key, one.key, other.key}) == 3
    assert one.model_dump(mode="json")["recipe"]["ema"] == {"decay": 0.9, "as": "result"}
    assert type(one).parse(one.model_dump_json().encode(), key=one.key) == one


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("recipe.ema={decay: 1}", "recipe.ema.decay: input should be less than 1"),
        ("recipe.ema={as: both}", "recipe.ema.as: input should be 'result' or 'teacher' (got 'both')"),
    ],
)
def test_what_is_no_average_is_refused(settings, message):
    with pytest.raises(ConfigError) as error:
        load_study(overrides=[settings])
    assert message in str(error.value)
