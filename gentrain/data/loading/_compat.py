"""Take from FFCV and Numba what gentrain uses of them, their private names among it.

Each private name stands here with the reason why; one that is gone is an error at import (`gentrain.upstream`). No
other module imports FFCV: this one has to come first, as it changes two things of FFCV's:

- FFCV keeps its two image modes in Numba's typed dictionary, for which every process compiles 3 s
  (https://github.com/numba/numba/issues/5713). Only Python reads it, so an ordinary dictionary takes its place.
- FFCV compiles every loader's code, and compiled code is never freed; here a function is compiled once, when it is
  first called, and one that is marked `plain` never. FFCV also sets the number of torch's threads, in its reading
  thread too (https://github.com/libffcv/ffcv/issues/13): as soon as two threads have OpenMP threads, there are more of
  them than cores, and a training step takes a quarter longer. Here it leaves torch's threads alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numba.typed
import numpy as np
from numba.extending import intrinsic

from gentrain.upstream import Library

FFCV = Library("ffcv", works=">=1.0.2,<1.1")
NUMBA = Library("numba", works=">=0.61,<0.69")

_typed_dict = NUMBA.private(numba.typed, "Dict")
numba.typed.Dict = dict
try:
    with FFCV.modules():
        import ffcv.fields
        import ffcv.fields.rgb_image
        import ffcv.libffcv
        import ffcv.loader.epoch_iterator
        import ffcv.memory_allocator
        import ffcv.pipeline.compiler
        import ffcv.pipeline.operation
        import ffcv.reader
        import ffcv.transforms
        import ffcv.writer
finally:
    numba.typed.Dict = _typed_dict
with NUMBA.modules():
    import numba.core.cgutils

# Public names, from here because this module has to come first.
Loader = ffcv.loader.Loader
IntField = ffcv.fields.IntField
Operation = ffcv.pipeline.operation.Operation
RGBImageField = ffcv.fields.RGBImageField
Reader = ffcv.reader.Reader
SimpleRGBImageDecoder = ffcv.fields.rgb_image.SimpleRGBImageDecoder
ToTensor, ToTorchImage = ffcv.transforms.ToTensor, ffcv.transforms.ToTorchImage

# How a sample says whether its image is raw or JPEG: our writer says it, our decoders ask.
IMAGE_MODES = FFCV.private(ffcv.fields.rgb_image, "IMAGE_MODES")

# What FFCV's cropping decoders share. Theirs draw from Numba's generator, which no seed of ours fixes
# (https://github.com/libffcv/ffcv/pull/89); our subclasses draw themselves.
ResizedCropRGBImageDecoder = FFCV.private(ffcv.fields.rgb_image, "ResizedCropRGBImageDecoder")

# FFCV's C functions, called without its wrappers: these take literals, which make Numba 0.68 lose the code compiled
# for a second loader (KeyError).
ctypes_imdecode = FFCV.private(ffcv.libffcv, "ctypes_imdecode")
ctypes_resize = FFCV.private(ffcv.libffcv, "ctypes_resize")

# Where FFCV compiles a pipeline: replaced below. `get_iterator` is the range of a decoder's parallel loop.
Compiler = FFCV.private(ffcv.pipeline.compiler, "Compiler")
FFCV.private(Compiler, "compile")
FFCV.private(Compiler, "set_num_threads")
get_iterator: Callable[[], Any] = FFCV.private(Compiler, "get_iterator")

# The steps of FFCV's writer, taken one by one by `write_samples`.
_handle_sample = FFCV.private(ffcv.writer, "handle_sample")
_MemoryAllocator = FFCV.private(ffcv.memory_allocator, "MemoryAllocator")
_Writer = ffcv.writer.DatasetWriter
FFCV.check_used(
    FFCV.private(_Writer, "prepare"), "metadata_sm", "metadata_type", "num_samples", "data_region_start", "page_size"
)
FFCV.check_used(FFCV.private(_Writer, "finalize"), "metadata_sm")
FFCV.check_used(_MemoryAllocator.__enter__, "fp")
FFCV.check_used(_MemoryAllocator.__init__, "allocations")

# FFCV's reading thread, one an epoch: `Epoch` below.
_EpochIterator = FFCV.private(ffcv.loader.epoch_iterator, "EpochIterator")
FFCV.private(_EpochIterator, "run_pipeline")
FFCV.private(_EpochIterator, "close")
FFCV.check_used(_EpochIterator.__init__, "output_queue", "closed")

# The LLVM type of an address, for `pointer`.
_voidptr_t = NUMBA.private(numba.core.cgutils, "voidptr_t")

_compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function of a pipeline as one that Python runs as it is."""
    function.plain = True  # type: ignore[attr-defined]
    return function


def _compile_once(cls: Any, function: Any, _signature: Any = None) -> Callable[..., Any]:
    """Compile like FFCV's `Compiler.compile`, once for a function with what it closes over; types are its calls'."""
    if getattr(function, "plain", False):
        as_it_is: Callable[..., Any] = function
        return as_it_is
    parallel = getattr(function, "is_parallel", False) and cls.num_threads > 1
    enclosed = tuple(_identity(cell.cell_contents) for cell in function.__closure__ or ())
    key = (function.__module__, function.__code__, enclosed, parallel)
    if key not in _compiled:
        options = {"fastmath": True, "nogil": True, "error_model": "numpy", "parallel": parallel}
        _compiled[key] = numba.njit(**options)(function)  # which keeps what the key names by its place in memory
    return _compiled[key]


def _identity(value: Any) -> Any:
    return (type(value), value) if isinstance(value, (int, float, str, np.generic)) else id(value)


def _set_num_threads(cls: Any, count: int) -> None:
    """Set the threads of what is compiled, where anything is; the trainer sets torch's."""
    cls.num_threads = count
    if _compiled:
        numba.set_num_threads(count)


Compiler.compile = classmethod(_compile_once)
Compiler.set_num_threads = classmethod(_set_num_threads)


@intrinsic
def pointer(_context: Any, _address: Any) -> Any:
    """Return an address as the pointer that `numba.carray` takes; Numba has no cast for it.

    https://github.com/numba/numba/issues/9064
    """

    def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], _voidptr_t)

    return numba.types.voidptr(numba.types.uintp), code


def write_samples(
    path: Path, fields: dict[str, Any], *, count: int, samples: Iterable[tuple[Any, ...]], page_size: int
) -> None:
    """Write samples, tuples of the fields' values, in order into a `.beton` file; the same bytes every time.

    It writes in this process: FFCV's writer waits for ever for a worker process that died (of a full disk, say).

    Args:
        path: of the file.
        fields: FFCV's, by name.
        count: of the samples.
        samples: in order.
        page_size: a power of two that holds the largest sample. FFCV's writer takes none under 2 MiB, its readers any.

    Raises:
        OSError: when the file can't be written.
    """
    writer = _Writer(str(path), fields, num_workers=1)
    writer.num_samples, writer.page_size = count, page_size
    writer.prepare()
    size = writer.metadata_sm.size
    writer.metadata_sm.close()
    writer.metadata_sm.unlink()
    writer.metadata_sm = SimpleNamespace(buf=bytearray(size))  # shared memory is for FFCV's worker processes
    metadata = np.frombuffer(writer.metadata_sm.buf, dtype=writer.metadata_type, count=count)
    allocator = _MemoryAllocator(str(path), writer.data_region_start, writer.page_size)
    with allocator:
        allocator.fp.close()
        allocator.fp = open(path, "ab")  # noqa: SIM115  (buffered: FFCV's raw file drops what doesn't fit)
        for index, sample in enumerate(samples):
            _handle_sample(sample, index, metadata.dtype.names, metadata, allocator, fields)
    writer.finalize(allocator.allocations)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Epoch(_EpochIterator):  # type: ignore[misc, valid-type]
    """FFCV's iterator over one order of samples, ended by `failure` where FFCV's leaves its reader waiting for ever.

    It has to be closed: FFCV's own stops only when it is collected, which a running thread never is
    (https://github.com/libffcv/ffcv/issues/345).
    """

    def __init__(self, loader: Any, order: np.ndarray) -> None:
        self.failure: BaseException | None = None
        self.closed: bool = False
        super().__init__(loader, order.astype(np.uint64))

    def run(self) -> None:
        """Read and decode, in this thread."""
        try:
            super().run()
        except BaseException as error:
            self.failure = error
            self.output_queue.put(None)

    def close(self) -> None:
        """Stop the thread and wait for its end."""
        if not self.closed:
            super().close()
            self.closed = True
            with contextlib.suppress(RuntimeError):  # called by the thread itself
                self.join()
