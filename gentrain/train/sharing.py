"""Get models from the Hugging Face Hub and send them there; without huggingface_hub, say what to install."""

from __future__ import annotations

import importlib.util
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gentrain.errors import ConfigError, DependencyError, GentrainError, cut, first_line

if TYPE_CHECKING:
    from gentrain.train.hub import HubModel


def from_pretrained(model: str | os.PathLike[str], *, revision: str | None = None) -> HubModel:
    """Return a model in eval mode: from a folder that `gentrain export` wrote, or by its name on the Hugging Face Hub.

    It takes images as `Classifier` does, and has `save_pretrained` and `push_to_hub`.

    Args:
        model: a folder, or OWNER/NAME on the Hub, which is downloaded.
        revision: of the model on the Hub: a branch, tag or commit.

    Raises:
        DependencyError: when huggingface_hub isn't installed.
        ConfigError, StoreError: when there is no such model, or it is damaged.
    """
    hub = _hub_model()
    if os.path.isdir(model):
        return hub(Path(model))
    try:
        loaded: HubModel = hub.from_pretrained(str(model), revision=revision)
    except GentrainError:
        raise
    except Exception as error:  # huggingface_hub passes on what the network raises, too
        reason = cut(first_line(error))
        raise ConfigError(f"{model}: no folder here, and not to be had from the Hub: {reason}") from error
    return loaded


def push(model: str | os.PathLike[str], name: str, *, public: bool = False) -> str:
    """Send an exported model with its card to the Hugging Face Hub; return the commit's URL.

    Args:
        model: folder that `gentrain export` wrote.
        name: OWNER/NAME; the repository is made where there is none.
        public: whether everybody sees a repository that is made now.

    Raises:
        DependencyError: when huggingface_hub isn't installed.
        ConfigError, StoreError: when there is no such model, it is damaged, or the Hub refuses it.
    """
    loaded = _hub_model()(Path(model))
    try:
        send: Any = loaded.push_to_hub  # the mixin is Any to mypy
        return str(send(name, private=not public, commit_message=f"gentrain {version('gentrain')}"))
    except Exception as error:  # huggingface_hub passes on what the network raises, too
        raise ConfigError(f"{name}: not pushed: {cut(first_line(error))}; sign in with `hf auth login`") from error


def _hub_model() -> type[HubModel]:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise DependencyError("huggingface_hub isn't installed: pip install 'gentrain[hub]'")
    from gentrain.train.hub import HubModel

    return HubModel
