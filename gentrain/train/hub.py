"""Exported models on the Hugging Face Hub, by huggingface_hub's own mixin.

Nothing is sent anywhere but by `push_to_hub`, and nothing is fetched but by `from_pretrained` of a name on the Hub.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelHubMixin, snapshot_download

from gentrain.train.classifier import Classifier
from gentrain.train.exported import CARD, DESCRIPTION, ONNX, PROGRAM, WEIGHTS, read_model

FILES = (WEIGHTS, DESCRIPTION, PROGRAM, ONNX, CARD)


class HubModel(Classifier, ModelHubMixin):
    """A model that `gentrain export` wrote: `from_pretrained`, `save_pretrained`, `push_to_hub`.

    Args:
        folder: with its files, which are saved and pushed as they are.

    Raises:
        ConfigError, StoreError: see `read_model`.
    """

    def __init__(self, folder: Path) -> None:
        model, description = read_model(folder)
        super().__init__(model.network, data=description)
        self.folder = folder
        self._hub_mixin_config = None  # config.json, which would have this machine's path

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None = None, cache_dir: str | Path | None = None, **options: Any
    ) -> Self:
        if os.path.isdir(model_id):
            return cls(Path(model_id))
        known = ("force_download", "local_files_only", "token")
        folder = snapshot_download(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            allow_patterns=list(FILES),
            **{name: options[name] for name in known if name in options},
        )
        return cls(Path(folder))

    def _save_pretrained(self, save_directory: Path) -> None:
        for name in FILES:
            if (self.folder / name).is_file() and save_directory.resolve() != self.folder.resolve():
                shutil.copyfile(self.folder / name, save_directory / name)
