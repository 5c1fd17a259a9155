"""The indices of batches, drawn exactly as torch's samplers draw them, but no sooner than they are needed."""

from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from forebay._stateful import is_stateful
from forebay.torch._permutation import Places, generator_of, permuted, random_indices

__all__ = ["Places", "drawn_here", "places_of_batches"]

_STOCK = {kind: kind.__iter__ for kind in (BatchSampler, RandomSampler, SequentialSampler)}


def places_of_batches(sampler: Any) -> Iterator[Places] | None:
    """What a batch sampler is about to give, as arrays; None if that may be anything but batches of a permutation.

    A permutation is drawn when the first batch is asked for. The sampler itself must not be asked as well: random
    streams move as if it had been.

    Example:
        >>> list(places_of_batches(BatchSampler(SequentialSampler(range(5)), 2, False)))
        [array([0, 1]), array([2, 3]), array([4])]
    """
    if not _is_stock(sampler, BatchSampler):
        return None
    inner: Any = sampler.sampler
    if _is_stock(inner, SequentialSampler):
        return _in_sequence(inner, sampler.batch_size, drop_last=sampler.drop_last)
    if _is_stock(inner, RandomSampler) and not inner.replacement and inner.num_samples == len(inner.data_source):
        return _permuted(inner, sampler.batch_size, drop_last=sampler.drop_last)
    return None


def drawn_here(sampler: Any) -> Iterator[Any] | None:
    """What torch's random sampler, or batches of it, is about to give; None if the sampler may give anything else.

    As with `places_of_batches`, the sampler itself must not be asked as well.

    Example:
        >>> import torch
        >>> sampler = RandomSampler(range(5), generator=torch.Generator().manual_seed(0))
        >>> list(drawn_here(BatchSampler(sampler, 2, False)))
        [[4, 0], [1, 3], [2]]
    """
    if is_stateful(sampler):
        return None
    if _is_stock(sampler, BatchSampler):
        indices = drawn_here(sampler.sampler)
        return None if indices is None else _batches(sampler, indices)
    if _is_stock(sampler, RandomSampler) and not sampler.replacement:
        return random_indices(sampler)
    return None


def _batches(sampler: BatchSampler, indices: Iterator[Any]) -> Iterator[list[Any]]:
    """As torch's own sampler makes them: a batch size that is changed in an epoch counts from the next batch on."""
    if sampler.drop_last:
        yield from map(list, zip(*[indices] * sampler.batch_size, strict=False))
        return
    while batch := list(islice(indices, sampler.batch_size)):
        yield batch


def _is_stock(sampler: Any, kind: type) -> bool:
    return type(sampler) is kind and kind.__iter__ is _STOCK[kind]


def _in_sequence(sampler: SequentialSampler, batch_size: int, *, drop_last: bool) -> Iterator[Places]:
    count = len(sampler.data_source)
    for start in range(0, count - count % batch_size if drop_last else count, batch_size):
        yield np.arange(start, min(start + batch_size, count))


def _permuted(sampler: RandomSampler, batch_size: int, *, drop_last: bool) -> Iterator[Places]:
    count = len(sampler.data_source)
    generator = generator_of(sampler)
    whole = count - count % batch_size
    batches = permuted(count, generator, batch_size)
    batches = chain(list(islice(batches, 1)), batches)  # drawn now, also where no batch is whole
    yield from islice(batches, whole // batch_size)
    if sampler.generator is not None:  # torch's sampler draws another at its end, and uses nothing of it
        deque(permuted(count, generator, batch_size, end=0), maxlen=0)
    if not drop_last:
        yield from batches
