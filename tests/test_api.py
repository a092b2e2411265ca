"""gentrain from Python: docs/tutorial.md is run block by block, and what it leaves is looked at."""

import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

import gentrain
from gentrain.data.sources.registry import load_source
from gentrain.errors import ConfigError, StoreError
from gentrain.events import ChainStarted, EpochDone, GenerationDone, Note
from gentrain.scores.ensembles import weighted_ensemble
from gentrain.store.done import PREDICTIONS
from gentrain.store.predictions import decode_predictions
from gentrain.view import ChainLines, ChainTable, open_progress
from tests.conftest import SMALL

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """Return what the tutorial's blocks leave: their names, and what they wrote on standard error."""
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tutorial"))
        patch.setattr(sys, "stderr", io.StringIO())
        for block in re.findall(r"^```python\n(.*?)^```$", TUTORIAL.read_text(), re.DOTALL | re.MULTILINE):
            exec(compile(block, str(TUTORIAL), "exec"), names)
        return SimpleNamespace(**names, lines=sys.stderr.getvalue().splitlines())


def stored(run):
    """Return the stored probabilities of each generation on the test split: (G, N, C)."""
    contents = [run.store.generation(row["key"]).read_verified(PREDICTIONS) for row in run]
    return np.stack([decode_predictions(content)[0] for content in contents])


def images(run):
    """Return the test split's pixels, (N, H, W, 3) uint8."""
    return torch.from_numpy(load_source(gentrain.open_run(run.store.uri).study(run.name).dataset).splits["test"].images)


def probabilities(module, pixels):
    with torch.no_grad():
        return module(pixels).softmax(dim=1).numpy()


def test_the_tutorial_runs_and_shows_its_progress(tutorial):
    assert [row["generation"] for row in tutorial.run] == [0, 1]
    assert any("generation 1 epoch 3/3" in line for line in tutorial.lines)
    assert sum(isinstance(event, GenerationDone) for event in tutorial.events) == 2
    assert not any(isinstance(event, EpochDone) for event in tutorial.events)
    assert tutorial.plan.summary()["to_train"] == 2
    assert tutorial.wrong.scores.top1_error == tutorial.run[-1]["ensemble_top1_error"]


def test_results_are_an_arrow_table_of_the_rows_that_are_stored(tutorial):
    table = tutorial.run.results()
    assert isinstance(table, pa.Table)
    assert table.column("top1_error").to_pylist() == [row["top1_error"] for row in tutorial.run]
    assert table == tutorial.folder.run("digits").results()
    assert tutorial.run[1:] == list(tutorial.run)[1:]
    assert tutorial.run != []


def test_a_run_is_a_table_in_a_notebook(tutorial):
    html = tutorial.run._repr_html_()
    assert html.count("<tr>") == 3
    assert f"<td>{100 * tutorial.run[0]['top1_error']:.2f}</td>" in html
    row = {"chain": "<b>&", "generation": 0, "top1_error": 0.5}
    assert "&lt;b&gt;&amp;" in gentrain.Run(tutorial.run.store, "odd", [row])._repr_html_()


def test_studies_plans_chains_and_networks_are_tables_in_a_notebook(tutorial):
    shown = tutorial.study._repr_html_()
    assert shown.startswith("<pre>name: digits\n")
    assert "validation: 0.2" in shown
    assert "momentum" not in shown  # a default
    assert "<th>to train</th><td>2</td>" in tutorial.plan._repr_html_()
    assert "<th>cost at 2.5 per device-hour</th><td>unknown</td>" in tutorial.plan._repr_html_()
    assert tutorial.chain._repr_html_().count("<tr>") == 3
    for network, column in (
        (tutorial.chain.generation(0), "top1_error"),
        (tutorial.chain.ensemble("mean"), "ensemble_top1_error"),
    ):
        error = f"{100 * tutorial.run[network.generation][column]:.2f}"
        assert f"<th>top-1 error %</th><td>{error}</td>" in network._repr_html_()
        assert f"top-1 error {error} %" in repr(network)
    assert "M(0) resnet8 × 0.500, M(1) resnet8 × 0.500" in tutorial.chain.ensemble("mean")._repr_html_()


@pytest.mark.parametrize("generation", [0, 1])
def test_a_generations_module_gives_the_stored_probabilities_whatever_the_images_are(tutorial, generation):
    module, pixels = tutorial.chain.generation(generation).module(), images(tutorial.run)
    wanted = stored(tutorial.run)[generation]
    forms = (pixels, pixels.permute(0, 3, 1, 2), pixels.float() / 255, pixels.permute(0, 3, 1, 2).double() / 255)
    for form in forms:
        np.testing.assert_allclose(probabilities(module, form), wanted, atol=1e-5)
    assert not any(part.training for part in module.modules())
    assert module.classes == tuple("0123456789")


@pytest.mark.parametrize("kind", ["mean", "weighted", "selected"])
def test_an_ensembles_module_gives_the_weighted_mean(tutorial, kind):
    network = tutorial.chain.ensemble(kind)
    module = network.module()
    wanted = weighted_ensemble(stored(tutorial.run), network.weights)
    np.testing.assert_allclose(probabilities(module, images(tutorial.run)), wanted, atol=1e-5)
    if kind != "selected":
        return
    first = tutorial.chain.ensemble("mean", generation=0)
    assert (first.weights, first.generation, network.generation) == ((1.0,), 0, 1)


def test_a_module_refuses_images_that_it_was_not_trained_on(tutorial):
    with pytest.raises(ValueError, match=r"takes \(N, 3, 8, 8\) or \(N, 8, 8, 3\); resize them first"):
        tutorial.net(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"images of torch.int64: give uint8, or floats in 0..1"):
        tutorial.net(torch.zeros(1, 3, 8, 8, dtype=torch.int64))


def test_what_is_not_there_is_refused_with_what_is(tutorial):
    with pytest.raises(ConfigError, match=r"generation 2: .* has generations 0 to 1 finished"):
        tutorial.chain.generation(2)
    with pytest.raises(ConfigError, match=r"'best': choose mean, weighted or selected"):
        tutorial.chain.ensemble("best")
    with pytest.raises(ConfigError, match=r"--chain D: not in digits; there: D\(0.6,0.6\)-resnet8-s0"):
        tutorial.run.chain("D")
    with pytest.raises(ConfigError, match=r"digit: no such study in .*did you mean digits\?"):
        tutorial.folder.run("digit")
    assert tutorial.chain.generation(-1).specs == tutorial.chain.generation(1).specs


def test_lost_results_say_so(tutorial, tmp_path):
    runs = tmp_path / "runs"
    (runs / "studies" / "digits").mkdir(parents=True)
    record = Path(tutorial.run.store.root.path) / "studies" / "digits" / "study.yaml"
    (runs / "studies" / "digits" / "study.yaml").write_bytes(record.read_bytes())
    with pytest.raises(StoreError, match=r"results.parquet: missing or damaged; run the study again"):
        gentrain.open_run(str(runs)).run("digits")


def test_a_mapping_of_overrides_is_the_same_study_as_lines_of_them():
    lines = gentrain.load_study(overrides=[*SMALL, "process.lambda=[0.5, 0.6]", "generations=2"])
    values = {
        "name": "small", "dataset": {"source": "digits", "limit": 20}, "network.name": "resnet8", "recipe.epochs": 3,
        "recipe.batch_size": 32, "recipe.milestones": [2], "recipe.padding": 1, "precision": "fp32", "device": "cpu",
        "cpus_per_worker": 1, "generations": 2, "process.lambda": [0.5, 0.6],
    }  # fmt: skip
    assert gentrain.load_study(overrides=values) == lines
    assert gentrain.load_study(overrides={"recipe.pad": 2}).recipe.padding == 2  # an old name
    with pytest.raises(ConfigError, match=r"recipe.epoch: unknown key; did you mean epochs"):
        gentrain.load_study(overrides={"recipe.epoch": 3})
    with pytest.raises(ConfigError, match="'recipe' is a value, not a section"):
        gentrain.load_study(overrides={"recipe": 1, "recipe.epochs": 3})


def test_progress_in_a_notebook_redraws_one_place_of_the_output(monkeypatch):
    pictures = []
    handle = SimpleNamespace(update=pictures.append)
    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    display = SimpleNamespace(HTML=str, display=lambda *_, **__: handle)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr("gentrain.view.notebook.SECONDS", 0.0)
    with open_progress(ChainLines, ChainTable, stream=io.StringIO()) as view:
        view(Note("preparing <digits>"))
        view(ChainStarted("D(0.6,0.6)-resnet8-s0", 3, (0.6, 0.76), ("a", "b"), "runs"))
    assert "preparing &lt;digits&gt;" in pictures[0]
    assert "D(0.6,0.6)-resnet8-s0" in pictures[-1]
    assert "waiting" in pictures[-1]


def test_progress_without_a_terminal_is_lines_on_the_stream():
    stream = io.StringIO()
    with open_progress(ChainLines, ChainTable, stream=stream) as view:
        view(Note("preparing"))
    assert stream.getvalue() == "preparing\n"
