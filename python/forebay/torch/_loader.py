"""PyTorch's `DataLoader`, with batches made and moved by Forebay's engine."""

import contextlib
import multiprocessing
import multiprocessing.process
import weakref
from collections.abc import Callable, Iterable
from multiprocessing.context import BaseContext
from typing import Any, Self, TypeVar

import torch
import torch.utils.data
from torch._utils import ExceptionWrapper
from torch.utils.data.dataloader import _BaseDataLoaderIter, _DatasetKind, _MultiProcessingDataLoaderIter
from torch.utils.data.datapipes.datapipe import MapDataPipe

from forebay._fallback import engine_is_missing, say_once
from forebay.errors import ConfigError

try:
    from forebay._journey import Journey, Options, SampleError
    from forebay._worker import Assignment
    from forebay.torch._front import make_front, prepare
except ImportError:  # no engine on this system: torch's own iterators serve (see `_fallback`)
    pass

__all__ = ["DataLoader"]

_OLDEST_TORCH = (2, 10)
_FIRST_UNTESTED_TORCH = (2, 16)

_T_co = TypeVar("_T_co", covariant=True)


class DataLoader(torch.utils.data.DataLoader[_T_co]):
    """`torch.utils.data.DataLoader`: the same arguments, the same batches in the same order, handed over without copies.

    With workers, batches travel in reused shared memory: a worker collates samples straight into it, and the tensors you
    get stand on it. They are yours, writable, for as long as you keep them.

    Args:
        dataset: as in torch, and so are all arguments up to `in_order`.
        memory_budget: shared memory, in bytes, that batches may take; None for half of the memory the process may use.
            When batches that you keep have used it up, further ones are copied to ordinary memory, with a warning.

    Example:
        >>> with DataLoader(range(4), batch_size=2, num_workers=1) as loader:
        ...     [batch.tolist() for batch in loader]
        [[0, 1], [2, 3]]
    """

    def __init__(
        self,
        dataset: torch.utils.data.Dataset[_T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[list[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: BaseContext | str | None = None,
        generator: torch.Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        memory_budget: int | None = None,
    ) -> None:
        if memory_budget is not None and memory_budget <= 0:
            raise ConfigError(
                f"memory_budget option should be a positive number of bytes or None, but got memory_budget={memory_budget}"
            )
        if num_workers > 0 and prefetch_factor == 0:
            raise ConfigError("prefetch_factor option should be positive, but got prefetch_factor=0")
        self.memory_budget = memory_budget
        self._live: weakref.WeakSet[_Iterator] = weakref.WeakSet()
        super().__init__(
            dataset,
            batch_size,
            shuffle,
            sampler,
            batch_sampler,
            num_workers,
            collate_fn,
            pin_memory,
            drop_last,
            timeout,
            worker_init_fn,
            multiprocessing_context,
            generator,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
            pin_memory_device=pin_memory_device,
            in_order=in_order,
        )

    def __iter__(self) -> Any:
        """Begins an epoch. Persistent workers that were closed, or of which one died, are replaced by new ones."""
        if isinstance(self._iterator, _Iterator) and self._iterator._journey.ended:
            self._iterator = None
        return super().__iter__()

    def _get_iterator(self) -> _BaseDataLoaderIter:
        if self.num_workers == 0:
            return super()._get_iterator()
        reason = _not_served(self)
        if reason is not None:
            say_once(f"forebay.torch.DataLoader does not serve {reason} yet: torch's own iterator does", stacklevel=4)
            return super()._get_iterator()
        self.check_worker_number_rationality()
        iterator = _Iterator(self)
        self._live.add(iterator)
        return iterator

    def close(self) -> None:
        """Ends the workers of all iterators of this loader. A later `iter()` starts new ones."""
        for iterator in list(self._live):
            iterator._shutdown_workers()
        self._iterator = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """A loader can be pickled and copied before it has workers, as in torch; live iterators stay here."""
        return {**self.__dict__, "_live": weakref.WeakSet()}


def _not_served(loader: DataLoader[Any]) -> str | None:
    """What about this loader the engine cannot do yet, or None."""
    if engine_is_missing():
        return "this operating system"
    if loader._dataset_kind != _DatasetKind.Map:
        return "iterable datasets"
    if isinstance(loader.dataset, MapDataPipe):
        return "datapipes"
    if loader.pin_memory and torch.accelerator.is_available():
        return "pin_memory"
    if not _starts_processes(loader.multiprocessing_context):
        return f"the multiprocessing context {loader.multiprocessing_context!r}"
    if not _OLDEST_TORCH <= _version(torch.__version__) < _FIRST_UNTESTED_TORCH:
        return f"torch {torch.__version__}"
    return None


def _starts_processes(context: BaseContext | None) -> bool:
    """Whether a context is of the kind that starts processes: some libraries pass one whose processes are threads."""
    kind = multiprocessing.Process if context is None else getattr(context, "Process", None)
    return isinstance(kind, type) and issubclass(kind, multiprocessing.process.BaseProcess)


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


class _Iterator(_MultiProcessingDataLoaderIter):
    """An epoch (or, with persistent workers, all epochs) of a loader. An instance of torch's class, because libraries ask."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        # Everything of torch's multi-process iterator but its workers and queues.
        _BaseDataLoaderIter.__init__(self, loader)
        self._prefetch_factor = loader.prefetch_factor
        self._in_order = loader.in_order
        self._pin_memory_thread = None
        assignment = Assignment(
            worker_id=0,
            num_workers=loader.num_workers,
            base_seed=int(self._base_seed),
            dataset=loader.dataset,
            collate_fn=loader.collate_fn,
            auto_collation=self._auto_collation,
            worker_init_fn=loader.worker_init_fn,
            prepare=prepare,
        )
        options = Options(
            prefetch_factor=loader.prefetch_factor or 2,
            in_order=loader.in_order,
            timeout_s=loader.timeout,
            persistent=loader.persistent_workers,
            memory_budget_bytes=loader.memory_budget,
        )
        context = loader.multiprocessing_context or multiprocessing.get_context()
        self._journey = Journey(make_front(), context, assignment, options)
        self._workers = self._journey.processes
        self._reset(loader, first_iter=True)

    def _reset(self, loader: torch.utils.data.DataLoader[Any], first_iter: bool = False) -> None:
        _BaseDataLoaderIter._reset(self, loader, first_iter)
        self._journey.begin(self._sampler_iter)

    def __next__(self) -> Any:
        if torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
            return super().__next__()
        batch = self._next_data()
        self._num_yielded += 1
        return batch

    def _next_data(self) -> Any:
        try:
            return self._journey.next()
        except SampleError as error:
            _reraise(error)

    def _shutdown_workers(self) -> None:
        journey = getattr(self, "_journey", None)
        if journey is not None:
            journey.close()

    def __del__(self) -> None:
        # Half-built iterators, forked children and the end of the interpreter come here too.
        with contextlib.suppress(Exception):
            self._shutdown_workers()


def _reraise(error: "SampleError") -> None:
    """Raises what torch raises for a worker's exception: its type and text, with the original as the cause."""
    report = error.report
    wrapper = ExceptionWrapper.__new__(ExceptionWrapper)
    wrapper.exc_type = report.exception_type() or RuntimeError
    wrapper.exc_msg = report.text
    wrapper.where = f"in DataLoader worker process {error.worker}"
    try:
        wrapper.reraise()
    except BaseException as raised:
        raised.__cause__ = report.exception()
        raised.__suppress_context__ = True
        raised.add_note(error.note())
        raise
