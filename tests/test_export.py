"""Models in folders of their own: `gentrain export` and `gentrain predict`."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import gentrain
from gentrain import cli
from gentrain.data.sources.registry import load_source
from gentrain.data.sources.single import read_fitting
from gentrain.errors import ConfigError, StoreError
from gentrain.store.done import MODEL
from gentrain.train import exported
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a run folder with a study of two generations, and the folder of its ensemble as a model."""
    folder = tmp_path_factory.mktemp("export")
    study = gentrain.load_study(overrides=[*SMALL, "dataset.validation=0.2", "recipe.epochs=1", "recipe.milestones=[]"])
    gentrain.run(study, runs=str(folder / "runs"), local=True)
    command = ["export", "small", "--ensemble-kind", "weighted", "--runs", str(folder / "runs")]
    assert cli.run([*command, "--to", str(folder / "model")]) == 0
    return folder


@pytest.fixture
def without_programs(monkeypatch):
    """Leave torch.export's program and ONNX out, which take seconds."""
    monkeypatch.setattr(exported, "_programs", lambda *_, **__: {})


def chain(runs):
    return gentrain.open_run(str(runs / "runs")).chain("small")


@pytest.fixture
def pixels():
    study = gentrain.load_study(overrides=SMALL)
    return torch.from_numpy(load_source(study.dataset).splits["test"].images[:7])


def test_an_ensemble_comes_back_bit_for_bit(runs, pixels):
    network = chain(runs).ensemble("weighted")
    with torch.no_grad():
        assert torch.equal(gentrain.load_model(runs / "model")(pixels), network.module()(pixels))


def test_model_json_says_what_it_is_and_where_it_comes_from(runs):
    trained = chain(runs)
    model = json.loads((runs / "model" / "model.json").read_text())
    keys = [trained.generation(place).specs[0].key for place in (0, 1)]
    assert [member["key"] for member in model["members"]] == [one["key"] for one in model["lineage"]] == keys
    assert model["lineage"][1]["task"]["teacher"] == keys[0]
    assert [member["weight"] for member in model["members"]] == list(trained.ensemble("weighted").weights)
    row = gentrain.open_run(str(runs / "runs")).run("small")[-1]
    assert model["scores"]["top1_error"] == row["weighted_top1_error"]
    assert (model["classes"], model["height"], model["ensemble"]) == (list("0123456789"), 8, "weighted")
    assert gentrain.load_study(overrides=model["settings"]) == trained.study


@pytest.mark.parametrize("images", [1, 2, 7])
def test_the_program_of_torch_export_takes_any_number_of_images(runs, pixels, images):
    program = torch.export.load(runs / "model" / "model.pt2").module()
    wanted = gentrain.load_model(runs / "model")(pixels[:images])
    torch.testing.assert_close(program(pixels[:images]), wanted, atol=1e-6, rtol=0)


def test_onnx_gives_the_same_scores(runs, pixels):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(runs / "model" / "model.onnx")
    for images in (1, 7):
        wanted = gentrain.load_model(runs / "model")(pixels[:images]).detach().numpy()
        (scores,) = session.run(None, {"images": pixels[:images].numpy()})
        np.testing.assert_allclose(scores, wanted, atol=1e-4)


def test_without_onnx_a_line_says_what_to_install(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    lines = []
    network = chain(runs).generation(0)
    names = network.export(tmp_path / "model", preprocessing=False, notify=lines.append)
    assert lines == ["model.onnx: not written, onnx and onnxscript not installed: pip install 'gentrain[onnx]'"]
    assert names == ["model.safetensors", "model.pt2", "model.json"]
    stored = network.store.generation(network.specs[0].key).read_verified(MODEL)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == stored
    program = torch.export.load(tmp_path / "model" / "model.pt2").module()
    module, images = network.module(), torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(program(images), module.network(images), atol=1e-6, rtol=0)


@pytest.mark.usefixtures("without_programs")
def test_another_model_takes_the_place_of_a_model_and_of_nothing_else(runs, tmp_path):
    network, folder = chain(runs).generation(1), tmp_path / "model"
    network.export(folder)
    (folder / "model.onnx").write_bytes(b"of the model before")
    chain(runs).generation(0).export(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match="holds something else than a model; choose another folder with --to"):
        network.export(tmp_path)


@pytest.mark.usefixtures("without_programs")
def test_a_damaged_model_is_refused(runs, tmp_path):
    chain(runs).generation(0).export(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match=r"model.safetensors: damaged \(checksum differs\); export the model again"):
        gentrain.load_model(tmp_path)
    (tmp_path / "model.json").write_text('{"format": 2}')
    with pytest.raises(StoreError, match=r"model.json: damaged, or of another version \(format: "):
        gentrain.load_model(tmp_path)
    with pytest.raises(ConfigError, match="No such file or directory; give a folder that gentrain export wrote"):
        gentrain.load_model(tmp_path / "none")


def test_predict_classifies_files_and_folders(runs, tmp_path, pixels, capsys):
    for index in range(3):
        Image.fromarray(pixels[index].numpy()).save(tmp_path / f"{index}.png")
    assert cli.run(["predict", str(runs / "model"), str(tmp_path), str(tmp_path / "1.png"), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"][-5:] for row in rows] == ["0.png", "1.png", "2.png", "1.png"]
    assert rows[1] == rows[3]
    wanted = gentrain.load_model(runs / "model")(pixels[:3]).softmax(dim=1).topk(5)
    assert [row["classes"] for row in rows[:3]] == [[str(i) for i in line] for line in wanted.indices.tolist()]
    np.testing.assert_allclose([row["scores"] for row in rows[:3]], wanted.values.detach().numpy(), atol=1e-6)


def test_predict_goes_on_after_a_broken_image_and_says_so(runs, tmp_path, pixels, capsys):
    Image.fromarray(pixels[0].numpy()).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert cli.run(["predict", str(runs / "model"), str(tmp_path), "--top", "2"]) == 1
    output = capsys.readouterr()
    assert "bad.png: broken image (cannot identify image file" in output.err
    assert output.out.count("%") == 2
    assert cli.run(["predict", str(runs / "model"), str(tmp_path / "none.png")]) == 2
    assert "none.png: no such file" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.run(["predict", str(runs / "model"), str(tmp_path / "empty")]) == 2
    assert "empty: no image in it (.jpeg, .jpg, .png, .webp)" in capsys.readouterr().err


def test_images_of_another_size_are_cut_from_the_middle_and_resized(tmp_path):
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = 100
    picture[10:30, 30:50] = 200
    Image.fromarray(picture).save(tmp_path / "wide.png")
    whole = read_fitting(tmp_path / "wide.png", height=8, width=8)
    middle = read_fitting(tmp_path / "wide.png", height=8, width=8, center=0.5)
    assert whole.shape == (8, 8, 3)
    assert np.abs(whole[0].astype(int) - 100).max() <= 16  # bicubic, with the pixels around
    assert np.abs(middle.astype(int) - 200).max() <= 16
