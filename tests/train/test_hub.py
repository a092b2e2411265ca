"""Models by huggingface_hub's mixin: saved and loaded on this machine, sent by `push` alone."""

import socket
import sys

import numpy as np
import pytest
import torch

import gentrain
from gentrain import cli
from gentrain.errors import ConfigError, DependencyError
from gentrain.train import exported
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return the folder of an exported model, without programs, which take seconds."""
    folder = tmp_path_factory.mktemp("hub")
    overrides = [*SMALL, "dataset.path=/private/place", "recipe.epochs=1", "recipe.milestones=[]", "generations=0"]
    study = gentrain.load_study(overrides=[line for line in overrides if not line.startswith("dataset.path")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exported, "_programs", lambda *_, **__: {})
        gentrain.run(study, runs=str(folder / "runs"), local=True).chain().generation(0).export(folder / "model")
    return folder / "model"


@pytest.fixture
def offline(monkeypatch):
    """Fail where anything is sent."""

    def refuse(*arguments, **_):
        raise AssertionError(f"connects to {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("offline")
def test_a_model_that_is_saved_and_loaded_again_gives_the_same_bits_and_stays_here(model, tmp_path):
    pytest.importorskip("huggingface_hub")
    loaded = gentrain.from_pretrained(model)
    loaded.save_pretrained(tmp_path / "saved")
    again = type(loaded).from_pretrained(tmp_path / "saved")  # the mixin's own way
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == sorted(path.name for path in model.iterdir())
    for path in model.iterdir():
        assert (tmp_path / "saved" / path.name).read_bytes() == path.read_bytes()
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8))
    with torch.no_grad():
        assert torch.equal(again(images), gentrain.load_model(model)(images))
    assert not again.training
    again.save_pretrained(tmp_path / "saved")  # onto itself


def test_push_sends_the_models_files_and_nothing_else(model, monkeypatch, capsys):
    hub = pytest.importorskip("huggingface_hub")
    sent = {}

    def create_repo(_, repo_id, *, private, exist_ok):
        sent["private"] = private
        return type("Repo", (), {"repo_id": repo_id})

    def upload_folder(_, *, repo_id, folder_path, **__):
        sent[repo_id] = {path.name: path.read_bytes() for path in folder_path.iterdir()}
        return f"https://hub/{repo_id}"

    monkeypatch.setattr(hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload_folder)
    assert cli.run(["push", str(model), "someone/digits"]) == 0
    assert capsys.readouterr().out == "https://hub/someone/digits\n"
    assert sent == {"private": True, "someone/digits": {path.name: path.read_bytes() for path in model.iterdir()}}
    gentrain.push(model, "someone/digits", public=True)
    assert sent["private"] is False


@pytest.mark.usefixtures("offline")
def test_what_can_not_be_had_or_sent_is_one_line(model, monkeypatch, capsys):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="someone/none: no folder here, and not to be had from the Hub"):
        gentrain.from_pretrained("someone/none")
    assert cli.run(["push", str(model), "someone/digits"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gentrain: someone/digits: not pushed: ")
    assert line.endswith("; sign in with `hf auth login`")
    assert cli.run(["push", str(model.parent), "someone/digits"]) == 2
    assert "give a folder that gentrain export wrote" in capsys.readouterr().err


def test_without_huggingface_hub_a_line_says_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DependencyError, match=r"huggingface_hub isn't installed: pip install 'gentrain\[hub\]'"):
        gentrain.from_pretrained(model)
