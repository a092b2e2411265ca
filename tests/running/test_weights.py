"""Files of weights from elsewhere: what training scripts and libraries write, and tensors that are no weights."""

import argparse

import pytest
import safetensors.torch
import torch
from torch.optim.swa_utils import AveragedModel

from gentrain import api
from gentrain.errors import ConfigError
from gentrain.events import Note
from gentrain.models.registry import build_model
from gentrain.running.pretrained import PretrainedNetworks
from gentrain.running.weights import fit, read_weights
from gentrain.store.run import RunStore
from gentrain.study.loading import load_study
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("resnet8", num_classes=10)


@pytest.fixture(scope="module")
def weights(model):
    return model.state_dict()


def prefixed(weights, prefix):
    return {f"{prefix}{name}": value for name, value in weights.items()}


def averaged(model):
    return AveragedModel(model).state_dict()


def resolve(path, *, network="resnet8", key=None):
    """Return a file's weights as the store keeps them, and what is said about it."""
    tensors, place = read_weights(path, key, str(path))
    content, text = fit(tensors, network, 10, str(path))
    return content, ", ".join(filter(None, (place, text)))


FILES = {
    "plain": (lambda m, w: w, ""),
    "DDP": (lambda m, w: prefixed(w, "module."), "prefix 'module.' taken off the names"),
    "compiled": (lambda m, w: prefixed(w, "_orig_mod."), "prefix '_orig_mod.' taken off the names"),
    "compiled, then DDP": (lambda m, w: prefixed(w, "module._orig_mod."), "prefix '_orig_mod.module.' taken off"),
    "DDP, then compiled": (lambda m, w: prefixed(w, "_orig_mod.module."), "prefix '_orig_mod.module.' taken off"),
    "three deep": (lambda m, w: prefixed(w, "model.module._orig_mod.net."), "prefix '_orig_mod.model.module.net.' ta"),
    "twice the same": (lambda m, w: prefixed(w, "module.module."), "prefix 'module.module.' taken off"),
    "compiled parts": (
        lambda m, w: {name.replace("layer1.", "layer1._orig_mod.").replace("linear.", "_orig_mod.linear."): v
                      for name, v in w.items()},
        "prefix '_orig_mod.' taken off",
    ),
    "FSDP and Fabric": (lambda m, w: prefixed(w, "_forward_module._fsdp_wrapped_module."), "_fsdp_wrapped_module.' ta"),
    "AveragedModel": (lambda m, w: averaged(m), "prefix 'module.' taken off the names"),
    "AveragedModel in DDP": (lambda m, w: prefixed(averaged(m), "module."), "prefix 'module.module.' taken off"),
    "torchvision's EMA": (lambda m, w: {"model_ema": averaged(m), "epoch": 3}, "weights under 'model_ema', prefix"),
    "Lightning": (
        lambda m, w: {"state_dict": prefixed(w, "model."), "callbacks": {}, "pytorch-lightning_version": "2"},
        "weights under 'state_dict', prefix 'model.' taken off the names",
    ),
    "Lightning with a loss": (
        lambda m, w: {"state_dict": {**prefixed(w, "net."), "loss.weight": torch.ones(10)}},
        "prefix 'net.' taken off the names, 1 other tensor left out, such as 'loss.weight'",
    ),
    "Lightning with a teacher": (
        lambda m, w: {"state_dict": {**prefixed(w, "model._orig_mod."), **prefixed(w, "teacher._orig_mod.")}},
        "other tensors left out, such as 'teacher.",
    ),
    "timm": (
        lambda m, w: {"epoch": 1, "arch": "resnet8", "args": argparse.Namespace(lr=0.1), "state_dict": w,
                      "state_dict_ema": prefixed(w, "module.")},
        "weights under 'state_dict', not those under 'state_dict_ema' (pretrained.key)",
    ),
    "timm's EMA": (
        lambda m, w: {"args": argparse.Namespace(lr=0.1), "state_dict_ema": prefixed(w, "module.")},
        "weights under 'state_dict_ema', prefix 'module.' taken off the names",
    ),
    "nested": (lambda m, w: {"model": {"state_dict": w, "epoch": 1}}, "weights under 'model.state_dict'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_what_libraries_write_is_unwrapped_and_named(tmp_path, model, weights, kind):
    make, expected = FILES[kind]
    torch.save(weights, tmp_path / "plain.pt")
    torch.save(make(model, weights), tmp_path / "other.pt")
    content, text = resolve(tmp_path / "other.pt")
    assert content == resolve(tmp_path / "plain.pt")[0]
    assert expected in text
    assert bool(expected) == bool(text)
    assert ("left out" in expected) == ("left out" in text)


def test_the_key_says_which(tmp_path, model, weights):
    other = build_model("resnet8", num_classes=10).state_dict()
    torch.save({"state_dict": weights, "state_dict_ema": prefixed(other, "module.")}, tmp_path / "a.pt")
    content, text = resolve(tmp_path / "a.pt", key="state_dict_ema")
    assert torch.equal(safetensors.torch.load(content)["linear.weight"], other["linear.weight"])
    assert text == "prefix 'module.' taken off the names"


def wrapped(num_classes):
    """Build a network whose own names begin as a wrapper's."""
    network = torch.nn.Module()
    network.model = build_model("resnet8", num_classes=num_classes)
    return network


def test_a_networks_own_names_are_no_prefix(tmp_path):
    weights = wrapped(10).state_dict()
    for prefix in ("", "module.", "model."):
        torch.save(prefixed(weights, prefix), tmp_path / "a.pt")
        content, text = resolve(tmp_path / "a.pt", network="tests.running.test_weights:wrapped")
        assert safetensors.torch.load(content).keys() == weights.keys()
        assert text == (f"prefix {prefix!r} taken off the names" if prefix else "")


HALF = [torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", HALF)
def test_other_floats_are_converted(tmp_path, weights, dtype):
    torch.save({n: v.to(dtype) if v.is_floating_point() else v for n, v in weights.items()}, tmp_path / "a.pt")
    loaded = safetensors.torch.load(resolve(tmp_path / "a.pt")[0])
    assert torch.equal(loaded["linear.weight"], weights["linear.weight"].to(dtype).float())


ODD = {
    "integers": (lambda v: v.to(torch.int8), "is torch.int8, not real numbers; save it as dense torch.float32"),
    "booleans": (lambda v: v > 0, "is torch.bool, not real numbers"),
    "complex": (lambda v: v.to(torch.complex64), "is torch.complex64, not real numbers"),
    "eight bits": (lambda v: v.to(torch.float8_e4m3fn), "is torch.float8_e4m3fn, not real numbers"),
    "sparse": (lambda v: v.to_sparse(), "is sparse (torch.sparse_coo); save it as dense torch.float32"),
    "quantised": (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), "is quantised (torch.qint8)"),
    "nothing": (lambda v: v.to("meta"), "has no values (it was saved from device meta)"),
    "not a number": (lambda v: v * float("nan"), "isn't finite; that network can teach nothing"),
    "beyond float32": (lambda v: v.double() * 1e300, "isn't finite; that network can teach nothing"),
    "a number": (lambda v: 5, "'linear.weight' is no tensor"),
    "an array": (lambda v: v.numpy(), "holds more than tensors"),
    "an object": (lambda v: argparse.Action([], ""), "holds more than tensors (argparse.Action)"),
    "empty": (lambda v: v[:0], "tensor 'linear.weight' is (0, 64), but (10, 64)"),
}


@pytest.mark.filterwarnings("ignore")  # of torch, on quantised tensors
@pytest.mark.parametrize("kind", ODD)
def test_odd_tensors_are_refused_in_one_line(tmp_path, weights, kind):
    make, expected = ODD[kind]
    torch.save(weights | {"linear.weight": make(weights["linear.weight"])}, tmp_path / "a.pt")
    with pytest.raises(ConfigError) as error:
        resolve(tmp_path / "a.pt")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_status == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({5: torch.ones(1)}, "a tensor is named 5, not by a text"),
        ({"x" * 5000: torch.ones(1)}, "in resnet8 for 10 classes"),
        ({f"a{i}": {"b": torch.ones(1)} for i in range(1000)}, "'a0' is no tensor; name its weights with"),
        ({"state_dict": {}}, "it is empty"),
    ],
    ids=["number", "long", "many", "empty"],
)
def test_odd_names_are_refused_in_one_short_line(tmp_path, content, expected):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ConfigError) as error:
        resolve(tmp_path / "a.pt")
    message = str(error.value).removeprefix(str(tmp_path))
    assert expected in message
    assert "\n" not in message
    assert len(message) < 400


def test_a_file_that_holds_itself_ends(tmp_path):
    content = {"epoch": 1}
    content["model"] = content
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ConfigError, match="is no tensor"):
        resolve(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("network", "classes", "expected"),
    [
        ("resnet8", 100, "it is resnet8 for 100 classes; the dataset has 10: give a network for these"),
        ("resnet14", 7, "it is resnet14 for 7 classes; the dataset has 10: give a network for these"),
        ("resnet14", 10, "it fits resnet14 and resnet14-strided (pretrained.network, --teacher-network)"),
        ("torchvision/squeezenet1_0", 10, "name its network (pretrained.network, --teacher-network)"),
    ],
)
def test_weights_for_another_number_of_classes_say_so(tmp_path, network, classes, expected):
    torch.save(prefixed(build_model(network, num_classes=classes).state_dict(), "module."), tmp_path / "a.pt")
    with pytest.raises(ConfigError) as error:
        resolve(tmp_path / "a.pt")
    assert expected in str(error.value)
    assert "for 10 classes" in str(error.value)


def test_a_run_names_what_was_taken_off_once(tmp_path, weights):
    torch.save({"state_dict": prefixed(weights, "model.")}, tmp_path / "a.pt")
    study = load_study(overrides=[*SMALL, "generations=0"], pretrained=[{"checkpoint": str(tmp_path / "a.pt")}])
    events = []
    rows = api.run(study, runs=str(tmp_path / "runs"), local=True, observe=events.append)
    said = "weights under 'state_dict', prefix 'model.' taken off the names"
    notes = [event.text for event in events if isinstance(event, Note) and "prefix" in event.text]
    assert notes == [f"pretrained.0.checkpoint: {tmp_path / 'a.pt'}: {said}"]
    assert [row["generation"] for row in rows] == [0]
    resolver = PretrainedNetworks(RunStore(str(tmp_path)), data="d" * 64, num_classes=10)
    assert resolver(study)[0].task.sha256  # without `notify`, nothing is said
