"""Pretrained networks as a chain's first generations: read, checked, named by content, adopted.

A file of weights is loaded into its network here, strictly, and written again as the store writes weights. The sha256
of those bytes names it, so the same weights are the same generation whatever file they came in. A generation of the
run folder is that very generation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from gentrain.errors import ConfigError, shown_path
from gentrain.running.weights import fit, read_weights
from gentrain.store.done import MODEL, SPEC
from gentrain.store.folder import digest
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec, NetworkSpec
from gentrain.study.schema import Study
from gentrain.study.sections import PretrainedConfig, RecipeConfig
from gentrain.study.tasks import PretrainedSpec

_KEY = re.compile(r"[0-9a-f]{16}")


class PretrainedNetworks:
    """Resolves a study's pretrained networks to specs (`lineage.Resolve`); each file is read once.

    Args:
        store: the run folder, for generations of its own, and where others are adopted.
        data: fingerprint of the prepared dataset; None when it isn't prepared, as for a plan: then files are only
            looked for, and stand for their networks by name.
        num_classes: of the prepared dataset.
        notify: gets a line where weights were unwrapped: from what.
    """

    def __init__(
        self,
        store: RunStore,
        *,
        data: str | None,
        num_classes: int | None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store, self._data, self._num_classes = store, data, num_classes
        self._notify = notify
        self._read: dict[tuple[PretrainedConfig, str], bytes] = {}
        self._adoptable: dict[str, bytes] = {}

    def __call__(self, study: Study) -> tuple[GenerationSpec, ...]:
        """Return the specs of the study's pretrained networks, in order.

        Raises:
            ConfigError: naming the file, the first tensor that differs, and the remedy.
        """
        return tuple(self._find(study, index) for index in range(len(study.pretrained)))

    def adopt(self) -> None:
        """Write the weights of those that came as files into their generations' folders, for workers to evaluate."""
        for key, content in self._adoptable.items():
            folder = self._store.generation(key)
            if folder.file(MODEL) != content:
                folder.write(MODEL, content)

    def _find(self, study: Study, index: int) -> GenerationSpec:
        config = study.pretrained[index]
        where = f"pretrained.{index}.checkpoint: {shown_path(config.checkpoint)}"
        key = _key_of(config.checkpoint, self._store, where)
        if key is not None:
            return self._own(key, config, where)
        network = config.network or study.network.name
        content = self._content(config, network, where)
        spec = GenerationSpec(
            data=self._data or "not prepared",
            num_classes=self._num_classes or 0,
            network=NetworkSpec(name=network),
            recipe=RecipeConfig(images=study.recipe.images),  # of all the recipe, only how test pictures are cut
            precision=study.precision,
            sync_batchnorm=False,
            seed=0,
            generation=0,
            task=PretrainedSpec(sha256=digest(content)),
        )
        if self._num_classes is not None:
            self._adoptable[spec.key] = content
        return spec

    def _content(self, config: PretrainedConfig, network: str, where: str) -> bytes:
        if (config, network) not in self._read:
            path = Path(os.path.expanduser(config.checkpoint))  # unlike Path.expanduser, it never raises
            if not os.path.isfile(path):
                raise ConfigError(f"{where}: no such file; give a .safetensors or .pt file, or a generation's key")
            if self._num_classes is None:
                content = f"{config.checkpoint} as {network}".encode()
            else:
                tensors, place = read_weights(path, config.key, where)
                content, unwrapped = fit(tensors, network, self._num_classes, where)
                if text := ", ".join(filter(None, (place, unwrapped))):
                    self._notify(f"{where}: {text}")
            self._read[config, network] = content
        return self._read[config, network]

    def _own(self, key: str, config: PretrainedConfig, where: str) -> GenerationSpec:
        """Return the spec of a finished generation of the store."""
        folder = self._store.generation(key)
        inspection = folder.inspect()
        if inspection.done is None or MODEL in inspection.damaged:
            raise ConfigError(f"{where}: not a finished generation of {self._store.root}; see gentrain status")
        spec = folder.spec(done=inspection.done)
        if spec is None:
            raise ConfigError(f"{where}: {folder}/{SPEC} is damaged; give {folder}/{MODEL} instead")
        if self._data is not None and spec.data != self._data:
            raise ConfigError(
                f"{where}: was trained on other data ({spec.data[:16]}…, not {self._data[:16]}…); give "
                f"{folder}/{MODEL} instead"
            )
        if config.network not in (None, spec.network.name):
            raise ConfigError(f"{where}: is a {spec.network.name}, not a {config.network}; leave its network out")
        return spec


def _key_of(checkpoint: str, store: RunStore, where: str) -> str | None:
    """Return the key where a generation of the store is meant: by its 16 hex digits, or by its folder."""
    if _KEY.fullmatch(checkpoint):
        return checkpoint
    runs, _, key = checkpoint.rstrip("/").rpartition("/generations/")
    if runs and _KEY.fullmatch(key) and _is_store(runs, store):
        return key
    if os.path.isdir(os.path.expanduser(checkpoint)):
        raise ConfigError(f"{where}: no generation of {store.root}; give the file {MODEL} in it")
    return None


def _is_store(runs: str, store: RunStore) -> bool:
    try:
        return RunStore(runs).uri == store.uri
    except ConfigError:  # no URI of a folder, or no path
        return False
