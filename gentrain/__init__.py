"""gentrain: knowledge distillation in generations, scheduled on Ray.

The public names; each is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gentrain.api import Run, RunFolder, open_run, plan, predict, prepare, run
    from gentrain.data.sources.formats import SourceData, Split
    from gentrain.errors import GentrainError
    from gentrain.models import build_model
    from gentrain.results.trained import TrainedChain, TrainedNetwork
    from gentrain.scores.ensembles import running_ensemble
    from gentrain.study.loading import load_study
    from gentrain.study.process import Process, eta_for_primary, predicted_primary, primary_for_eta
    from gentrain.study.schema import Study
    from gentrain.train.classifier import Classifier
    from gentrain.train.exported import load_model
    from gentrain.train.losses import LossTerms, patriarch_loss, student_loss
    from gentrain.train.sharing import from_pretrained, push
    from gentrain.train.tasks.task import PatriarchTask, StudentTask

__version__ = version("gentrain")

_MODULES = {
    "gentrain.api": ("Run", "RunFolder", "open_run", "plan", "predict", "prepare", "run"),
    "gentrain.data.sources.formats": ("SourceData", "Split"),
    "gentrain.errors": ("GentrainError",),
    "gentrain.models": ("build_model",),
    "gentrain.results.trained": ("TrainedChain", "TrainedNetwork"),
    "gentrain.scores.ensembles": ("running_ensemble",),
    "gentrain.study.loading": ("load_study",),
    "gentrain.study.process": ("Process", "eta_for_primary", "predicted_primary", "primary_for_eta"),
    "gentrain.study.schema": ("Study",),
    "gentrain.train.classifier": ("Classifier",),
    "gentrain.train.exported": ("load_model",),
    "gentrain.train.losses": ("LossTerms", "patriarch_loss", "student_loss"),
    "gentrain.train.sharing": ("from_pretrained", "push"),
    "gentrain.train.tasks.task": ("PatriarchTask", "StudentTask"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Classifier",
    "GentrainError",
    "LossTerms",
    "PatriarchTask",
    "Process",
    "Run",
    "RunFolder",
    "SourceData",
    "Split",
    "StudentTask",
    "Study",
    "TrainedChain",
    "TrainedNetwork",
    "build_model",
    "eta_for_primary",
    "from_pretrained",
    "load_model",
    "load_study",
    "open_run",
    "patriarch_loss",
    "plan",
    "predict",
    "predicted_primary",
    "prepare",
    "primary_for_eta",
    "push",
    "run",
    "running_ensemble",
    "student_loss",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'gentrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
