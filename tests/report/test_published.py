"""Test that the methods' study files ask for what their papers print, and that it stands beside ours in the report."""

from pathlib import Path

import pytest

from gentrain.report.formats import markdown
from gentrain.report.gather import gather_study
from gentrain.report.tables import build_tables
from gentrain.results.published import deviations, network_label, published_rows
from gentrain.store.run import RunStore
from gentrain.store.study_record import StudyRecord
from gentrain.study.lineage import build_forest
from gentrain.study.loading import load_study

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
ACCURACIES = {"kd": 70.66, "dist": 71.75, "dkd": 71.97, "dkd-standardised": 72.32}
"""Of ResNet-20 on CIFAR-100, taught by a ResNet-56 of 72.34 %, in per cent; 69.06 % without a teacher."""
each = pytest.mark.parametrize(("name", "accuracy"), ACCURACIES.items())


@each
def test_a_methods_study_file_has_its_papers_settings(name, accuracy):
    study = load_study(EXPERIMENTS / f"{name}.yaml")
    errors: dict[tuple[float, ...], None] = {}
    for point in study.points():
        rows = published_rows("cifar100", network_label(point))
        (row,) = [row for row in rows if row.label == point.process.label]
        errors[row.errors["top1_error"]] = None
        assert deviations(point, num_classes=100, images=50_000) == ()
    assert list(errors) == [(27.66, pytest.approx(100 - accuracy)), (30.94,)]


def test_a_change_of_the_recipe_or_the_method_is_named():
    changed = load_study(EXPERIMENTS / "dkd.yaml", overrides=["recipe.epochs=10", "process.student.beta=1", "grid={}"])
    text = "; ".join(deviations(changed, num_classes=100))
    assert text == "recipe.epochs is 10 (the paper: 240); process.student is dkd-beta1.0 (the paper: kl)"


@each
def test_the_published_figures_stand_beside_a_place_for_ours(name, accuracy, tmp_path):
    study, store = load_study(EXPERIMENTS / f"{name}.yaml"), RunStore(str(tmp_path))
    StudyRecord(study, store=store).begin(build_forest(study, data="none", num_classes=100).chains)
    lines = markdown(build_tables(gather_study(store, name))).splitlines()
    label = study.process.label
    place = lines.index(f"| {label} | – | – |")
    assert lines[place + 1] == f"| &nbsp;&nbsp;paper | 27.66 | {100 - accuracy:.2f} |"
    assert sum(line == "| &nbsp;&nbsp;paper | 30.94 |" for line in lines) == 1
    assert sum("(not in this study)" in line for line in lines) == 3  # the other methods, for comparison
    assert any("Zhao et al., CVPR 2022 (DKD); Sun et al., CVPR 2024" in line for line in lines)
