"""The order of an epoch's samples: what it was drawn from, and how to go on in the middle of it.

An order is not kept: it is made again, from the states that random generators had just before the sampler was first
asked. Of torch's own samplers a rest is had without the part before it.
"""

import random
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.dataloader import _InfiniteConstantSampler

from forebay._seeding import members

__all__ = ["Order", "Streams", "own_generators", "record", "rest_of"]

_DRAWN_AT_ONCE = 32
"""How many numbers torch's sampler with replacement draws at a time."""

_DROPPED_AT_ONCE = 256 * _DRAWN_AT_ONCE
"""Few enough that the memory for them is used again and stays in the processor's cache."""

_SEEDS_ITSELF = ("accelerate.data_loader", "SeedableRandomSampler")
"""A sampler that makes its generator when it is iterated over, and seeds it anew for every epoch."""


@dataclass(frozen=True, slots=True)
class Streams:
    """States of the global random streams.

    Attributes:
        torch: torch's, for the CPU.
        python: of `random`; None where only torch's matters.
        numpy: of `numpy.random`; None where only torch's matters.
    """

    torch: torch.Tensor
    python: Any = None
    numpy: Any = None

    @classmethod
    def now(cls) -> "Streams":
        """All of them, as they are."""
        return cls(torch.get_rng_state(), random.getstate(), np.random.get_state())

    def put(self) -> None:
        """Sets the global streams to these states."""
        torch.set_rng_state(self.torch)
        if self.python is not None:
            random.setstate(self.python)
        if self.numpy is not None:
            np.random.set_state(self.numpy)

    @contextmanager
    def lent(self) -> Generator[None]:
        """The global streams have these states for a while; nobody outside notices."""
        before = Streams.now()
        self.put()
        try:
            yield
        finally:
            before.put()


@dataclass(frozen=True, slots=True)
class Order:
    """What one epoch's order was drawn from.

    Attributes:
        generators: states of the loader's and the samplers' own generators (see `own_generators`).
        seed: what `RandomSampler` drew from torch's global stream, to draw from.
        streams: the global streams, if the order was drawn from those.
        epochs: of each of the samplers, its `epoch`, or None.
        seeded_between: whether `iter(sampler)` was called before the loader drew its base seed, and `next` after that.
    """

    generators: Sequence[torch.Tensor] = ()
    seed: int | None = None
    streams: Streams | None = None
    epochs: Sequence[int | None] = ()
    seeded_between: bool = False


def own_generators(loader: Any) -> list[torch.Generator]:
    """The generators that belong to a loader and its samplers, each once."""
    candidates = [loader.generator, *map(_generator_of, members(loader._index_sampler))]
    found: list[torch.Generator] = []
    for each in candidates:
        if isinstance(each, torch.Generator) and not any(each is other for other in found):
            found.append(each)
    return found


def _generator_of(sampler: Any) -> Any:
    seeds_itself = any((kind.__module__, kind.__qualname__) == _SEEDS_ITSELF for kind in type(sampler).__mro__)
    return None if seeds_itself else getattr(sampler, "generator", None)


def is_standard(sampler: Any) -> bool:
    """Whether the rest of what a sampler gives can be had without what comes before it."""
    if type(sampler) is BatchSampler:
        return is_standard(sampler.sampler)
    return type(sampler) in _RESTS


def draws_when_advanced(sampler: Any) -> bool:
    """Whether nothing is drawn before the first `next`, not even by the samplers within."""
    return type(sampler) is BatchSampler or is_standard(sampler)


def record(loader: Any, *, stateful: bool, seeded_between: bool = False) -> Order:
    """Notes what the order that is about to be drawn will be drawn from.

    Args:
        loader: whose order it is.
        stateful: whether its samplers restore their order themselves.
        seeded_between: as in `Order`.
    """
    samplers = members(loader._index_sampler)
    seed, streams = None, None
    if is_standard(samplers[0]):
        last = samplers[-1]
        if type(last) is RandomSampler and last.generator is None:
            # From a copy: the sampler itself is about to draw it.
            ahead = torch.default_generator.clone_state()
            seed = int(torch.empty((), dtype=torch.int64).random_(generator=ahead).item())
        elif type(last) in (SubsetRandomSampler, WeightedRandomSampler) and last.generator is None:
            streams = Streams(torch.get_rng_state())
    elif not stateful:
        streams = Streams.now()
    return Order(
        generators=[generator.get_state() for generator in own_generators(loader)],
        seed=seed,
        streams=streams,
        epochs=[_epoch_of(each) for each in samplers],
        seeded_between=seeded_between,
    )


def _epoch_of(sampler: Any) -> int | None:
    epoch = getattr(sampler, "epoch", None)
    return epoch if type(epoch) is int else None


def set_epochs(loader: Any, epochs: Sequence[int | None]) -> None:
    """Sets the samplers to the epochs that they were in."""
    for sampler, epoch in zip(members(loader._index_sampler), epochs, strict=False):
        if epoch is not None and _epoch_of(sampler) != epoch:
            set_epoch: Callable[[int], object] | None = getattr(sampler, "set_epoch", None)
            if callable(set_epoch):
                set_epoch(epoch)
            else:
                sampler.epoch = epoch


def rest_of(loader: Any, position: int, order: Order) -> Iterator[Any]:
    """What the loader's sampler gives from its `position`-th result on, if it draws as it did for `order`.

    The loader's own generators must have the states that `order` has.
    """
    sampler = loader._index_sampler
    if draws_when_advanced(sampler):
        return _rest(sampler, position, order)

    def draw_base_seed() -> None:
        if order.seeded_between:
            torch.empty((), dtype=torch.int64).random_(generator=loader.generator)

    return _replayed(sampler, position, order, draw_base_seed)


def _rest(sampler: Any, skip: int, order: Order) -> Iterator[Any]:
    if type(sampler) is BatchSampler:
        inner = _rest(sampler.sampler, skip * sampler.batch_size, order)
        return iter(BatchSampler(inner, sampler.batch_size, sampler.drop_last))
    of_kind = _RESTS.get(type(sampler))
    return _replayed(sampler, skip, order) if of_kind is None else of_kind(sampler, skip, order)


def _replayed(sampler: Any, skip: int, order: Order, between: Callable[[], None] = lambda: None) -> Iterator[Any]:
    """Asks a sampler again for all that comes before.

    Orders are drawn at the beginning: so the first result that is wanted is asked for with the same streams, too.
    """
    with nullcontext() if order.streams is None else order.streams.lent():
        results = iter(sampler)
        between()
        deque(islice(results, skip), maxlen=0)
        first = list(islice(results, 1))
    return chain(first, results)


def _drawn_from(sampler: Any, order: Order) -> torch.Generator:
    """What gives the numbers that the sampler drew."""
    if sampler.generator is not None:
        own: torch.Generator = sampler.generator
        return own
    generator = torch.Generator()
    if order.seed is not None:
        generator.manual_seed(order.seed)
    elif order.streams is not None:
        generator.set_state(order.streams.torch)
    return generator


def _of_sequential(sampler: SequentialSampler, skip: int, _order: Order) -> Iterator[int]:
    return iter(range(min(skip, len(sampler.data_source)), len(sampler.data_source)))


def _of_list(sampler: Any, skip: int, _order: Order) -> Iterator[Any]:
    """Of what is iterated over by a position that can be set."""
    results: Any = iter(sampler)
    results.__setstate__(skip)
    return iter(results)


def _of_random(sampler: RandomSampler, skip: int, order: Order) -> Iterator[int]:
    """Draws as torch does, also what nobody takes: the generator ends where it would."""
    generator = _drawn_from(sampler, order)
    if sampler.replacement:
        return _of_random_with_replacement(sampler.num_samples, len(sampler.data_source), skip, generator)
    from forebay.torch._permutation import random_indices  # needs the engine, which not every system has

    return random_indices(sampler, skip, generator)


def _of_random_with_replacement(samples: int, count: int, skip: int, generator: torch.Generator) -> Iterator[int]:
    def draw(size: int) -> torch.Tensor:
        return torch.randint(high=count, size=(size,), dtype=torch.int64, generator=generator)

    skip = min(skip, samples)
    dropped = skip - skip % _DRAWN_AT_ONCE
    for start in range(0, dropped, _DROPPED_AT_ONCE):
        draw(min(_DROPPED_AT_ONCE, dropped - start))
    for start in range(dropped, samples, _DRAWN_AT_ONCE):
        numbers = draw(min(_DRAWN_AT_ONCE, samples - start))
        yield from numbers[max(0, skip - start) :].tolist()


def _of_subset(sampler: SubsetRandomSampler, skip: int, order: Order) -> Iterator[Any]:
    permutation = torch.randperm(len(sampler.indices), generator=_drawn_from(sampler, order))
    for place in permutation[skip:].tolist():
        yield sampler.indices[place]


def _of_weighted(sampler: WeightedRandomSampler, skip: int, order: Order) -> Iterator[int]:
    drawn = torch.multinomial(
        sampler.weights, sampler.num_samples, sampler.replacement, generator=_drawn_from(sampler, order)
    )
    yield from drawn[skip:].tolist()


def _of_nothing(_sampler: Any, _skip: int, _order: Order) -> Iterator[None]:
    """Places for the samples of a stream."""
    return iter(_InfiniteConstantSampler())


_Rest: TypeAlias = Callable[[Any, int, Order], Iterator[Any]]

_RESTS: dict[type, _Rest] = {
    SequentialSampler: _of_sequential,
    RandomSampler: _of_random,
    SubsetRandomSampler: _of_subset,
    WeightedRandomSampler: _of_weighted,
    DistributedSampler: _of_list,
    list: _of_list,
    tuple: _of_list,
    range: _of_list,
    _InfiniteConstantSampler: _of_nothing,
}
"""Exact classes: a subclass may do anything."""
