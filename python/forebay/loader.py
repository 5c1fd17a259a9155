"""PyTorch's `DataLoader` for NumPy: the same arguments and semantics, arrays out, no torch."""

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, NoReturn, Self

from forebay._arguments import check, check_multiprocessing_context, warn_of_too_many_workers
from forebay._copies import refuse_to_be_pickled
from forebay._fallback import engine_is_missing, say_once
from forebay._gather import gather
from forebay._inline import InlineBench
from forebay._option_types import check_attributes, checked_memory_budget
from forebay._seeding import checked_seeding
from forebay._seeds import GeneratorLike
from forebay._share import Uneven
from forebay._state import Epoch, Resume, begin_epoch, length_of_epoch, loaded, set_epoch, state_of
from forebay._tally import StreamTally
from forebay.collate import is_stock
from forebay.dataset import is_stream
from forebay.errors import ConfigError

if TYPE_CHECKING:
    from forebay._iterator import WorkersIterator  # needs the engine, which not every system has

__all__ = ["DataLoader"]

_FROZEN = frozenset(
    {
        *("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"),
        *("seed", "rank", "world", "uneven"),
    }
)
"""What cannot change after construction, because other attributes were derived from it."""


class DataLoader:
    """Batches of a dataset, made by worker processes and handed over without copies.

    The arguments and their meaning are those of `torch.utils.data.DataLoader`. Batches are of NumPy arrays, which are
    yours, writable, for as long as you keep them.

    Args:
        dataset: anything with `__getitem__`, and `__len__` for the default samplers, or with `__getitems__`; or an
            `IterableDataset` (or anything else that can only be iterated), of which every worker reads its own copy.
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
        seed: makes one stream of all: the order of an epoch is a function of the seed and the epoch's number, and every
            sample's randomness of these and its index, whatever the number of workers. Excludes `generator`. See
            docs/seed.md.
        rank: with a seed, which part of every epoch is this process's; None for what torch.distributed or the
            environment variable RANK says, or else 0.
        world: of how many; None for what torch.distributed or WORLD_SIZE says, or else 1.
        uneven: what ranks do with samples that do not divide evenly: "keep" them all, so that some ranks have one more;
            "pad" with samples from the order's beginning, or "drop" what is left over, so that all have as many.

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
        seed: int | None = None,
        rank: int | None = None,
        world: int | None = None,
        uneven: Uneven = "keep",
    ) -> None:
        self._seeding = checked_seeding(
            seed=seed,
            rank=rank,
            world=world,
            uneven=uneven,
            generator=generator,
            sampler=sampler,
            batch_sampler=batch_sampler,
            stream=is_stream(dataset),
            prefetch_factor=prefetch_factor,
        )
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
            seed=None if self._seeding is None else self._seeding.seed,
        )
        self.seed, self.rank, self.world, self.uneven = seed, rank, world, uneven
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
        self._stream_length: int | None = None
        self._live: weakref.WeakSet[WorkersIterator] = weakref.WeakSet()
        self._iterator: WorkersIterator | None = None
        self._epoch: Epoch | None = None
        self._next_epoch = 0
        """Its number, without a seed."""
        self._resume: Resume | None = None
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
    def index_sampler(self) -> Any:
        """What gives the indices: the batch sampler, or without automatic batching the sampler."""
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    @property
    def stream(self) -> bool:
        """Whether the dataset is read by iteration, so that there are no indices."""
        return is_stream(self.dataset)

    def __len__(self) -> int:
        """The number of batches of an epoch; for an iterable dataset with a length, as if one worker read it."""
        if not self.stream:
            return length_of_epoch(self)
        length = self._stream_length = len(self.dataset)
        if self.batch_size is None:
            return length
        return length // self.batch_size if self.drop_last else -(-length // self.batch_size)

    def __iter__(self) -> "Iterator[Any]":
        """Begins an epoch. If that raises, the next call begins the same one."""
        resume = self._resume
        try:
            with nullcontext() if self._seeding is None else self._seeding.beginning():
                return self._begin()
        except BaseException:
            self._resume = resume
            raise

    def _begin(self) -> "Iterator[Any]":
        if self.num_workers == 0:
            return _InlineIterator(self, self._new_tally())
        if engine_is_missing():
            say_once(
                "forebay has no engine on this operating system: batches are made without workers; with num_workers=0 "
                "they are, too, and nothing warns"
            )
            return _InlineIterator(self, self._new_tally())
        running = self._iterator
        if running is not None and not running.ended and self._resume is None:
            running.begin(begin_epoch(self, with_new_workers=False), self._new_tally())
            return running
        check_attributes(self)
        warn_of_too_many_workers(self.num_workers, stacklevel=2)
        from forebay._iterator import WorkersIterator

        iterator = WorkersIterator(self, begin_epoch(self), self._new_tally())
        self._live.add(iterator)
        if self.persistent_workers:
            self._iterator = iterator
        return iterator

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next `iter()` begins, from 0. Samplers and dataset learn it by their `set_epoch`.

        With a seed, every `iter()` is the next epoch by itself.

        Raises:
            ConfigError: when it is no number of an epoch.

        Example:
            >>> loader = DataLoader(range(6), batch_size=6, shuffle=True, seed=7)
            >>> first, second = next(iter(loader)), next(iter(loader))
            >>> loader.set_epoch(1)
            >>> bool((next(iter(loader)) == second).all())
            True
        """
        set_epoch(self, epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the latest epoch stands, after the batches that have been delivered: small, quick, fit for JSON.

        The loader that loads it delivers the rest of that epoch. May be asked at any time; it starts no workers. See
        docs/state.md.

        Example:
            >>> loader = DataLoader(range(6), batch_size=2, shuffle=True, seed=7)
            >>> epoch = iter(loader)
            >>> first = next(epoch)
            >>> again = DataLoader(range(6), batch_size=2, shuffle=True, seed=7, num_workers=1)
            >>> again.load_state_dict(loader.state_dict())
            >>> [batch.tolist() for batch in again] == [batch.tolist() for batch in epoch]
            True
        """
        return state_of(self)

    def load_state_dict(self, state_dict: dict[str, Any], *, strict: bool = True) -> None:
        """Has the next `iter()`, and only that, go on where `state_dict` was taken. An empty one is ignored.

        Args:
            state_dict: as `state_dict` gave it, of any of this loader's kind.
            strict: False also takes a state of another seed, sampler or length of the dataset.

        Raises:
            StateError: the state is damaged, or of another kind of loader; the text says what differs.
        """
        if state_dict != {}:
            self._resume = loaded(self, state_dict, strict=strict)

    def _new_tally(self) -> StreamTally:
        return StreamTally(self.dataset, self._stream_length, self.num_workers)

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
        mine = {name: value for name, value in vars(self).items() if name != "_live"}
        return {**mine, "_iterator": None, "_epoch": None, "_seeding": copy.copy(self._seeding)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _live=weakref.WeakSet())


class _InlineIterator:
    """An epoch made in this process."""

    def __init__(self, loader: DataLoader, tally: StreamTally) -> None:
        if loader.timeout:
            raise ConfigError(
                f"timeout={loader.timeout} needs workers: without them nobody can stop a slow dataset; set num_workers "
                "to 1 or more, or timeout to 0"
            )
        self._epoch = begin_epoch(loader)
        self._bench = InlineBench(
            loader, self._epoch, stream=loader.stream, auto_collation=loader.batch_sampler is not None
        )
        self._dataset = loader.dataset
        self._collate_fn = loader.collate_fn
        self._gathers = loader.batch_sampler is not None
        self._tally = tally
        self._indices = self._epoch.batches()

    def __iter__(self) -> Self:
        return self

    def __len__(self) -> int:
        return len(self._epoch)

    def __getstate__(self) -> NoReturn:
        refuse_to_be_pickled()

    def __next__(self) -> Any:
        cursor = self._epoch.cursor
        try:
            indices = next(self._indices)
        except StopIteration:
            cursor.finished = True
            raise
        try:
            return self._made(indices.tolist() if self._epoch.gives_places else indices)
        except StopIteration:
            cursor.finished = True
            raise
        finally:
            cursor.position += 1  # one that is interrupted does not come again, as in torch

    def _made(self, indices: Any) -> Any:
        batch = gather(self._dataset, indices) if self._gathers and is_stock(self._collate_fn) else None
        if batch is None:
            batch = self._bench.make(indices)
            self._tally.count(stacklevel=3)
        return batch
