"""A study whose network is a function that can't be imported any more is read like any other."""

import sys

import pytest

from gentrain import api
from gentrain.errors import ConfigError
from gentrain.report.gather import gather_study
from gentrain.report.training import training_scores
from gentrain.store.run import RunStore

MODULE = """
from gentrain.models.registry import build_model

def small(num_classes):
    return build_model("resnet8", num_classes=num_classes)
"""


def test_status_report_and_evaluation_need_no_import(small, tmp_path, monkeypatch):
    (tmp_path / "vanishing.py").write_text(MODULE)
    runs = str(tmp_path / "runs")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        study = small("grid.network=['vanishing:small']", "recipe.epochs=1", "recipe.milestones=[]", "generations=0")
        api.run(study, runs=runs, local=True)
    monkeypatch.delitem(sys.modules, "vanishing")
    folder, store = api.open_run(runs), RunStore(runs)
    assert folder.study("small").grid.network == ("vanishing:small",)
    ((cell,),) = folder.status("small").chains.values()
    assert cell.state == "done"
    assert folder.evaluate("small").scores.top1_error == cell.top1_error
    report, notes = gather_study(store, "small"), []
    assert [chain.network for chain in report.chains] == ["vanishing:small"]
    assert training_scores(report, store, store.study("small") / "training", observe=notes.append) == ()
    assert "left out of figure 1: generation" in notes[-1].text
    with pytest.raises(ConfigError, match=r"^generation \w+: network 'vanishing:small': module .* can't be imported"):
        folder.evaluate("small", split="train")
