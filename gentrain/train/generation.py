"""Train one generation: the one loop. Tasks own their losses; no Ray in here.

The same code runs in a Ray Train worker and in the debug runner. Everything random is a function of (seed, generation,
epoch, sample), so a run that was killed and goes on from its last checkpoint ends in the same bits.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import Tensor, nn

from gentrain import __version__
from gentrain.data.loading.augment import augment, distort, normalise
from gentrain.data.loading.loader import Batch, Loader
from gentrain.data.prepare.manifest import Manifest
from gentrain.data.prepare.share import obtain
from gentrain.errors import GentrainError, TrainingError
from gentrain.events import EpochDone, Event, GenerationStarted, Note, Progress
from gentrain.models.registry import build_model
from gentrain.scores.metrics import score
from gentrain.store.folder import digest, encode_table
from gentrain.store.generation import EPOCHS, MODEL, PREDICTIONS, VALIDATION_PREDICTIONS, GenerationFolder
from gentrain.store.predictions import encode_predictions
from gentrain.study.lineage import PatriarchSpec, PretrainedSpec, StudentSpec
from gentrain.train.checkpoint import encode_training_state, encode_weights, load_training_state, load_weights
from gentrain.train.device import (
    autocast,
    compile_network,
    configure,
    data_parallel,
    device_name,
    prepare_compiler,
    to_device,
    told_uncompilable,
)
from gentrain.train.inference import load_teacher, predict
from gentrain.train.job import Job
from gentrain.train.meter import EPOCHS_SCHEMA, Meter
from gentrain.train.optimizer import SGD
from gentrain.train.schedule import learning_rate
from gentrain.train.tasks import AdaptivePatriarchTask, PatriarchTask, StudentTask, Task

CHECK_STEPS = 50
"""Steps between two looks at the losses: all workers look at the same step, so all stop together."""
PROGRESS_SECONDS = 0.5

Post = Callable[[Event], None]


@dataclass(frozen=True)
class Worker:
    """This process's place among the data-parallel workers."""

    rank: int
    world_size: int
    device: torch.device
    threads: int


def train_generation(job: Job, worker: Worker, post: Post) -> None:
    """Train `job.spec` to the end and write it to the store; go on from the newest sound checkpoint.

    Called by every worker of the group; rank 0 alone writes and posts. The process group is set up by the caller.

    Raises:
        TrainingError: on a non-finite loss, on every rank, at the same step.
        GentrainError: when the store can't be written or was taken over.
    """
    configure(worker.device, threads=worker.threads, precision=job.spec.precision)
    _Generation(job, worker, post).run()


class _Generation:
    """One generation's state on one worker."""

    def __init__(self, job: Job, worker: Worker, post: Post) -> None:
        self.job, self.spec, self.worker = job, job.spec, worker
        self.post: Post = post if worker.rank == 0 else (lambda _: None)
        self.folder: GenerationFolder = job.store.generation(job.spec.key)
        self.data = obtain(job.data, job.store)
        self.rows: list[dict[str, Any]] = []
        self.loaders: dict[str, Loader] = {}
        torch.manual_seed(_stream(self.spec.seed, self.spec.generation))
        network = build_model(
            self.spec.network.name, num_classes=self.spec.num_classes, memory_efficient=job.memory_efficient
        )
        self.model = to_device(network, worker.device)

    def run(self) -> None:
        if self.job.weights_done:
            content = self.folder.read(MODEL) or b""
            if isinstance(self.spec.task, PretrainedSpec):
                self._check_given(content, self.spec.task)
            else:
                self.rows = pq.read_table(io.BytesIO(self.folder.read(EPOCHS) or b"")).to_pylist()
            load_weights(self.model, content)
        else:
            with told_uncompilable(self.spec.network.name) if self.spec.compile else contextlib.nullcontext():
                self._train()
        self._finish()

    # Training

    def _train(self) -> None:
        spec, recipe = self.spec, self.spec.recipe
        if spec.compile:
            self._together(partial(prepare_compiler, self.worker.device), everywhere=True)
        network = self._parallel(self.model)
        optimizer = SGD(
            self.model.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        start = self._resume(optimizer)
        if start == recipe.epochs:
            return
        task = self._build_task()
        train, test = self._loader("train"), self._loader("test")
        validation = self._loader("validation") if "validation" in self.data.manifest.splits else None
        self.post(GenerationStarted(spec.generation, spec.key, start))
        for epoch in range(start, recipe.epochs):
            row = self._epoch(epoch, network=network, optimizer=optimizer, task=task, loader=train)
            if (epoch + 1) % self.job.evaluate_every == 0 or epoch + 1 == recipe.epochs:
                row["test_error"] = self._error(test)
                row["validation_error"] = self._error(validation) if validation else None
            self.rows.append(row)
            self._together(partial(self._save, epoch + 1, optimizer))
            self.post(EpochDone(spec.generation, row))

    def _epoch(
        self, epoch: int, *, network: nn.Module, optimizer: torch.optim.Optimizer, task: Task, loader: Loader
    ) -> dict[str, Any]:
        """Train one epoch and return its row; times exclude evaluation."""
        spec, recipe = self.spec, self.spec.recipe
        torch.manual_seed(_stream(spec.seed, spec.generation, epoch, self.worker.rank))
        network.train()
        meter = Meter(world_size=self.worker.world_size, device=self.worker.device)
        started = told = time.perf_counter()
        lr = 0.0
        for index, batch in enumerate(loader.epoch(epoch)):
            step = epoch * len(loader) + index
            lr = learning_rate(
                step=step,
                steps_per_epoch=len(loader),
                base=recipe.learning_rate,
                milestones=recipe.milestones,
                decay=recipe.decay,
                warmup_epochs=recipe.warmup_epochs,
            )
            for group in optimizer.param_groups:
                group["lr"] = lr
            images = self._pixels(batch, epoch)
            optimizer.zero_grad(set_to_none=self.worker.world_size == 1)
            if spec.compile:
                torch.compiler.cudagraph_mark_step_begin()  # the last step's logits and gradients are gone from here on
            with autocast(self.worker.device, spec.precision):
                logits = network(images)
                terms = task(logits, images, batch.labels)
            _weighted(terms.loss, batch, self.worker.world_size).backward()
            optimizer.step()
            meter.add(index, batch, logits.detach(), terms)
            if (index + 1) % CHECK_STEPS == 0:
                self._check_finite(meter, epoch)
            if self.worker.rank == 0 and time.perf_counter() - told > PROGRESS_SECONDS:
                told = time.perf_counter()
                self._progress(epoch, meter, loader, told - started)
        meter.reduce()
        self._check_finite(meter, epoch)
        means = meter.means()
        seconds = time.perf_counter() - started
        return {
            "epoch": epoch + 1,
            "seconds": seconds,
            "images": loader.num_samples,
            "images_per_second": loader.num_samples / seconds,
            "learning_rate": lr,
            "loss": means["loss"],
            "hard": means["hard"],
            "soft": means["soft"],
            "train_error": means["train_error"],
            "primary_score": means["primary"],
            "test_error": None,
            "validation_error": None,
        }

    def _build_task(self) -> Task:
        task = self.spec.task
        if isinstance(task, PatriarchSpec) and task.adaptive is not None:
            return AdaptivePatriarchTask(f_a1=task.adaptive.f_a1, k=task.adaptive)
        if isinstance(task, PatriarchSpec):
            return PatriarchTask(eta=task.eta or 0.0, k=task.k or 2)
        assert isinstance(task, StudentSpec)
        dtype = torch.bfloat16 if self.spec.precision == "bf16" else torch.float32
        blank = torch.zeros((1, 3, self.data.manifest.height, self.data.manifest.width))
        teacher = load_teacher(
            task.teachers,
            self.job.store,
            folded=task.fold_batchnorm,
            fuse_for=(blank, dtype) if self.worker.device.type == "cpu" and not self.spec.compile else None,
        )
        teacher = self._compiled(to_device(teacher, self.worker.device).requires_grad_(False).eval())
        return StudentTask(teacher, lam=task.lam, temperature=task.temperature)

    def _compiled(self, network: nn.Module) -> nn.Module:
        """Return what trains or teaches in place of the network: itself, or compiled where the study says so."""
        if not self.spec.compile:
            return network
        return compile_network(network, self.worker.device, graphs=self.worker.world_size == 1)

    def _parallel(self, model: nn.Module) -> nn.Module:
        """Return what trains the student (never the teacher) on several workers, or on this one alone."""
        if self.worker.world_size == 1:
            return self._compiled(model)
        if self.spec.sync_batchnorm:
            if self.worker.device.type != "cuda":
                raise GentrainError("sync_batchnorm: true needs device: cuda; torch has it for GPUs only")
            model = self.model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        manifest = self.data.manifest
        count = self.spec.recipe.batch_size // self.worker.world_size if self.spec.compile else 2  # no shape of its own
        blank = torch.zeros((count, 3, manifest.height, manifest.width), device=self.worker.device)
        return data_parallel(self._compiled(model), blank, precision=self.spec.precision)

    def _check_finite(self, meter: Meter, epoch: int) -> None:
        step = meter.first_bad_step()
        if step is None:
            return
        kept = f"the checkpoint after epoch {epoch} stays" if epoch else "no epoch was finished"
        raise TrainingError(
            f"generation {self.spec.generation} ({self.spec.key}), epoch {epoch + 1}, step {step + 1}: "
            f"the loss is not finite; {kept}. Lower recipe.learning_rate, add recipe.warmup_epochs, or use "
            "precision: fp32"
        )

    def _progress(self, epoch: int, meter: Meter, loader: Loader, seconds: float) -> None:
        means = meter.means()
        images = min(loader.num_samples, int(means.pop("count")) * self.worker.world_size)
        self.post(
            Progress(
                generation=self.spec.generation,
                epoch=epoch + 1,
                images=images,
                total_images=loader.num_samples,
                images_per_second=images / seconds,
                **means,
            )
        )

    # Evaluation

    def _check_given(self, content: bytes, task: PretrainedSpec) -> None:
        """Refuse adopted weights that aren't those that the generation is named by."""
        if digest(content) != task.sha256:
            raise GentrainError(f"{self.folder}/{MODEL}: missing or damaged; run the study again with its checkpoint")

    def _train_primary(self) -> float:
        """Return the mean largest score on the training set: of the last epoch, or as it is, without augmentation."""
        if self.rows:
            return float(self.rows[-1]["primary_score"])
        loader = self._build_loader("train", shuffle=False)
        total = torch.zeros((), dtype=torch.float64, device=self.worker.device)
        for _, probabilities in self._predict(loader):
            total += probabilities.max(dim=1).values.double().sum()
        if self.worker.world_size > 1:
            dist.all_reduce(total)
        return float(total) / loader.num_samples

    def _predict(self, loader: Loader) -> Iterator[tuple[Batch, Tensor]]:
        """Yield this rank's batches with their probabilities."""
        return predict(
            self.model,
            loader,
            manifest=self.data.manifest,
            device=self.worker.device,
            precision=self.spec.precision,
        )

    def _error(self, loader: Loader) -> float:
        """Return the top-1 error over the whole split, each image counted once."""
        self._share_buffers()
        wrong = torch.zeros((), dtype=torch.int64, device=self.worker.device)
        for batch, probabilities in self._predict(loader):
            wrong += (probabilities.argmax(dim=1) != batch.labels).sum()
        if self.worker.world_size > 1:
            dist.all_reduce(wrong)
        return float(wrong) / loader.num_samples

    def _predictions(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (probabilities (N, C) float32, labels (N,)) of a split in its own order, whole on every rank."""
        self._share_buffers()
        parts = [
            (batch.indices.cpu().numpy(), batch.labels.cpu().numpy(), probabilities.cpu().numpy())
            for batch, probabilities in self._predict(self._loader(split))
        ]
        if self.worker.world_size > 1:
            gathered: list[Any] = [None] * self.worker.world_size
            dist.all_gather_object(gathered, parts)
            parts = [part for rank in gathered for part in rank]
        indices, labels, probabilities = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not np.array_equal(np.sort(indices), np.arange(self.data.manifest.splits[split].count)):
            raise GentrainError(f"{split}: evaluation didn't see every image exactly once; this is a bug of gentrain")
        order = np.argsort(indices)
        return probabilities[order], labels[order]

    # The store

    def _resume(self, optimizer: torch.optim.Optimizer) -> int:
        """Load the newest sound checkpoint that rank 0 sees; return the number of finished epochs."""
        found: list[tuple[int, bytes] | None] = [None]
        if self.worker.rank == 0:
            found[0] = self.folder.newest_checkpoint(warn=lambda text: self.post(Note(text, "warning")))
        if self.worker.world_size > 1:
            dist.broadcast_object_list(found, src=0)
        if found[0] is None:
            return 0
        epoch, content = found[0]
        self.rows = load_training_state(self.model, optimizer, content)["rows"]
        return epoch

    def _save(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        self.folder.check_claim(self.job.token)
        self.folder.save_checkpoint(epoch, encode_training_state(self.model, optimizer, {"rows": self.rows}))

    def _finish(self) -> None:
        """Predict the held-out splits and write the finished generation, DONE.json last."""
        splits = {"test": PREDICTIONS}
        if "validation" in self.data.manifest.splits:
            splits["validation"] = VALIDATION_PREDICTIONS
        predictions = {split: self._predictions(split) for split in splits}
        primary = self._train_primary()

        def write() -> None:
            scores = {split: asdict(score(*found)) for split, found in predictions.items()}
            files = {
                MODEL: encode_weights(self.model),
                EPOCHS: encode_table(pa.Table.from_pylist(self.rows, EPOCHS_SCHEMA)),
            }
            files |= {splits[split]: encode_predictions(*found) for split, found in predictions.items()}
            self.folder.check_claim(self.job.token)
            self.folder.write("spec.json", (json.dumps(self.spec.model_dump(mode="json"), indent=2)).encode())
            self.folder.finish(
                files,
                scores=scores["test"],
                validation_scores=scores.get("validation"),
                train_primary=primary,
                seconds=sum(row["seconds"] for row in self.rows),
                workers=self.worker.world_size,
                threads=self.worker.threads,
                device=device_name(self.worker.device),
                versions={"gentrain": __version__, "torch": torch.__version__, "ffcv": version("ffcv")},
            )

        self._together(write)

    def _together(self, action: Callable[[], None], *, everywhere: bool = False) -> None:
        """Run `action` on rank 0, or everywhere; where it fails, fail on all ranks, so that none waits for one gone."""
        failures: list[GentrainError | None] = [None]
        if everywhere or self.worker.rank == 0:
            try:
                action()
            except GentrainError as error:
                failures[0] = error
        if self.worker.world_size > 1:
            own, failures = failures[0], [None] * self.worker.world_size
            dist.all_gather_object(failures, own)
        if failure := next(filter(None, failures), None):
            raise failure

    # Data

    def _loader(self, split: str) -> Loader:
        """Return the loader of a split, shuffled for training; one each, as FFCV compiles every loader anew."""
        if split not in self.loaders:
            self.loaders[split] = self._build_loader(split, shuffle=split == "train")
        return self.loaders[split]

    def _build_loader(self, split: str, *, shuffle: bool) -> Loader:
        batch = self.spec.recipe.batch_size
        return Loader(
            self.data.split_path(split),
            batch_size=batch if shuffle else 2 * batch,
            rank=self.worker.rank,
            world_size=self.worker.world_size,
            seed=_stream(self.spec.seed, self.spec.generation),
            shuffle=shuffle,
            threads=self.worker.threads,
            device=self.worker.device,
            images=self.spec.recipe.images,
            size=self.data.manifest.height,
        )

    def _pixels(self, batch: Batch, epoch: int) -> Tensor:
        recipe = self.spec.recipe
        seed = _stream(self.spec.seed, self.spec.generation)
        if recipe.images is None:
            change = partial(augment, padding=recipe.padding)
        else:
            change = partial(distort, rotation=recipe.images.rotation, jitter=recipe.images.jitter)
        return self._normalised(change(batch.images, batch.indices, seed=seed, epoch=epoch, flip=recipe.flip))

    def _normalised(self, images: Tensor) -> Tensor:
        manifest: Manifest = self.data.manifest
        return normalise(images, mean=manifest.mean, std=manifest.std)

    def _share_buffers(self) -> None:
        """Give every rank rank 0's BatchNorm statistics: the ones that are saved."""
        if self.worker.world_size > 1:
            for buffer in self.model.buffers():
                dist.broadcast(buffer, src=0)


def _weighted(loss: Tensor, batch: Batch, world_size: int) -> Tensor:
    """Scale the local mean so that DDP's average over workers is the mean over the global batch."""
    if world_size == 1:
        return loss
    share = 0.0 if batch.filler else batch.labels.numel() * world_size / batch.global_size
    return loss * share


def _stream(*parts: int) -> int:
    """Return an independent 62-bit seed for a tuple such as (seed, generation, epoch, rank)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(2))
