"""Pretrained networks as a chain's first generations: read, checked, named by content, adopted.

A file of weights is loaded into its network here, strictly, and written again as the store writes weights. The sha256
of those bytes names it, so the same weights are the same generation whatever file they came in. A generation of the
run folder is that very generation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gentrain.errors import ConfigError, cut, printable
from gentrain.store.done import MODEL, SPEC
from gentrain.store.folder import digest
from gentrain.store.run import RunStore
from gentrain.study.lineage import GenerationSpec, NetworkSpec, PretrainedSpec
from gentrain.study.schema import Study
from gentrain.study.sections import PretrainedConfig, RecipeConfig

if TYPE_CHECKING:
    from torch import Tensor

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".tar")
NESTED = ("state_dict", "model", "model_state_dict")
"""Where training scripts keep the weights in a .pt file."""
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that data parallelism and torch.compile put before every name."""
_KEY = re.compile(r"[0-9a-f]{16}")


class PretrainedNetworks:
    """Resolves a study's pretrained networks to specs (`lineage.Resolve`); each file is read once.

    Args:
        store: the run folder, for generations of its own, and where others are adopted.
        data: fingerprint of the prepared dataset; None when it isn't prepared, as for a plan: then files are only
            looked for, and stand for their networks by name.
        num_classes: of the prepared dataset.
    """

    def __init__(self, store: RunStore, *, data: str | None, num_classes: int | None) -> None:
        self._store, self._data, self._num_classes = store, data, num_classes
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
        there = os.path.exists(os.path.expanduser(config.checkpoint))
        where = f"pretrained.{index}.checkpoint: {(printable if there else cut)(config.checkpoint)}"
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
                content = _fitted(_tensors(path, config.key, where), network, self._num_classes, where)
            self._read[config, network] = content
        return self._read[config, network]

    def _own(self, key: str, config: PretrainedConfig, where: str) -> GenerationSpec:
        """Return the spec of a finished generation of the store."""
        folder = self._store.generation(key)
        inspection = folder.inspect()
        if inspection.done is None or MODEL in inspection.damaged:
            raise ConfigError(f"{where}: not a finished generation of {self._store.root}; see gentrain status")
        spec = folder.spec()
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


def _tensors(path: Path, key: str | None, where: str) -> dict[str, Tensor]:
    """Return the tensors of a file by their names in the network."""
    import torch

    loaded = _loaded(path, key, where)
    others = [name for name, value in loaded.items() if not isinstance(value, torch.Tensor)]
    if others or not loaded:
        problem = f"{others[0]!r} is no tensor" if others else "it is empty"
        raise ConfigError(f"{where}: {problem}; name its weights with pretrained.key, or save a state_dict alone")
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in loaded):
            loaded = {name.removeprefix(prefix): value for name, value in loaded.items()}
    return loaded


def _loaded(path: Path, key: str | None, where: str) -> dict[str, Any]:
    import pickle

    import safetensors.torch
    import torch

    pickled = path.suffix in PICKLED
    if not pickled and path.suffix != ".safetensors":
        raise ConfigError(f"{where}: not a file of weights by its suffix; give .safetensors, {', '.join(PICKLED)}")
    if key is not None and not pickled:
        raise ConfigError(f"{where}: key {key!r} is for {', '.join(PICKLED)}; a .safetensors file has nothing nested")
    try:
        if not pickled:
            return dict(safetensors.torch.load(path.read_bytes()))
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ConfigError(
            f"{where}: is damaged or holds more than tensors, which isn't loaded; save model.state_dict() alone"
        ) from None
    except Exception as error:  # whatever bytes that are no such file make its reader raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"{where}: can't be read ({reason}); is the file whole?") from None
    if key is not None and not (isinstance(content, Mapping) and isinstance(content.get(key), Mapping)):
        there = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise ConfigError(f"{where}: has no weights under {key!r}; there: {there}")
    for name in (key,) if key is not None else NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: holds a {type(content).__name__}, not named tensors; save model.state_dict()")
    return dict(content)


def _fitted(tensors: dict[str, Tensor], network: str, num_classes: int, where: str) -> bytes:
    """Return the weights as the store writes them, loaded into the network without remainder."""
    from gentrain.models.registry import build_model
    from gentrain.train.checkpoint import encode_weights

    def refuse(problem: str) -> NoReturn:
        fits = _fitting(tensors, num_classes)
        remedy = f"it fits {' and '.join(fits)}" if fits else "name its network"
        wanted = f"{network} for {num_classes} classes"
        raise ConfigError(f"{where}: {problem} in {wanted}; {remedy} (pretrained.network, --teacher-network)")

    model = build_model(network, num_classes=num_classes)
    wanted = model.state_dict()
    for name, value in wanted.items():
        tensor = tensors.get(name)
        if tensor is None and not _counter(name):
            refuse(f"has no tensor {name!r}, which is {tuple(value.shape)}")
        if tensor is not None and tensor.shape != value.shape:
            refuse(f"tensor {name!r} is {tuple(tensor.shape)}, but {tuple(value.shape)}")
        if tensor is not None and not tensor.isfinite().all():
            raise ConfigError(f"{where}: tensor {name!r} isn't finite; that network can teach nothing")
    if more := next((name for name in tensors if name not in wanted), None):
        refuse(f"tensor {more!r} is {tuple(tensors[more].shape)}, but isn't there")
    model.load_state_dict(wanted | tensors)
    return encode_weights(model)


def _fitting(tensors: dict[str, Tensor], num_classes: int) -> list[str]:
    """Return the registered networks that have tensors of just these names and shapes."""
    import torch

    from gentrain.models.registry import build_model, model_names

    def shapes(named: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(value.shape) for name, value in named.items() if not _counter(name)}

    fitting = []
    for name in model_names():
        with torch.device("meta"):
            if shapes(build_model(name, num_classes=num_classes).state_dict()) == shapes(tensors):
                fitting.append(name)
    return fitting


def _counter(name: str) -> bool:
    """Whether it counts BatchNorm's batches, which files of older versions of torch lack and nothing here reads."""
    return name.endswith("num_batches_tracked")
