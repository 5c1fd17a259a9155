"""The indices of batches as arrays, drawn exactly as torch's samplers draw them, but never made a list of numbers."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

__all__ = ["Places", "places_of_batches"]

Places: TypeAlias = npt.NDArray[np.int64]

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


def _is_stock(sampler: Any, kind: type) -> bool:
    return type(sampler) is kind and kind.__iter__ is _STOCK[kind]


def _in_sequence(sampler: SequentialSampler, batch_size: int, *, drop_last: bool) -> Iterator[Places]:
    count = len(sampler.data_source)
    for start in range(0, count - count % batch_size if drop_last else count, batch_size):
        yield np.arange(start, min(start + batch_size, count))


def _permuted(sampler: RandomSampler, batch_size: int, *, drop_last: bool) -> Iterator[Places]:
    count = len(sampler.data_source)
    generator = sampler.generator
    if generator is None:
        generator = torch.Generator()
        generator.manual_seed(int(torch.empty((), dtype=torch.int64).random_().item()))
    places: Places = torch.randperm(count, generator=generator).numpy()
    short = count % batch_size
    for start in range(0, count - short, batch_size):
        yield places[start : start + batch_size]
    if sampler.generator is not None:
        torch.randperm(count, generator=generator)  # torch's sampler draws another at its end, and uses nothing of it
    if short and not drop_last:
        yield places[count - short :]
