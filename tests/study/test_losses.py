"""Losses in a study: names, settings, keys, and one of the user's own from docs/losses.md."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gentrain.errors import ConfigError
from gentrain.study.lineage import GenerationSpec, build_chain, predicted_scores
from gentrain.study.loading import dump_study, load_study
from gentrain.study.losses import OWN_TEACHERS, PATRIARCHS, STUDENTS
from gentrain.study.schema import Study
from gentrain.study.tasks import LossSpec
from tests.conftest import SMALL

DOCUMENT = (Path(__file__).parents[2] / "docs" / "losses.md").read_text()


class Focal:
    """A patriarch of a user's own."""

    def __init__(self, gamma=2.0, sharp=False):
        self.gamma, self.sharp = gamma, sharp


class Matching:
    """A student of a user's own."""

    def __init__(self, teacher, *, lam, scale, power=2):
        self.settings = teacher, lam, scale, power


HERE = "tests.study.test_losses"


def chain(*overrides, num_classes=100):
    return build_chain(load_study(overrides=overrides), data="d" * 64, num_classes=num_classes)


@pytest.mark.parametrize("name", [*PATRIARCHS, *STUDENTS])
def test_a_name_makes_a_chain_that_is_stored_and_read_alike(name):
    role = "patriarch" if name in PATRIARCHS else "student"
    built = chain(f"process.{role}.name={name}")
    paper = name in ("score_difference", "kl")
    without_aim = name in OWN_TEACHERS
    wanted = f"D({name},0.6)" if without_aim else f"D(0.6,0.6{'' if paper else ',' + name})"
    assert built.name == f"{wanted}-resnet20-s0"
    changed = [one != other for one, other in zip(built.keys, chain().keys, strict=True)]
    assert changed == [not paper and (role == "patriarch" or g > 0) for g in range(6)]
    for spec in built.specs:
        assert GenerationSpec.parse(spec.model_dump_json().encode(), key=spec.key) == spec
    assert Study.model_validate(yaml.safe_load(dump_study(built.settings))) == built.settings


def test_settings_that_are_not_defaults_stand_in_the_name_and_all_in_the_key():
    built = chain("process.student={name: dkd, beta: 2, standardise: true}", "process.patriarch.name=mse")
    assert built.name == "D(0.6,0.6,mse,dkd-beta2.0-standardiseTrue)-resnet20-s0"
    settings = (("alpha", 1.0), ("beta", 2.0), ("standardise", True), ("temperature", 4.0))
    assert built.specs[1].task.loss == LossSpec(name="dkd", settings=settings)
    assert chain("process.student={name: dkd, beta: 8}").keys == chain("process.student.name=dkd").keys


def test_a_patriarch_by_another_loss_aims_at_f_a1():
    spec = chain("process.patriarch.name=label_smoothing", "process.f_a1=0.901").specs[0]
    assert dict(spec.task.loss.settings) == {"epsilon": pytest.approx(0.1)}
    assert predicted_scores(chain("process.patriarch.name=mse").settings, ())[:2] == pytest.approx((0.6, 0.76))


def test_other_students_have_no_prediction_nor_have_patriarchs_of_ones_own():
    assert predicted_scores(chain("process.student.name=nkd", "generations=2").settings, ()) == (0.6, None, None)
    own = chain(f"process.patriarch.name={HERE}:Focal", "generations=2").settings
    assert predicted_scores(own, ()) == (None, None, None)


def test_classes_of_ones_own():
    built = chain(f"process.patriarch={{name: {HERE}:Focal, gamma: 3.0}}")
    assert built.name == "D(tests.study.test_losses-Focal-gamma3.0,0.6)-resnet20-s0"
    assert built.specs[0].task.loss == LossSpec(name=f"{HERE}:Focal", settings=(("gamma", 3.0), ("sharp", False)))
    assert chain(f"process.patriarch={{name: {HERE}:Focal, gamma: 3.0}}", "process.f_a1=0.9").keys == built.keys
    assert chain(f"process.patriarch={{name: {HERE}:Focal}}").keys != built.keys
    student = chain(f"process.student={{name: {HERE}:Matching, scale: 1}}")
    assert student.specs[1].task.loss.settings == (("power", 2), ("scale", 1))
    assert student.keys[0] == chain().keys[0]
    for spec in (*built.specs, *student.specs):
        assert GenerationSpec.parse(spec.model_dump_json().encode(), key=spec.key) == spec
    assert Study.model_validate(yaml.safe_load(dump_study(student.settings))) == student.settings


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("patriarch.name=smooth", "process.patriarch: unknown loss 'smooth'; known: score_difference, label_smoothing"),
        ("student=dkd", "process.student: must be a mapping with a `name`: kl, logit_standardised, dkd, dist, nkd, or"),
        ("student={name: dkd, betta: 2}", "process.student: betta: unknown key; valid keys here: name, alpha, beta"),
        ("student={name: dkd, beta: -2}", "process.student: beta: input should be greater than or equal to 0"),
        ("student={name: 'nomodule_x:Y'}", "'nomodule_x:Y': module nomodule_x can't be imported: No module named"),
        ("student={name: 'tests.study.raising:Y'}", "module tests.study.raising can't be imported: on purpose"),
        ("student={name: '../x:Y'}", "loss '../x:Y': not package.module:Class"),
        (f"student={{name: '{HERE}:chain'}}", f"{HERE} has no class 'chain'"),
        (f"student={{name: '{HERE}:Matching'}}", "missing a required argument: 'scale'; its settings here: scale, pow"),
        (f"student={{name: '{HERE}:Matching', scale: [1]}}", "scale: must be a number, a text, true or false, not [1]"),
        (f"patriarch={{name: '{HERE}:Focal', gama: 1}}", "unexpected keyword argument 'gama'; its settings here: gam"),
        (f"patriarch={{name: '{HERE}:Matching', scale: 1}}", "missing a required argument: 'teacher'"),
    ],
)  # fmt: skip
def test_what_makes_no_loss_is_refused_in_one_line(override, message):
    with pytest.raises(ConfigError) as error:
        load_study(overrides=[f"process.{override}"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_that_have_no_effect_are_refused():
    with pytest.raises(ConfigError, match=r"temperature is 2\.0 but student is dkd; `process\.temperature` is for kl"):
        load_study(overrides=["process.student.name=dkd", "process.temperature=2"])
    with pytest.raises(ConfigError, match=r"k is 3 but patriarch is mse; `process\.k` is for score_difference"):
        load_study(overrides=["process.patriarch.name=mse", "process.k=3"])


def test_aims_that_no_scores_have_are_refused():
    with pytest.raises(
        ConfigError, match=r"process\.f_a1: 0\.25 must lie above 1/C = 0\.25 with mse and the dataset's"
    ):
        chain("process.patriarch.name=mse", "process.f_a1=0.25", num_classes=4)
    assert chain("process.patriarch.name=mse", "process.f_a1=0.25", num_classes=5).keys
    for f_a1 in (0, -1, 1.5):
        with pytest.raises(ConfigError, match="must lie above 1/C"):
            load_study(overrides=["process.patriarch.name=mse", f"process.f_a1={f_a1}"])


def test_the_page_names_every_loss_with_its_defaults():
    for name, kind in {**PATRIARCHS, **STUDENTS}.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*$", DOCUMENT, re.MULTILINE)
        for setting, default in kind().parameters:
            assert f"`{setting}: {str(default).lower()}`" in row


@pytest.mark.parametrize("where", ["--local", pytest.param("", marks=pytest.mark.ray)])
def test_the_pages_own_loss_runs_from_a_file_outside_the_package(where, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    (command,) = re.findall(r"^PYTHONPATH=\. gentrain chain study\.yaml --set '(.*)'$", DOCUMENT, re.MULTILINE)
    (tmp_path / "mylosses.py").write_text(code)
    (tmp_path / "study.yaml").write_text(dump_study(load_study(overrides=[*SMALL, "recipe.epochs=2"])))
    process = subprocess.run(
        [sys.executable, "-m", "gentrain", "chain", "study.yaml", "--set", command, "--json", *where.split()],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.pathsep.join([".", *sys.path])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    rows = [yaml.safe_load(line) for line in process.stdout.splitlines()]
    assert [row["generation"] for row in rows] == [0, 1]
    assert {row["chain"] for row in rows} == {"D(0.6,0.6,mylosses-LogitMatching-scale0.5)-resnet8-s0"}
