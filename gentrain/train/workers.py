"""The data-parallel workers of a generation and all that they do together; nothing else asks how many they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gentrain.data.loading.loader import Batch
from gentrain.errors import GentrainError
from gentrain.train.device import autocast

T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """This process's place among the workers, and their collective operations.

    The process group is set up by the caller; one worker needs none. Every worker must call the same operations in the
    same order, or all of them wait for ever.
    """

    rank: int
    world_size: int
    device: torch.device
    threads: int

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the one that writes and posts."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other worker."""
        return self.world_size == 1

    # Values

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over the workers in place, and return it."""
        if not self.alone:
            dist.all_reduce(values)
        return values

    def minimum(self, values: Tensor) -> Tensor:
        """Reduce a tensor to its least values over the workers, in place, and return it."""
        if not self.alone:
            dist.all_reduce(values, op=dist.ReduceOp.MIN)
        return values

    def gather(self, value: T) -> list[T]:
        """Return every worker's value by rank, on all workers; the values are pickled."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Return rank 0's value on all workers; it is pickled."""
        if self.alone:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[no-any-return]

    # Actions

    def everywhere(self, action: Callable[[], T]) -> T:
        """Run an action on every worker and return its own result; where it fails on one, fail on all.

        Otherwise the others would wait for one that is gone.

        Raises:
            GentrainError: the first by rank, on every worker.
        """
        result, failure = _attempt(action)
        _raise_first(self.gather(failure))
        return result  # type: ignore[return-value]  # there is one where nothing failed

    def on_first(self, action: Callable[[], None]) -> None:
        """Run an action on rank 0 while the others wait for its end.

        Raises:
            GentrainError: on every worker, when the action raises it.
        """
        self.everywhere(action if self.first else _do_nothing)

    def from_first(self, action: Callable[[], T]) -> T:
        """Run an action on rank 0 and return its result on all workers; it is pickled.

        Raises:
            GentrainError: on every worker, when the action raises it.
        """
        result, failure = self.broadcast(_attempt(action) if self.first else (None, None))
        _raise_first([failure])
        return result  # type: ignore[return-value]

    # Training

    def sync_batchnorm(self, network: nn.Module) -> None:
        """Let the network's BatchNorm layers take the statistics of all workers' samples.

        Raises:
            GentrainError: when the workers compute on CPUs.
        """
        if self.alone:
            return
        if self.device.type != "cuda":
            raise GentrainError("sync_batchnorm: true needs device: cuda; torch has it for GPUs only")
        nn.SyncBatchNorm.convert_sync_batchnorm(network)

    def parallel(
        self,
        network: nn.Module,
        *,
        image: tuple[int, int, int],
        count: int,
        precision: str,
        plain: nn.Module | None = None,
    ) -> nn.Module:
        """Return what computes the network's gradients as means over the workers: the network itself on one.

        Args:
            network: to be trained.
            image: shape (3, H, W) of an image.
            count: images in the blank batch that DDP is prepared with (see `_data_parallel`).
            precision: of the study.
            plain: the network before it was compiled.
        """
        if self.alone:
            return network
        blank = torch.zeros((count, *image), device=self.device)
        return _data_parallel(network, network if plain is None else plain, blank, precision=precision)

    def zero_loss(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return a loss whose gradients are 0, of a worker that has no sample in a global batch.

        The worker still takes its part in what all of them compute together. None of `images`, which are another
        worker's, enters a statistic. To be called without autocast: the sums that SyncBatchNorm's layers exchange are
        float32.
        """
        loss: Tensor = network(images[:0])
        return loss

    def weigh(self, loss: Tensor, batch: Batch) -> Tensor:
        """Scale this worker's mean loss so that the average over workers is the mean over the global batch."""
        if self.alone:
            return loss
        return loss * (len(batch.labels) * self.world_size / batch.global_size)

    def clear_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the gradients of the last step; on several workers they stay allocated, as parts of DDP's buckets."""
        optimizer.zero_grad(set_to_none=self.alone)

    def share_buffers(self, network: nn.Module) -> None:
        """Give every worker rank 0's buffers, the BatchNorm statistics that are saved."""
        if not self.alone:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)


class _Part(nn.Module):
    """Gives the logits of a worker's part of a batch; of a part without images, a loss whose gradients are 0.

    SyncBatchNorm's layers wait for one another, so they get the part without images too, and leave it out. No other
    layer sees it, unless there are such layers: BatchNorm can't compute statistics of nothing.
    """

    def __init__(self, network: nn.Module, plain: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._plain = (plain,)  # in a tuple, so that its parameters aren't listed twice
        self._synchronised = any(isinstance(module, nn.SyncBatchNorm) for module in plain.modules())

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, C), or a scalar."""
        if len(images):
            logits: Tensor = self.network(images)
            return logits
        loss: Tensor = sum(parameter.sum() * 0 for parameter in self.parameters())  # type: ignore[assignment]
        return loss + self._plain[0](images).sum() if self._synchronised else loss


def _data_parallel(network: nn.Module, plain: nn.Module, blank: Tensor, *, precision: str) -> nn.Module:
    """Wrap a network for data parallelism; `blank` is a worker's batch of images on its device.

    DDP regroups its gradient buckets after the first step, which would change the order of sums between a fresh and a
    resumed process. One step on blank images, undone, brings both to the same grouping before the real first step.
    """
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    wrapped = DistributedDataParallel(_Part(network, plain), broadcast_buffers=False, gradient_as_bucket_view=True)
    with autocast(blank.device, precision):
        loss = wrapped(blank.contiguous(memory_format=torch.channels_last)).float().sum()
    loss.backward()
    wrapped.zero_grad(set_to_none=False)
    plain.load_state_dict(before)
    return wrapped


def _attempt(action: Callable[[], T]) -> tuple[T | None, GentrainError | None]:
    try:
        return action(), None
    except GentrainError as error:
        return None, error


def _raise_first(failures: Iterable[GentrainError | None]) -> None:
    failure = next(filter(None, failures), None)
    if failure is not None:
        raise failure


def _do_nothing() -> None:
    """Stand for rank 0's action on the others."""
