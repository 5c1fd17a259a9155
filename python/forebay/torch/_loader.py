"""PyTorch's `DataLoader`, with batches made and moved by Forebay's engine."""

import copy
import weakref
from collections.abc import Callable, Iterable, Sized
from contextlib import nullcontext
from multiprocessing.context import BaseContext
from typing import Any, Self, TypeVar, cast

import torch
import torch.utils.data
from torch.utils.data.dataloader import _BaseDataLoaderIter

from forebay._option_types import check_option_types, checked_memory_budget
from forebay._resume import resume_in
from forebay._seeding import Seeding, checked_seeding
from forebay._share import Uneven
from forebay.errors import ConfigError
from forebay.sampler import ShuffleSampler
from forebay.torch._bookmark import Bookmark, state_of
from forebay.torch._serving import iterator_of
from forebay.torch._standing_in import StandIn
from forebay.torch._state import check_no_resume, loaded
from forebay.torch._stock import StockDataLoader, get_stock_iterator

__all__ = ["DataLoader"]

_T_co = TypeVar("_T_co", covariant=True)

_OF_THE_SEED = frozenset({"seed", "rank", "world", "uneven"})
"""What cannot change after construction. Without a seed these names are a subclass's own."""


class _SetEpoch:
    """The method `set_epoch` of a loader with a seed. Others have none, as torch's have none: libraries look for it.

    No property, so that a program can put a method of its own in its place.
    """

    def __get__(self, loader: Any, _kind: type) -> Callable[[int], None]:
        if loader is None or loader._seeding is None:  # asked of the class, or of a loader without a seed
            raise AttributeError(
                "a loader without a seed has no set_epoch: pass seed=..., or call set_epoch of a DistributedSampler",
                name="set_epoch",
                obj=loader,
            )
        set_epoch: Callable[[int], None] = loader._set_epoch
        return set_epoch


class DataLoader(StockDataLoader[_T_co], metaclass=StandIn):
    """`torch.utils.data.DataLoader`: the same arguments, the same batches, handed over without copies.

    With workers, batches travel in reused shared memory: a worker collates samples straight into it, and the tensors
    you get stand on it. They are yours, writable, for as long as you keep them.

    Args:
        dataset: as in torch, and so are all arguments up to `in_order`.
        memory_budget: shared memory, in bytes, that batches may take; None for half of the memory the process may use.
            When batches that you keep have used it up, further ones are copied to ordinary memory, with a warning.
        seed: makes one stream of all: the order of an epoch is a function of the seed and the epoch's number, and every
            sample's randomness of these and its index, whatever the number of workers. Excludes `generator`. See
            docs/seed.md. None is PyTorch's behaviour, bit for bit.
        rank: with a seed, which part of every epoch is this process's; None for what torch.distributed or the
            environment variable RANK says, or else 0.
        world: of how many; None for what torch.distributed or WORLD_SIZE says, or else 1.
        uneven: what ranks do with samples that do not divide evenly: "keep" them all, so that some ranks have one more;
            "pad" with samples from the order's beginning, or "drop" what is left over, so that all have as many.

    Example:
        >>> with DataLoader(range(4), batch_size=2, num_workers=1) as loader:
        ...     [batch.tolist() for batch in loader]
        [[0, 1], [2, 3]]
    """

    # Without a `__setstate__` for what a copy lacks: wrappers that hand every missing name on to a loader, as
    # Accelerate's do, would be unpickled into the loader.
    _live: "weakref.WeakSet[Any] | None" = None
    """Iterators with workers."""
    _bookmark: Bookmark | None = None
    """Of the latest epoch."""
    _resume: Any = None
    """A state that was loaded, until the next `iter()`."""
    _seeding: Seeding | None = None
    """The loader's seed, if it has one."""
    _unserved: bool = False
    """Whether torch's own iterator was the latest."""

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
        seed: int | None = None,
        rank: int | None = None,
        world: int | None = None,
        uneven: Uneven = "keep",
    ) -> None:
        check_option_types(
            num_workers=num_workers,
            timeout=timeout,
            prefetch_factor=prefetch_factor,
            collate_fn=collate_fn,
            worker_init_fn=worker_init_fn,
        )
        _check_generator(generator)
        if DataLoader in type(self).__mro__:  # not so where a class was derived from torch's before `forebay.install`
            self.memory_budget = checked_memory_budget(memory_budget)
        seeding = checked_seeding(
            seed=seed,
            rank=rank,
            world=world,
            uneven=uneven,
            generator=generator,
            sampler=sampler,
            batch_sampler=batch_sampler,
            stream=isinstance(dataset, torch.utils.data.IterableDataset),
            prefetch_factor=prefetch_factor,
        )
        if seeding is not None:
            self._seeding = seeding
            self.seed, self.rank, self.world, self.uneven = seed, rank, world, uneven
            if shuffle and seeding.makes_order:
                sampler, shuffle = ShuffleSampler(cast("Sized", dataset), seed=seeding.seed), None
        StockDataLoader.__init__(
            self,
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
        if num_workers > 0 and prefetch_factor == 0:
            raise ConfigError(
                "prefetch_factor option should be positive, but got prefetch_factor=0: a worker without a batch to "
                "prepare would never deliver one"
            )

    def __setattr__(self, attr: str, val: Any) -> None:
        if attr in _OF_THE_SEED and _seeding_of(self) is not None and attr in vars(self):
            raise ValueError(f"{attr} attribute should not be set after {type(self).__name__} is initialized")
        StockDataLoader.__setattr__(self, attr, val)

    def __iter__(self) -> Any:
        """Begins an epoch. Persistent workers that were closed, or of which one died, are replaced by new ones.

        With a seed: if this raises, the next call begins the same epoch.
        """
        resumes = getattr(self, "_resume", None) is not None
        iterator = getattr(self, "_iterator", None)  # some delete the attribute, to end the workers
        if iterator is not None and (resumes or getattr(iterator, "ended", False)):
            self._iterator = None
        seeding = _seeding_of(self)
        with nullcontext() if seeding is None else seeding.beginning():
            return StockDataLoader.__iter__(self)

    def _get_iterator(self) -> _BaseDataLoaderIter:
        iterator = iterator_of(self)
        self._unserved = iterator is None
        if iterator is None:
            check_no_resume(self)
            return get_stock_iterator(self)
        self._resume = None
        if self.num_workers > 0 and DataLoader in type(self).__mro__:
            if self._live is None:
                self._live = weakref.WeakSet()
            self._live.add(iterator)
        return iterator

    def __len__(self) -> int:
        """The number of batches of an epoch; with a seed and several ranks, of this one."""
        if _seeding_of(self) is None or isinstance(self.dataset, torch.utils.data.IterableDataset):
            return StockDataLoader.__len__(self)
        from forebay.torch._seeded import length_of_epoch  # needs the engine, which not every system has

        return length_of_epoch(self)

    set_epoch = _SetEpoch()

    def _set_epoch(self, epoch: int) -> None:
        """Says which epoch the next `iter()` begins, from 0. Samplers and dataset learn it by their own `set_epoch`.

        Without it, every `iter()` is the next epoch.

        Example:
            >>> loader = DataLoader(range(6), batch_size=6, shuffle=True, seed=7)
            >>> first, second = next(iter(loader)), next(iter(loader))
            >>> loader.set_epoch(1)
            >>> bool((next(iter(loader)) == second).all())
            True
        """
        if self._seeding is not None:
            self._resume = resume_in(epoch, self._resume)
            self._seeding.announce(self, epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the latest epoch stands, after the batches that have been delivered: small, quick, fit for JSON.

        The loader that loads it delivers the rest of that epoch, in the same order. May be asked at any time; it starts
        no workers. See docs/state.md.

        Example:
            >>> loader = DataLoader(range(6), batch_size=2, shuffle=True)
            >>> epoch = iter(loader)
            >>> first = next(epoch).tolist()
            >>> state = loader.state_dict()
            >>> again = DataLoader(range(6), batch_size=2, shuffle=True)
            >>> again.load_state_dict(state)
            >>> [batch.tolist() for batch in again] == [batch.tolist() for batch in epoch]
            True
        """
        return state_of(self)

    def load_state_dict(self, state_dict: dict[str, Any], *, strict: bool = True) -> None:
        """Has the next `iter()`, and only that, go on where `state_dict` was taken. An empty one is ignored.

        Args:
            state_dict: as `state_dict` gave it.
            strict: False also takes the state of a loader with another seed, sampler or length of the dataset.

        Raises:
            StateError: the state is damaged, or of another kind of loader; the text says what differs.
        """
        if state_dict != {}:
            self._resume = loaded(self, state_dict, strict=strict)

    def close(self) -> None:
        """Ends the workers of all iterators of this loader. A later `iter()` starts new ones."""
        for iterator in list(self._live or ()):
            iterator.close()
        self._iterator = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """A loader can be pickled and copied before it has workers, as in torch; live iterators stay here."""
        state = {name: value for name, value in vars(self).items() if name not in ("_live", "_bookmark")}
        return state if self._seeding is None else {**state, "_seeding": copy.copy(self._seeding)}


def _seeding_of(loader: Any) -> Seeding | None:
    """The loader's seed. What was derived from torch's class before `forebay.install` has no place for one."""
    return getattr(loader, "_seeding", None)


def _check_generator(generator: Any) -> None:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            "generator option should be a torch.Generator or None, but got "
            f"generator={repr(generator)[:200]}; make one with torch.Generator().manual_seed(seed)"
        )
