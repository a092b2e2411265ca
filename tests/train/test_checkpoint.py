import pytest
import torch

from gentrain.errors import StoreError
from gentrain.models.registry import build_model
from gentrain.train.checkpoint import encode_training_state, encode_weights, load_training_state, load_weights


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
