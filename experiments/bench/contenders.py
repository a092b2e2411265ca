"""Those who train the same network on the same data: gentrain, its ideal, and what one would otherwise run.

    python contenders.py JOB.json

Started by bench.py, one process each. A block is one pass over the same few batches; every contender times its own.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gate import Gate, Stopped

MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
"""Of CIFAR-100's training pixels."""
LAM, ETA, K = 0.6, 4 / 7, 5
LOADER_WORKERS = 2


@dataclass(frozen=True)
class Entry:
    """What a contender is told."""

    kind: str
    """gentrain (on Ray), loop (its debug runner), ideal, plain or torchdistill."""
    network: str
    task: str
    """patriarch or student."""
    batch: int
    images: int
    """Of a block."""
    workers: int
    threads: int
    """Of each worker."""
    data: str
    """Folder of the Parquet files."""
    runs: str
    gate: str
    teacher: str
    """Key of a finished generation in `runs`."""
    precision: str = "bf16"
    keep: bool = True
    """Whether freed memory stays with the process (`gentrain.train.allocator`)."""
    seed: int = 0
    """Another for every contender, so that two of gentrain's don't want one generation."""
    address: str = ""
    """Of the Ray cluster that gentrain's contenders share."""
    device: str = "cpu"
    settings: dict[str, Any] = field(default_factory=dict)
    """More of gentrain's study, such as {"compile": True}."""

    @property
    def sizes(self) -> list[int]:
        """Batches of a block: the last may be smaller."""
        full, rest = divmod(self.images, self.batch)
        return [self.batch] * full + [rest] * bool(rest)

    def write(self, path: Path) -> None:
        """Write it for the process that is to be this contender."""
        path.write_text(json.dumps(asdict(self)))


def main(path: Path) -> None:
    """Be the contender that the file describes until it's told to stop."""
    entry = Entry(**json.loads(path.read_text()))
    gate = Gate(Path(entry.gate))
    if entry.kind in ("gentrain", "loop"):
        from ray_contender import run_generation

        run_generation(entry)
        return
    block = {"ideal": _ideal, "plain": _plain, "torchdistill": _torchdistill}[entry.kind](entry)
    for number in itertools.count():
        try:
            gate.wait(number)
        except Stopped:
            return
        started = time.perf_counter()
        block()
        _finish_work(entry)
        gate.done(number, seconds=time.perf_counter() - started)


def _finish_work(entry: Entry) -> None:
    """Wait until a GPU has done what it was told: only then is a block over."""
    if entry.device != "cpu":
        import torch

        torch.cuda.synchronize(entry.device)


def _ideal(entry: Entry) -> Callable[[], None]:
    """The arithmetic and nothing else: batches that are in memory as the network wants them, nothing counted."""
    from gentrain.train.allocator import keep_freed_memory

    if entry.keep:
        keep_freed_memory()
    import torch

    from gentrain.models.registry import build_model
    from gentrain.store.run import RunStore
    from gentrain.train.device import autocast, configure, to_device
    from gentrain.train.inference import load_network
    from gentrain.train.losses import patriarch_loss, student_loss

    device = torch.device(entry.device)
    configure(device, threads=entry.threads, precision=entry.precision)
    torch.manual_seed(0)
    network = to_device(build_model(entry.network, num_classes=100), device).train()
    teacher = None
    if entry.task == "student":
        teacher = to_device(load_network(entry.teacher, RunStore(entry.runs)), device)
        teacher.requires_grad_(False).eval()
    optimizer = sgd(network, fused=True)
    batches = [
        (
            torch.randn(n, 3, 32, 32).contiguous(memory_format=torch.channels_last).to(device),
            torch.randint(0, 100, (n,)).to(device),
        )
        for n in entry.sizes
    ]

    def block() -> None:
        for images, labels in batches:
            optimizer.zero_grad(set_to_none=True)
            with autocast(device, entry.precision):
                logits = network(images)
                if teacher is None:
                    terms = patriarch_loss(logits, labels, eta=ETA, k=K)
                else:
                    with torch.no_grad():
                        soft = teacher(images)
                    terms = student_loss(logits, soft, labels, lam=LAM)
            terms.loss.backward()
            optimizer.step()

    return block


def _plain(entry: Entry) -> Callable[[], None]:
    """What a script of the field does: torchvision's transforms, DataLoader, fp32, the teacher called as it is."""
    import torch
    import torch.nn.functional as F

    from gentrain.models.registry import build_model
    from gentrain.store.run import RunStore
    from gentrain.train.inference import load_network
    from gentrain.train.losses import patriarch_loss

    torch.set_num_threads(entry.threads)
    torch.manual_seed(0)
    network = build_model(entry.network, num_classes=100).to(entry.device).train()
    teacher = None
    if entry.task == "student":
        teacher = load_network(entry.teacher, RunStore(entry.runs)).to(entry.device).eval()
    optimizer = sgd(network, fused=False)
    batches = torchvision_loader(entry)

    def block() -> None:
        for batch in batches:
            images, labels = (tensor.to(entry.device) for tensor in batch)
            logits = network(images)
            if teacher is None:
                loss = patriarch_loss(logits, labels, eta=ETA, k=K).loss
            else:
                with torch.no_grad():
                    soft = teacher(images)
                hard = F.cross_entropy(logits, labels)
                kl = F.kl_div(logits.log_softmax(1), soft.softmax(1), reduction="batchmean")
                loss = (1 - LAM) * hard + LAM * kl
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return block


def _torchdistill(entry: Entry) -> Callable[[], None]:
    """Train with torchdistill's DistillationBox and its knowledge-distillation loss on the same networks and data."""
    import logging

    import torch
    from torchdistill.core.distillation import DistillationBox

    from gentrain.models.registry import build_model
    from gentrain.store.run import RunStore
    from gentrain.train.inference import load_network

    logging.disable(logging.INFO)
    torch.set_num_threads(entry.threads)
    torch.manual_seed(0)
    student = build_model(entry.network, num_classes=100).to(entry.device).train()
    teacher = load_network(entry.teacher, RunStore(entry.runs)).to(entry.device).eval()
    paths = {
        f"{who}_module_{what}": v for who in ("student", "teacher") for what, v in (("path", "."), ("io", "output"))
    }
    loss = {"key": "KDLoss", "kwargs": {**paths, "temperature": 1.0, "alpha": 1 - LAM, "reduction": "batchmean"}}
    rates = {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
    box = DistillationBox(
        teacher,
        student,
        {},
        {
            "num_epochs": 1,
            "teacher": {"requires_grad": False, "forward_proc": "forward_batch_only"},
            "student": {"requires_grad": True, "forward_proc": "forward_batch_only"},
            "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": loss, "weight": 1}}}},
            "optimizer": {"key": "SGD", "kwargs": rates},
        },
        torch.device(entry.device),
        None,
        False,
        1,
    )
    batches = torchvision_loader(entry)

    def block() -> None:
        for batch in batches:
            images, labels = (tensor.to(entry.device) for tensor in batch)
            found = box.forward_process(images, labels, None)
            box.post_forward_process(found)
            found.item()

    return block


def torchvision_loader(entry: Entry) -> Any:
    """Return the block's images through torchvision's transforms and a DataLoader; it reads ahead in a block only."""
    from torch.utils.data import DataLoader
    from torchvision import transforms

    images = load_images(entry)
    change = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return DataLoader(
        _Images(images, change),
        batch_size=entry.batch,
        shuffle=True,
        num_workers=max(LOADER_WORKERS, entry.threads),
        persistent_workers=True,
        pin_memory=entry.device != "cpu",
    )


def load_images(entry: Entry) -> list[tuple[Any, int]]:
    """Return (PIL image, label) of the images of a block."""
    import numpy as np
    from PIL import Image

    from gentrain.data.loading.beton import BetonReader

    path = prepared(entry).split_path("train")
    reader = BetonReader(path, batch_size=entry.images, threads=1)
    ((pixels, labels, _),) = reader.read(np.arange(entry.images))
    found = pixels.permute(0, 2, 3, 1).numpy()
    return [(Image.fromarray(image), label) for image, label in zip(found, labels.tolist(), strict=True)]


def prepared(entry: Entry) -> Any:
    """Return the block's images as gentrain prepares them, once in a run of the suite."""
    from gentrain.data.prepare.dataset import prepare
    from gentrain.study.sections import DatasetConfig

    config = DatasetConfig(source="cifar100", path=entry.data, limit=entry.images // 100)
    return prepare(config, Path(entry.runs) / "data")


class _Images:
    """A dataset as torchvision's are."""

    def __init__(self, images: list[tuple[Any, int]], change: Callable[[Any], Any]) -> None:
        self._images, self._change = images, change

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self._images[index]
        return self._change(image), label


def sgd(network: Any, *, fused: bool) -> Any:
    """Return the optimiser of all contenders, by torch."""
    import torch

    return torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=fused or None
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
