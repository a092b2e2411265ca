"""Train the same network on the same data: gentrain, its ideal, a plain script, torchdistill.

    python -m experiments.bench.contenders ENTRY.json

race.py starts one process for each. A block is one pass over the same few batches; every contender times its own.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.bench.entry import ETA, LAM, MEAN, STD, Entry, K, prepared
from experiments.bench.gate import Gate, Stopped

LOADER_WORKERS = 2


def main(path: Path) -> None:
    """Run the contender that the file describes until its gate is stopped."""
    entry = Entry(**json.loads(path.read_text()))
    gate = Gate(Path(entry.gate))
    if entry.kind in ("gentrain", "loop"):
        from experiments.bench.ray_contender import run_generation

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
    """Wait until a GPU has finished its queued work: only then is a block over."""
    if entry.device != "cpu":
        import torch

        torch.cuda.synchronize(entry.device)


def _ideal(entry: Entry) -> Callable[[], None]:
    """Do the arithmetic and nothing else: batches lie in memory in the network's layout, nothing is counted.

    With the setting `compile`, student and teacher are compiled as gentrain compiles them.
    """
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
    compiled = entry.settings.get("compile", False)
    if compiled:
        from gentrain.train.compiling import compile_network, prepare_compiler

        prepare_compiler(device)
        network = compile_network(network, device, graphs=True)
        teacher = compile_network(teacher, device, graphs=True) if teacher is not None else None
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
            if compiled:
                torch.compiler.cudagraph_mark_step_begin()
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
    """Train as a plain script does: torchvision's transforms, DataLoader, fp32, the teacher as it is."""
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
            loss = box.forward_process(images, labels, None)
            box.post_forward_process(loss)
            loss.item()

    return block


def torchvision_loader(entry: Entry) -> Any:
    """Return the block's images through torchvision's transforms and a DataLoader; it reads ahead in a block only."""
    from torch.utils.data import DataLoader
    from torchvision import transforms

    change = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    dataset: Any = _Images(load_images(entry), change)  # torch asks for its own base class, and uses nothing of it
    return DataLoader(
        dataset,
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
    arrays = pixels.permute(0, 2, 3, 1).numpy()
    return [(Image.fromarray(image), label) for image, label in zip(arrays, labels.tolist(), strict=True)]


class _Images:
    """A dataset of torchvision's shape: (transformed image, label) by index."""

    def __init__(self, images: list[tuple[Any, int]], change: Callable[[Any], Any]) -> None:
        self._images, self._change = images, change

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self._images[index]
        return self._change(image), label


def sgd(network: Any, *, fused: bool) -> Any:
    """Return the optimiser that all contenders share: torch's SGD."""
    import torch

    return torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=fused or None
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
