import pytest
import torch

from gentrain.errors import StoreError
from gentrain.models.registry import build_model
from gentrain.store.run import RunStore
from gentrain.train.checkpoint import (
    checkpoint_problem,
    encode_training_state,
    encode_weights,
    load_training_state,
    load_weights,
)
from gentrain.train.optimizer import AdamW


def trained():
    model = build_model("resnet8", num_classes=5).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for seed in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        optimizer.step()
    return model, optimizer


def test_the_next_step_is_bitwise_the_same_after_a_round_trip():
    model, optimizer = trained()
    content = encode_training_state(model, optimizer, {"rows": [{"epoch": 1, "loss": 0.1}]})
    other = build_model("resnet8", num_classes=5).to(memory_format=torch.channels_last)
    other_optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    assert load_training_state(other, other_optimizer, content) == {"rows": [{"epoch": 1, "loss": 0.1}]}
    for m, o in ((model, optimizer), (other, other_optimizer)):
        o.zero_grad()
        m(torch.ones(4, 3, 8, 8)).square().sum().backward()
        o.step()
    assert all(a.equal(b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    for one, another in zip(model.parameters(), other.parameters(), strict=True):
        assert optimizer.state[one]["momentum_buffer"].equal(other_optimizer.state[another]["momentum_buffer"])


def test_the_next_step_of_adamw_is_bitwise_the_same_after_a_round_trip():
    def steps(model, optimizer, *seeds):
        for seed in seeds:
            optimizer.zero_grad()
            model(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
            optimizer.step()

    model, other = (build_model("resnet8", num_classes=5).to(memory_format=torch.channels_last) for _ in range(2))
    optimizer, resumed = (AdamW(m.parameters(), lr=0.1, fused=True) for m in (model, other))
    steps(model, optimizer, 0, 1)
    content = encode_training_state(model, optimizer, RECORDED)
    assert checkpoint_problem(content, key=KEY, epoch=2, model=other) is None
    load_training_state(other, resumed, content)
    for pair in ((model, optimizer), (other, resumed)):
        steps(*pair, 2)
    assert all(a.equal(b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    for one, another in zip(model.parameters(), other.parameters(), strict=True):
        assert all(optimizer.state[one][kind].equal(resumed.state[another][kind]) for kind in optimizer.state[one])


def test_the_same_state_makes_the_same_bytes():
    model, optimizer = trained()
    assert encode_weights(model) == encode_weights(model)
    assert encode_training_state(model, optimizer, {"a": 1}) == encode_training_state(model, optimizer, {"a": 1})


def test_weights_load_strictly():
    content = encode_weights(build_model("resnet8", num_classes=5))
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_weights(build_model("resnet8", num_classes=6), content)


def test_a_file_that_is_no_checkpoint_says_so():
    model, optimizer = trained()
    with pytest.raises(StoreError, match="without gentrain's metadata"):
        load_training_state(model, optimizer, encode_weights(model))


KEY = "a" * 16
RECORDED = {"key": KEY, "epoch": 2, "rows": [{"epoch": 1}, {"epoch": 2}]}


def named(folder, content, epoch=2):
    """Put a checkpoint where it doesn't belong, under a name with its right checksum."""
    folder.save_checkpoint(epoch, content)
    return folder.train.names()[-1]


def damaged_line(tmp_path, content, *, epoch=2, change=None):
    """Return what is said of the newest checkpoint of an epoch; the one before it, a valid one, must be taken."""
    model, optimizer = trained()
    folder = RunStore(str(tmp_path)).generation(KEY)
    before = encode_training_state(model, optimizer, {"key": KEY, "epoch": 1, "rows": [{"epoch": 1}]})
    folder.save_checkpoint(1, before)
    name = named(folder, content, epoch)
    if change:
        folder.train.write(name, change(content))
    lines = []

    def problem(epoch, content):
        return checkpoint_problem(content, key=KEY, epoch=epoch, model=model)

    assert folder.newest_checkpoint(warn=lines.append, problem=problem) == (1, before)
    assert [n[:11] for n in folder.train.names()] == ["epoch-00001"]
    (line,) = lines
    assert name in line
    assert "\n" not in line
    return line


def state(**metadata):
    return encode_training_state(*trained(), {**RECORDED, **metadata})


def test_a_checkpoint_of_another_generation_is_damaged(tmp_path):
    assert "damaged (it is of generation bbbb" in damaged_line(tmp_path, state(key="b" * 16))


def test_a_checkpoint_renamed_to_another_epoch_is_damaged(tmp_path):
    assert "damaged (it isn't the state after epoch 3)" in damaged_line(tmp_path, state(), epoch=3)


def test_a_checkpoint_that_names_another_epoch_is_damaged(tmp_path):
    assert "damaged (it isn't the state after epoch 2)" in damaged_line(tmp_path, state(epoch=3))


def test_a_checkpoint_that_lacks_rows_is_damaged(tmp_path):
    assert "damaged (it isn't the state after epoch 2)" in damaged_line(tmp_path, state(rows=[{"epoch": 2}]))


def test_a_truncated_checkpoint_is_damaged(tmp_path):
    assert "damaged (checksum differs)" in damaged_line(tmp_path, state(), change=lambda content: content[:-100])


@pytest.mark.parametrize("content", [b"", b"state", b"\xff" * 100, state()[:-100]])
def test_what_is_no_safetensors_file_is_damaged_though_its_checksum_is_right(tmp_path, content):
    assert "damaged (not a safetensors file" in damaged_line(tmp_path, content)


def test_a_safetensors_file_of_something_else_is_damaged(tmp_path):
    assert "no metadata of gentrain's" in damaged_line(tmp_path, encode_weights(trained()[0]))


def test_another_network_and_an_exploded_one_are_damaged(tmp_path):
    other = build_model("resnet8", num_classes=6)
    content = encode_training_state(other, torch.optim.SGD(other.parameters()), RECORDED)
    assert "its tensors aren't the network's" in damaged_line(tmp_path / "other", content)
    model, optimizer = trained()
    name, weight = next(model.named_parameters())
    weight.data[0] = float("nan")
    content = encode_training_state(model, optimizer, RECORDED)
    assert f"damaged ({name} isn't finite)" in damaged_line(tmp_path / "exploded", content)


def test_a_checkpoint_of_the_version_before_is_still_taken():
    model, optimizer = trained()
    content = encode_training_state(model, optimizer, {"rows": [{"epoch": 1}]})
    assert checkpoint_problem(content, key=KEY, epoch=1, model=model) is None
