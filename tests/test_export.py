"""Models in folders of their own: `gentrain export` and `gentrain predict`."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import gentrain
from gentrain import cli
from gentrain.data.sources.registry import load_source
from gentrain.data.sources.single import read_fitting
from gentrain.errors import ConfigError, StoreError
from gentrain.results.card import model_card, shared_settings
from gentrain.results.published import PublishedRow
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


def card(folder):
    """Return the card of a model: its header's fields, and its sections by title."""
    _, header, body = (folder / "README.md").read_text().split("---\n", 2)
    first, *sections = body.split("\n## ")
    return yaml.safe_load(header), first, {one.partition("\n")[0]: one.partition("\n")[2] for one in sections}


def test_the_card_says_what_the_model_is_worth_and_how_it_was_made(runs):
    header, opening, sections = card(runs / "model")
    rows = gentrain.open_run(str(runs / "runs")).run("small")
    error = rows[-1]["weighted_top1_error"]
    assert header["library_name"] == "gentrain"
    (result,) = header["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(1 - error, abs=1e-6)
    assert list(sections) == ["Use", "Data", "Process", "Errors", "Calibration", "Lineage", "How it was made"]
    assert f"Top-1 error {100 * error:.2f} % on the test images ({round(error * 200)} of 200 wrong)" in opening
    (first,) = re.findall(r"^\| M\(0\) \| resnet8 \| (\S+) \|", sections["Errors"], re.MULTILINE)
    assert first == f"{100 * rows[0]['top1_error']:.2f}"
    (own,) = re.findall(r"^\| \*\*weighted ensemble\*\* .*$", sections["Errors"], re.MULTILINE)
    assert f"| **{100 * error:.2f}** |" in own
    bins = re.findall(r"^\| 0\.\d\d to \S+ \| (\d+) \| (\S+) % \| (\S+) % \|$", sections["Calibration"], re.MULTILINE)
    ece = sum(int(count) * abs(float(mean) - float(right)) for count, mean, right in bins) / 200
    assert sum(int(count) for count, _, _ in bins) == 200
    assert ece == pytest.approx(100 * rows[-1]["weighted_ece"], abs=0.2)
    assert f"{rows[1]['key']}" in sections["Lineage"]
    assert "└─ M(1)" in sections["Lineage"]
    made = sections["How it was made"]
    assert "gentrain export small --ensemble-kind weighted --generation 1 --to MODEL" in made
    assert f"torch {torch.__version__}" in made
    (settings,) = re.findall(r"```yaml\n(.*?)```", made, re.DOTALL)
    assert gentrain.load_study(overrides=yaml.safe_load(settings)) == chain(runs).study


def test_a_card_of_the_papers_setting_has_the_papers_figures(runs, monkeypatch):
    network = chain(runs).generation(1)
    figures = {"top1_error": (23.96, 21.29)}
    paper = PublishedRow("its table 1", "digits", "resnet8", network.study.process, ensemble=False, errors=figures)
    monkeypatch.setattr("gentrain.results.card.published_rows", lambda *_: (paper,))
    text = model_card(network, preprocessing=True, files=["model.json"])
    assert "| the paper: its table 1 | 23.96 | 21.29 |" in text
    assert "Not the paper's setting: network resnet8 on digits (not in the paper)." in text


def test_names_from_elsewhere_change_nothing_of_a_card_and_paths_of_this_machine_stay_here(runs, monkeypatch):
    network = chain(runs).generation(0)
    odd = network.manifest.model_copy(update={"classes": ("<b>|`x`", *network.manifest.classes[1:])})
    monkeypatch.setitem(network.__dict__, "manifest", odd)
    here = network.study.dataset.model_copy(update={"path": "/home/someone/data"})
    network = dataclasses.replace(network, study=network.study.model_copy(update={"dataset": here}))
    network.__dict__["manifest"] = odd
    text = model_card(network, preprocessing=True, files=["model.json"])
    assert "\\<b\\>\\|\\`x\\`, 1, 2" in text
    assert "someone" not in text + json.dumps(shared_settings(network.study))


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
    assert names == ["model.safetensors", "model.pt2", "model.json", "README.md"]
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
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.json", "model.safetensors"]
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


def test_predict_writes_a_table_for_spreadsheets(runs, tmp_path, pixels, capsys):
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels[0].numpy()).save(tmp_path / "images" / "a, b.png")
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    command = ["predict", str(runs / "model"), str(tmp_path / "images"), "--top", "2", "--csv"]
    assert cli.run([*command, str(tmp_path / "out.csv")]) == 1
    assert capsys.readouterr().out == f"2 images: {tmp_path / 'out.csv'}\n"
    good, bad = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert list(good) == ["image", "class_1", "score_1", "class_2", "score_2", "problem"]
    wanted = gentrain.load_model(runs / "model")(pixels[:1]).softmax(dim=1).topk(2)
    assert [good["class_1"], good["class_2"]] == list(map(str, wanted.indices[0].tolist()))
    assert float(good["score_1"]) == pytest.approx(wanted.values[0, 0].item(), abs=1e-6)
    assert (bad["class_1"], bad["problem"][:21]) == ("", "cannot identify image")
    assert cli.run([*command, str(tmp_path)]) == 2
    assert cli.run([*command, str(tmp_path / "none" / "out.csv")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"gentrain: --csv {tmp_path}: is a folder; name a file",
        f"gentrain: --csv {tmp_path / 'none' / 'out.csv'}: its folder is not there; name a file",
    ]


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
