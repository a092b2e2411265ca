from pathlib import Path

import pytest
import yaml

from gentrain.cli import QUICKSTART
from gentrain.errors import ConfigError
from gentrain.study.lineage import build_forest
from gentrain.study.loading import load_study
from gentrain.study.reference import schema_reference
from gentrain.study.schema import Study

ROOT = Path(__file__).parents[2]


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_study(path, overrides=overrides)
    assert error.value.exit_status == 2
    return str(error.value)


def test_a_smoke_comes_before_overrides_and_has_a_name_of_its_own(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("name: mine\nsmoke: {recipe.epochs: 2, recipe.milestones: [], generations: 1}")
    assert load_study(path).recipe.epochs == 164
    shrunk = load_study(path, smoke=True, overrides=["generations=3"])
    assert (shrunk.name, shrunk.recipe.epochs, shrunk.generations) == ("mine-smoke", 2, 3)
    path.write_text("smoke: {recipe.epoch: 2}")
    with pytest.raises(ConfigError, match=r"recipe\.epoch: unknown key; did you mean epochs"):
        load_study(path, smoke=True)


def test_defaults_are_the_papers():
    study = Study()
    recipe = study.recipe
    assert (study.process.f_a1, study.process.lam, study.process.k, study.process.temperature) == (0.6, 0.6, 5, 1.0)
    assert study.generations == 5
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.milestones) == (164, 128, 0.1, (82, 123))
    assert (recipe.momentum, recipe.nesterov, recipe.weight_decay, recipe.decay) == (0.9, True, 1e-4, 0.1)
    assert (recipe.padding, recipe.flip, recipe.warmup_epochs) == (4, True, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("recipe: {epoch: 3}", "recipe.epoch: unknown key; did you mean epochs"),
        ("procces: {f_a1: 0.6}", "procces: unknown key; did you mean process"),
        ("epochs: 3", "epochs: unknown key; did you mean recipe.epochs"),
        ("network: {name: resnet21}", "did you mean resnet14 or resnet20"),
        ("dataset: {source: cifar1000}", "dataset.source: input should be 'digits', 'cifar10', 'cifar100'"),
        ("process: {f_a1: 0.2}", "process: f_a1 is 0.2; it must lie above 1/K = 0.2 (K = 5) and be at most 1"),
        ("process: {f_a1: 1.01}", "1.01"),
        (
            "process: {lambda: 1.2}",
            "process.lambda: must be a number from 0 to 1, or a list of such above 0, one for each student (got 1.2)",
        ),
        ("process: {lambda: -0.1}", "process.lambda: must be a number from 0 to 1"),
        ("process: {lambda: much}", "(got 'much')"),
        ("process: {lambda: [0.5, 0]}", "process.lambda: must be a number from 0 to 1"),
        ("process: {lambda: [0.5, 0.6]}", "`lambda` has 2 values but `generations` is 5; give one for each student"),
        ("process: {lambda: {schedule: linear, from: 0.8}}", "process.lambda: to: field required"),
        ("process: {lambda: {schedule: step, from: 1, to: 1}}", "process.lambda: schedule: input should be 'linear'"),
        ("process: {lambda: {schedule: linear, from: 0, to: 1}}", "process.lambda: from: input should be greater than"),
        ("process: {k: {mas: 0.9}}", "mas: unknown key; valid keys here: top_p, by, k_max"),
        ("process: {k: {mass: 1}}", "process.k: top_p: input should be less than 1"),
        ("process: {k: many}", "process.k: must be an integer from 2, or a mapping such as {top_p: 0.95"),
        (
            "process: {f_a1: 0.5, k: {top_p: 0.9}}",
            "f_a1 is 0.5; with k by score, which may be as small as 2, it must lie",
        ),
        ("process: {teacher: all}", "process.teacher: input should be 'previous' or 'ensemble' (got 'all')"),
        ("given: [{checkpoint: y, path: x}]", "pretrained.0.path: unknown key; did you mean dataset.path?"),
        ("given: [{checkpoint: x, netwrk: y}]", "pretrained.0.netwrk: unknown key; did you mean network?"),
        ("{generations: 0, given: [{checkpoint: x}, {checkpoint: y}]}", "raise `generations` to 1 at least"),
        ("grid: {process: [{f_a2: 0.6}]}", "grid.process.0.f_a2: unknown key; did you mean f_a1?"),
        ("process: {k: 1}", "process.k: input should be greater than or equal to 2 (got 1)"),
        ("{workers: 3}", "`recipe.batch_size` (128) must be a multiple of `workers` (3)"),
        ("recipe: {epochs: 3}\nrecipe: {epochs: 4}", "'recipe' is given twice"),
        ("recipe: [", "not valid YAML"),
        ("- a", "expected a mapping"),
        ("recipe: {learning_rate: .nan}", "finite"),
        ("dataset: {source: digits, groups: [fish]}", "`groups` needs a source with groups"),
    ],
)
def test_bad_studies_are_refused_in_one_line(tmp_path, text, expected):
    message = refused(tmp_path, text)
    assert expected in message
    assert message.startswith(f"{tmp_path / 'study.yaml'}: ")
    assert "\n" not in message


def test_f_a1_out_of_range_names_value_and_field(tmp_path):
    message = refused(tmp_path, "process: {f_a1: 0.2}")
    assert "process" in message
    assert "0.2" in message


def test_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "quick.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"quik\.yaml: no such study file; did you mean .*quick\.yaml"):
        load_study(tmp_path / "quik.yaml")


def test_overrides_are_typed_validated_and_ordered(tmp_path):
    study = load_study(overrides=["recipe.epochs=3", "recipe.epochs=4", "recipe.milestones=[1, 2]"], workers=2)
    assert (study.recipe.epochs, study.recipe.milestones, study.workers) == (4, (1, 2), 2)
    assert "expected key=value" in refused(tmp_path, "", "recipe.epochs")
    assert "unknown key; did you mean epochs" in refused(tmp_path, "", "recipe.epoch=3")


def test_a_dumped_study_loads_as_itself(tmp_path):
    study = load_study(overrides=["process.lambda=0.7", "recipe.milestones=[3]", "dataset.classes=[cat, dog]"])
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(study.dump()))
    assert load_study(path) == study


def test_beyond_the_paper_survives_a_dump(tmp_path):
    study = load_study(
        overrides=[
            "process={f_a1: 0.7, lambda: {schedule: cosine, from: 0.8, to: 0.4}, k: {mass: 0.9, by: class}}",
            "grid.process=[{teacher: ensemble, k: {mass: 0.8}}]",
            "pretrained=[{checkpoint: teacher.pt, network: resnet32}]",
        ]
    )
    assert study.dump()["process"]["lambda"] == {"schedule": "cosine", "from": 0.8, "to": 0.4}
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(study.dump()))
    assert load_study(path) == study


def test_lambda_zero_trains_no_student():
    assert load_study(process__lambda=0.0).students == 0


def test_every_experiment_is_a_valid_study():
    paths = sorted((ROOT / "experiments").glob("*.yaml"))
    assert paths
    for path in paths:
        study = load_study(path)
        if not study.pretrained:  # its checkpoint is the user's
            build_forest(study, data="d" * 64, num_classes=100 if study.dataset.source == "cifar100" else 10)
    assert (ROOT / "experiments" / "quickstart.yaml").resolve() == QUICKSTART.resolve()


def test_the_schema_reference_is_up_to_date():
    assert (ROOT / "docs" / "study.md").read_text() == schema_reference(), "run `make docs`"
