"""Chains that begin with networks that are there already: files of weights, and generations of the run folder."""

import json

import pytest
import safetensors.torch
import torch

from gentrain import api, cli
from gentrain.errors import ConfigError, StoreError
from gentrain.events import EpochDone, GenerationDone, GenerationQueued, TargetsKnown
from gentrain.models.registry import build_model
from gentrain.results.status import study_status
from gentrain.running.pretrained import PretrainedNetworks
from gentrain.store.done import DATA, DONE, EPOCHS, MODEL, PREDICTIONS
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec, NetworkSpec, build_chain, predicted_scores
from gentrain.study.loading import load_study
from gentrain.study.sections import RecipeConfig
from gentrain.study.tasks import PretrainedSpec
from tests.conftest import SMALL


def launch(runs, *overrides, observe=lambda _: None, pretrained=None, **settings):
    study = load_study(overrides=[*SMALL, "name=given", *overrides], pretrained=pretrained, **settings)
    return api.run(study, runs=str(runs), observe=observe, local=True)


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """Return a run folder with a finished chain of two generations, its rows, and its patriarch's weights in a file."""
    runs = tmp_path_factory.mktemp("origin")
    rows = launch(runs, "name=origin")
    path = runs / "teacher.safetensors"
    path.write_bytes((runs / "generations" / rows[0]["key"] / MODEL).read_bytes())
    return runs, rows, path


@pytest.fixture(scope="module")
def chain(origin, tmp_path_factory):
    """Return another run folder whose chain begins with that file, its rows and events."""
    runs, events = tmp_path_factory.mktemp("given"), []
    rows = launch(runs, pretrained=[{"checkpoint": str(origin[2])}], observe=events.append)
    return runs, rows, events


def find(store, study):
    return PretrainedNetworks(store, data="d" * 64, num_classes=10)(study)


def saved(path, kind):
    """Write the same weights as another kind of file."""
    weights = safetensors.torch.load_file(path)
    other = path.with_name(f"{kind}.pt")
    parallel = {f"module.{name}": value for name, value in weights.items()}
    half = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    content = {
        "plain": weights,
        "nested": {"state_dict": parallel, "epoch": 3},
        "model": {"model": weights, "args": {"lr": 0.1}},
        "compiled": {f"_orig_mod.{name}": value for name, value in weights.items()},
        "keyed": {"state_dict": build_model("resnet14", num_classes=10).state_dict(), "ema": weights},
        "uncounted": half,
    }
    torch.save(content[kind], other)
    return other


def test_the_chain_goes_on_from_the_file(origin, chain):
    (_, trained, _), (runs, rows, events) = origin, chain
    assert [row["generation"] for row in rows] == [0, 1]
    assert rows[0]["chain"].startswith("D(given-")
    assert rows[0]["chain"].endswith(",0.6)-resnet8-s0")
    for name in ("top1_error", "nll", "primary_test"):  # the same network: only its batches are of another size
        assert rows[0][name] == pytest.approx(trained[0][name], rel=1e-4)
    w_0 = rows[0]["primary_measured"]
    assert 0.1 < w_0 < 1
    assert [row["primary_predicted"] for row in rows] == pytest.approx([w_0, 1 - (1 - w_0) * 0.6])
    assert [e.targets for e in events if isinstance(e, TargetsKnown)] == [
        tuple(row["primary_predicted"] for row in rows)
    ]
    assert {e.generation for e in events if isinstance(e, EpochDone)} == {1}
    assert [row["f_a1"] for row in rows] == [None, None]
    assert rows[0]["train_seconds"] == 0
    assert rows[1]["ensemble_top1_error"] is not None
    folder = runs / "generations" / rows[0]["key"]
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
        "spec.json", MODEL, PREDICTIONS, EPOCHS, DATA, DONE
    }  # fmt: skip
    assert (folder / MODEL).read_bytes() == origin[2].read_bytes()


def test_the_measured_primary_is_that_of_the_training_images_as_they_are(chain, capsys):
    runs, rows, _ = chain
    assert cli.run(["evaluate", "given", "--runs", str(runs), "--generation", "0", "--split", "train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["primary"] == pytest.approx(rows[0]["primary_measured"], rel=1e-5)


def test_a_second_run_trains_nothing_and_everything_else_knows_it(origin, chain, capsys):
    runs, rows, _ = chain
    events, given = [], [{"checkpoint": str(origin[2])}]
    assert launch(runs, pretrained=given, observe=events.append) == rows
    assert all(e.reused for e in events if isinstance(e, GenerationDone))
    (cells,) = study_status(RunStore(str(runs)), "given").chains.values()
    assert [cell.state for cell in cells] == ["done", "done"]
    planned = api.plan(
        load_study(overrides=[*SMALL, "generations=3"], pretrained=given), runs=str(runs), gpus=1, price=None
    ).summary()
    assert (planned["trainings"], planned["finished"], planned["to_train"], planned["unknown"]) == (3, 1, 2, 0)
    study = runs / "study.yaml"
    study.write_text("{}")
    changes = [part for setting in SMALL for part in ("--set", setting)]
    entry = f"pretrained=[{{checkpoint: {origin[2]}}}]"
    assert cli.run(["plan", str(study), *changes, "--set", entry, "--runs", str(runs / "new")]) == 0
    assert "given-" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["plain", "nested", "model", "compiled", "keyed", "uncounted"])
def test_the_same_weights_are_the_same_generation_whatever_the_file(origin, tmp_path, small, kind):
    path, store = saved(origin[2], kind), RunStore(str(tmp_path))
    key = "ema" if kind == "keyed" else None
    (one,) = find(store, load_study(overrides=SMALL, pretrained=[{"checkpoint": str(path), "key": key}]))
    (other,) = find(store, load_study(overrides=SMALL, pretrained=[{"checkpoint": str(origin[2])}]))
    if kind == "uncounted":  # the counters of batches start at 0: other bytes, the same network
        assert one.task != other.task
    else:
        assert one.key == other.key
    assert list(tmp_path.iterdir()) == []  # looking writes nothing


def test_damage_to_an_adopted_network_is_mended(origin, chain):
    runs, rows, _ = chain
    folder, given = runs / "generations" / rows[0]["key"], [{"checkpoint": str(origin[2])}]
    sound = {name: (folder / name).read_bytes() for name in (MODEL, PREDICTIONS)}
    for name in sound:
        (folder / name).write_bytes(b"rubbish")
    events = []
    assert launch(runs, pretrained=given, observe=events.append) == rows
    assert [e.generation for e in events if isinstance(e, GenerationQueued)] == [0]
    assert {name: (folder / name).read_bytes() for name in sound} == sound


def test_weights_that_are_not_those_they_are_named_by_are_never_used(origin, tmp_path, monkeypatch):
    monkeypatch.setattr(PretrainedNetworks, "adopt", lambda _: None)
    with pytest.raises(Exception, match=r"model\.safetensors: missing or damaged; run the study again with its"):
        launch(tmp_path, pretrained=[{"checkpoint": str(origin[2])}])


@pytest.mark.parametrize("form", ["key", "folder"])
def test_a_generation_of_the_run_folder_is_that_very_generation(origin, form):
    runs, rows, _ = origin
    events, key = [], rows[0]["key"]
    given = key if form == "key" else str(runs / "generations" / key)
    again = launch(runs, f"name={form}", pretrained=[{"checkpoint": given}], observe=events.append)
    assert [row["key"] for row in again] == [row["key"] for row in rows]  # the same lineage: nothing is trained
    assert all(e.reused for e in events if isinstance(e, GenerationDone))
    assert again[0]["chain"] == f"D(given-{key[:8]},0.6)-resnet8-s0"


def test_several_may_be_given_and_a_student_stand_first(origin):
    runs, rows, path = origin
    given = [{"checkpoint": rows[1]["key"]}, {"checkpoint": str(path)}]
    changes = ("name=two", "generations=2", "process.teacher=ensemble", "recipe.epochs=1", "recipe.milestones=[]")
    again = launch(runs, *changes, pretrained=given)
    assert [row["generation"] for row in again] == [0, 1, 2]
    assert again[0]["key"] == rows[1]["key"]
    energies = [1 - row["primary_measured"] for row in again[:2]]
    assert again[2]["primary_predicted"] == pytest.approx(1 - 0.6 * sum(energies) / 2)
    assert again[0]["chain"].startswith("D(given2-")
    (runs / "generations" / rows[1]["key"] / PREDICTIONS).write_bytes(b"rubbish")
    events = []
    assert launch(runs, *changes, pretrained=given, observe=events.append) == again  # evaluated again
    assert [e.generation for e in events if isinstance(e, GenerationQueued)] == [0]


def test_a_given_generation_that_breaks_meanwhile_is_not_trained_here(origin, monkeypatch):
    runs, rows, _ = origin
    monkeypatch.setattr(
        PretrainedNetworks, "adopt", lambda _: (runs / "generations" / rows[0]["key"] / MODEL).write_bytes(b"rubbish")
    )
    model = runs / "generations" / rows[0]["key"] / MODEL
    sound = model.read_bytes()
    with pytest.raises(StoreError, match="a pretrained generation is damaged; run the study that trained it again"):
        launch(runs, "name=broken", pretrained=[{"checkpoint": rows[0]["key"]}])
    model.write_bytes(sound)


def test_the_command_line_takes_any_teacher(tmp_path, capsys):
    path = tmp_path / "big.pt"
    torch.save(build_model("resnet14", num_classes=10).state_dict(), path)
    options = ["--teacher", str(path), "--teacher-network", "resnet14", "--runs", str(tmp_path / "runs"), "--local"]
    changes = [part for setting in SMALL for part in ("--set", setting)]
    assert cli.run(["chain", *changes, *options, "--generations", "0"]) == 0
    assert ",0.6)-resnet14-s0" in capsys.readouterr().out


def test_a_larger_teacher_for_smaller_students():
    teacher = GenerationSpec(
        data="d", num_classes=10, network=NetworkSpec(name="resnet14"), recipe=RecipeConfig(), precision="fp32",
        sync_batchnorm=False, seed=0, generation=0, task=PretrainedSpec(sha256="0123456789"),
    )  # fmt: skip
    study = load_study(
        overrides=[*SMALL, "process.lambda=[0.5, 0.6, 0.7]", "generations=3"], pretrained=[{"checkpoint": "x"}]
    )
    chain = build_chain(study, data="d", num_classes=10, resolve=lambda _: (teacher,))
    assert chain.name == "D(given-01234567,0.5-0.6-0.7)-resnet14-resnet8-s0"
    assert [spec.teacher for spec in chain.specs] == [None, *chain.keys[:3]]
    assert predicted_scores(chain.settings, ()) == (None,) * 4
    assert predicted_scores(chain.settings, [0.5]) == pytest.approx([0.5, 0.75, 0.85, 0.895])
    softened = study.model_copy(update={"process": study.process.model_copy(update={"temperature": 2.0})})
    assert predicted_scores(softened, ()) == (None,) * 4
    assert predicted_scores(softened, [0.5]) == (0.5, None, None, None)
    chain = build_chain(study, data="d", num_classes=10, resolve=lambda _: (teacher, teacher))
    assert [spec.task.lam for spec in chain.specs[2:]] == [
        0.6,
        0.7,
    ]  # λ_g belongs to generation g, whoever the ones before it are


def test_weighted_ensembles_need_held_out_images(chain, capsys):
    assert cli.run(["evaluate", "given", "--runs", str(chain[0]), "--ensemble-kind", "weighted"]) == 2
    assert "has no images held out of the training set; set dataset.validation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "entry", "expected"),
    [
        (lambda p: None, {}, "no such file; give a .safetensors or .pt file, or a generation's key"),
        (lambda p: p.write_bytes(b"rubbish"), {}, "can't be read ("),
        (lambda p: torch.save([1, 2], p), {}, "holds a list, not named tensors"),
        (lambda p: torch.save({"lr": 0.1}, p), {}, "'lr' is no tensor; name its weights with pretrained.key"),
        (lambda p: torch.save(torch.nn.Linear(2, 2), p), {}, "is damaged or holds more than tensors"),
        (lambda p: torch.save({"a": {}}, p), {"key": "ema"}, "has no weights under 'ema'; there: a"),
        (
            lambda p: torch.save(build_model("resnet14", num_classes=10).state_dict(), p),
            {},
            "isn't there in resnet8 for 10 classes; it fits resnet14",
        ),
        (
            lambda p: torch.save(build_model("resnet8", num_classes=100).state_dict(), p),
            {},
            "is (100, 64), but (10, 64) in resnet8 for 10 classes; it is resnet8 for 100 classes; the dataset has 10",
        ),
        (
            lambda p: torch.save({k: v * float("nan") if v.is_floating_point() else v
                                  for k, v in build_model("resnet8", num_classes=10).state_dict().items()}, p),
            {},
            "isn't finite; that network can teach nothing",
        ),
    ],
)  # fmt: skip
def test_what_can_not_be_used_is_refused_in_a_line(tmp_path, make, entry, expected):
    path = tmp_path / "teacher.pt"
    make(path)
    with pytest.raises(ConfigError) as error:
        find(RunStore(str(tmp_path)), load_study(overrides=SMALL, pretrained=[{"checkpoint": str(path), **entry}]))
    assert str(error.value).startswith(f"pretrained.0.checkpoint: {path}: ")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_generations_that_can_not_be_used_are_refused(origin, tmp_path):
    runs, rows, _ = origin
    store, key = RunStore(str(runs)), rows[0]["key"]
    refusals = [
        ({"checkpoint": "0" * 16}, "not a finished generation of"),
        ({"checkpoint": key}, "was trained on other data"),  # `find` has another fingerprint
        ({"checkpoint": str(runs / "generations")}, "no generation of"),
    ]
    for entry, expected in refusals:
        with pytest.raises(ConfigError, match=expected):
            find(store, load_study(overrides=SMALL, pretrained=[entry]))
    data = PretrainedNetworks(store, data=None, num_classes=None)
    with pytest.raises(ConfigError, match="is a resnet8, not a resnet14; leave its network out"):
        data(load_study(overrides=SMALL, pretrained=[{"checkpoint": key, "network": "resnet14"}]))
    with pytest.raises(ConfigError, match="give the file model"):
        find(
            RunStore(str(tmp_path)),
            load_study(overrides=SMALL, pretrained=[{"checkpoint": str(runs / "generations" / key)}]),
        )
    assert cli.run(["chain", "--teacher-network", "resnet14"]) == 2


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_on_ray_adopts_evaluates_and_teaches(origin, tmp_path):
    """Two chains from one given network on two workers, one with the ensemble as teacher: what they share once."""
    changes = ["name=sweep", "generations=2", "dataset.validation=0.2", "grid.process=[{}, {teacher: ensemble}]"]
    study = load_study(
        overrides=[*SMALL, *changes], pretrained=[{"checkpoint": str(origin[2])}], workers=2, recipe__batch_size=32
    )
    rows = api.run(study, runs=str(tmp_path), observe=lambda _: None)
    assert [row["generation"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert [one["key"] == other["key"] for one, other in zip(rows[:3], rows[3:], strict=True)] == [True, True, False]
    assert all(row["ensemble_weights"] for row in rows if row["generation"])
    w_0 = rows[0]["primary_measured"]
    assert rows[1]["primary_predicted"] == pytest.approx(1 - (1 - w_0) * 0.6)
    assert api.run(study, runs=str(tmp_path), observe=lambda _: None) == rows
