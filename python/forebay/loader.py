"""PyTorch's `DataLoader` for NumPy: the same arguments and semantics, arrays out, no torch."""

import contextlib
import multiprocessing
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.context import BaseContext
from typing import Any, NoReturn, Self

from forebay import _seeds
from forebay._arguments import check, check_multiprocessing_context, warn_of_too_many_workers
from forebay._fallback import engine_is_missing, say_once
from forebay._seeds import GeneratorLike
from forebay.collate import STOCK_COLLATE_FN_MAP, default_collate, default_collate_fn_map
from forebay.dataset import WorkerInfo, _set_worker_info
from forebay.errors import ConfigError, WorkerFailed

try:
    from forebay._front import make_front
    from forebay._journey import Journey, Options, SampleError
    from forebay._worker import Assignment, Prepared
except ImportError:  # no engine on this system: batches are made in this process (see `_fallback`)
    pass

__all__ = ["DataLoader"]

_FROZEN = frozenset({"batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"})
"""What cannot change after construction, because other attributes were derived from it."""


class DataLoader:
    """Batches of a dataset, made by worker processes and handed over without copies.

    The arguments and their meaning are those of `torch.utils.data.DataLoader`. Batches are of NumPy arrays, which are
    yours, writable, for as long as you keep them.

    Args:
        dataset: anything with `__getitem__`, and `__len__` for the default samplers; or with `__getitems__`.
        batch_size: samples per batch; None hands samples out one by one.
        shuffle: whether every epoch has a new random order.
        sampler: gives the indices, in order. Excludes `shuffle`.
        batch_sampler: gives lists of indices. Excludes `batch_size`, `shuffle`, `sampler` and `drop_last`.
        num_workers: worker processes; 0 makes batches in this process.
        collate_fn: makes a batch of a list of samples; `forebay.default_collate` by default.
        drop_last: whether a last batch that is short is left out.
        timeout: seconds to wait for a batch; 0 for ever.
        worker_init_fn: called in each worker with its number, after seeding.
        multiprocessing_context: a start method by name or as a context; None for multiprocessing's own default.
        generator: gives the order and the workers' seeds: a `numpy.random.Generator` or a seed; None for NumPy's global
            stream, which `numpy.random.seed` sets.
        prefetch_factor: batches made ahead by each worker, 2 by default.
        persistent_workers: whether workers, and their copies of the dataset, live from epoch to epoch.
        in_order: whether batches come in the sampler's order even if a later one is done first.
        memory_budget: shared memory, in bytes, that batches may take; None for half of the memory the process may use.
            When batches that you keep have used it up, further ones are copied to ordinary memory, with a warning.

    Raises:
        ValueError: for a value out of range, and for arguments that exclude each other.
        TypeError: for an argument of the wrong type.

    Example:
        >>> with DataLoader(range(4), batch_size=2, num_workers=1) as loader:
        ...     [batch.tolist() for batch in loader]
        [[0, 1], [2, 3]]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Sequence[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], object] | None = None,
        multiprocessing_context: BaseContext | str | None = None,
        generator: GeneratorLike = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        in_order: bool = True,
        memory_budget: int | None = None,
    ) -> None:
        checked = check(
            dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            sampler=sampler,
            batch_sampler=batch_sampler,
            num_workers=num_workers,
            collate_fn=collate_fn,
            drop_last=drop_last,
            timeout=timeout,
            worker_init_fn=worker_init_fn,
            multiprocessing_context=multiprocessing_context,
            generator=generator,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
            in_order=in_order,
        )
        self.dataset = checked.dataset
        self.batch_size = checked.batch_size
        self.sampler = checked.sampler
        self.batch_sampler = checked.batch_sampler
        self.num_workers = checked.num_workers
        self.collate_fn = checked.collate_fn
        self.drop_last = checked.drop_last
        self.timeout = checked.timeout
        self.worker_init_fn = checked.worker_init_fn
        self._context = checked.multiprocessing_context
        self.generator = checked.generator
        self.prefetch_factor = checked.prefetch_factor
        self.persistent_workers = checked.persistent_workers
        self.in_order = checked.in_order
        self.memory_budget = checked_memory_budget(memory_budget)
        self._live: weakref.WeakSet[_WorkersIterator] = weakref.WeakSet()
        self._iterator: _WorkersIterator | None = None
        self._built = True

    @property
    def multiprocessing_context(self) -> BaseContext | None:
        """How workers are started; None for multiprocessing's own default."""
        return self._context

    @multiprocessing_context.setter
    def multiprocessing_context(self, context: BaseContext | str | None) -> None:
        self._context = check_multiprocessing_context(context, self.num_workers)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FROZEN and getattr(self, "_built", False):
            raise ValueError(f"{name} attribute should not be set after {type(self).__name__} is initialized")
        super().__setattr__(name, value)

    @property
    def _index_sampler(self) -> Any:
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return len(self._index_sampler)

    def __iter__(self) -> "Iterator[Any]":
        """Begins an epoch."""
        if self.num_workers == 0:
            return _InlineIterator(self)
        if engine_is_missing():
            say_once("forebay has no engine on this operating system: batches are made without workers", stacklevel=2)
            return _InlineIterator(self)
        if self._iterator is not None and not self._iterator.ended:
            self._iterator.begin(iter(self._index_sampler))
            return self._iterator
        warn_of_too_many_workers(self.num_workers, stacklevel=2)
        iterator = _WorkersIterator(self)
        self._live.add(iterator)
        if self.persistent_workers:
            self._iterator = iterator
        return iterator

    def close(self) -> None:
        """Ends the workers of all iterators of this loader. A later `iter()` starts new ones."""
        for iterator in list(self._live):
            iterator.close()
        self._iterator = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """A loader can be pickled and copied; its workers stay here."""
        return {**self.__dict__, "_live": weakref.WeakSet(), "_iterator": None}


def checked_memory_budget(memory_budget: int | None) -> int | None:
    """The value of a `memory_budget` argument.

    Raises:
        ConfigError: when it is not positive.
    """
    if memory_budget is not None and memory_budget <= 0:
        raise ConfigError(
            f"memory_budget option should be a positive number of bytes or None, but got memory_budget={memory_budget}"
        )
    return memory_budget


class _InlineIterator:
    """An epoch made in this process."""

    def __init__(self, loader: DataLoader) -> None:
        if loader.timeout:
            raise ConfigError(f"timeout={loader.timeout} needs workers: without them nobody can stop a slow dataset")
        self._dataset = loader.dataset
        self._collate_fn = loader.collate_fn
        self._auto_collation = loader.batch_sampler is not None
        self._fetch_all = getattr(loader.dataset, "__getitems__", None)
        self._indices = iter(loader._index_sampler)
        self._length = loader._index_sampler
        # Drawn although nobody needs it: the order does not depend on whether there are workers.
        _seeds.draw_base_seed(loader.generator)

    def __iter__(self) -> Self:
        return self

    def __len__(self) -> int:
        return len(self._length)

    def __next__(self) -> Any:
        indices = next(self._indices)
        if not self._auto_collation:
            return self._collate_fn(self._dataset[indices])
        if self._fetch_all:
            return self._collate_fn(self._fetch_all(indices))
        return self._collate_fn([self._dataset[index] for index in indices])


class _WorkersIterator:
    """An epoch (or, with persistent workers, all epochs) of a loader."""

    def __init__(self, loader: DataLoader) -> None:
        self._length = loader._index_sampler
        indices = iter(loader._index_sampler)
        assignment = Assignment(
            worker_id=0,
            num_workers=loader.num_workers,
            base_seed=_seeds.draw_base_seed(loader.generator),
            dataset=loader.dataset,
            collate_fn=loader.collate_fn,
            auto_collation=loader.batch_sampler is not None,
            worker_init_fn=loader.worker_init_fn,
            prepare=_prepare,
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
        self._journey.begin(indices)

    @property
    def ended(self) -> bool:
        return self._journey.ended

    def begin(self, indices: Iterator[Any]) -> None:
        self._journey.begin(indices)

    def __iter__(self) -> Self:
        return self

    def __len__(self) -> int:
        return len(self._length)

    def __next__(self) -> Any:
        try:
            return self._journey.next()
        except SampleError as error:
            _reraise(error)

    def close(self) -> None:
        """Ends the workers."""
        journey = getattr(self, "_journey", None)
        if journey is not None:
            journey.close()

    def __del__(self) -> None:
        # Half-built iterators, forked children and the end of the interpreter come here too.
        with contextlib.suppress(Exception):
            self.close()


class _WorkerTraceback(Exception):
    """A traceback of another process, shown as the cause of the exception that came from there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


def _reraise(error: "SampleError") -> NoReturn:
    """Raises a worker's exception itself, or, where it cannot travel, its text."""
    report = error.report
    original = report.exception()
    if original is None:
        original = WorkerFailed(f"worker {error.worker} raised {report.type_name}, which cannot be pickled")
    original.__cause__ = _WorkerTraceback(report.text)
    original.add_note(error.note())
    raise original


def _prepare(assignment: "Assignment") -> "Prepared":
    """Makes a process a worker: seeds, and worker info."""
    _seeds.seed_worker(assignment.base_seed, assignment.worker_id)
    seed = _seeds.worker_seed(assignment.base_seed, assignment.worker_id)
    info = WorkerInfo(assignment.worker_id, assignment.num_workers, seed, assignment.dataset)
    _set_worker_info(info)
    return Prepared(make_front(), lambda: _collates_as_stock(assignment))


def _collates_as_stock(assignment: "Assignment") -> bool:
    """Whether the engine may collate: our own function, with the registry as we made it."""
    return assignment.collate_fn is default_collate and default_collate_fn_map == STOCK_COLLATE_FN_MAP
