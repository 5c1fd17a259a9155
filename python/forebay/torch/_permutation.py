"""What torch's `RandomSampler` gives without replacement: the same indices, each drawn when it is asked for.

Torch draws a whole permutation before its first index is known, and keeps it as a list of numbers. This module needs
the engine, which not every system has.
"""

import functools
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import RandomSampler

from forebay._engine import TorchPermutation, skip_words
from forebay.torch._registry import is_watched

__all__ = ["Places", "generator_of", "permuted", "random_indices"]

Places: TypeAlias = npt.NDArray[np.int64]

_AT_ONCE = 256
"""How many indices are taken at a time, where they are given one by one."""


def random_indices(sampler: RandomSampler, skip: int = 0, generator: torch.Generator | None = None) -> Iterator[int]:
    """The indices that a sampler without replacement gives, from the `skip`-th on. It is not asked itself.

    Args:
        sampler: whose order it is.
        skip: how many indices to leave out.
        generator: what to draw from; None for what the sampler draws from.

    Example:
        >>> sampler = RandomSampler(range(5), generator=torch.Generator().manual_seed(0))
        >>> list(random_indices(sampler, 3))
        [3, 2]
    """
    count = len(sampler.data_source)
    drawn_from = generator or generator_of(sampler)
    for _ in range(sampler.num_samples // count):
        yield from _numbers(permuted(count, drawn_from, _AT_ONCE, min(skip, count)))
        skip = max(0, skip - count)
    rest = sampler.num_samples % count  # asked now, as torch does: a dataset may have grown
    yield from _numbers(permuted(count, drawn_from, _AT_ONCE, min(skip, rest), rest))


def _numbers(blocks: Iterator[Places]) -> Iterator[int]:
    for block in blocks:
        yield from block.tolist()


def generator_of(sampler: RandomSampler) -> torch.Generator:
    """What a sampler draws from: its own generator, or one that is seeded by a draw from torch's global stream."""
    if sampler.generator is not None:
        own: torch.Generator = sampler.generator
        return own
    generator = torch.Generator()
    generator.manual_seed(int(torch.empty((), dtype=torch.int64).random_().item()))
    return generator


def permuted(
    count: int, generator: torch.Generator, size: int, start: int = 0, end: int | None = None
) -> Iterator[Places]:
    """What stands in `torch.randperm(count, generator=generator)` from `start` to `end`, in arrays of `size` places.

    The generator moves as if it had been called, when the first array is asked for.

    Example:
        >>> list(permuted(5, torch.Generator().manual_seed(0), 2))
        [array([4, 0]), array([1, 3]), array([2])]
    """
    end = count if end is None else end
    if _is_native(count, generator):
        return _drawn(count, generator, size, start, end)
    return _whole(count, generator, size, start, end)


def _is_native(count: int, generator: torch.Generator) -> bool:
    of_cpu = generator.device.type == "cpu" and not is_watched()
    return count <= TorchPermutation.MOST and of_cpu and _draws_as_torch()


def _whole(count: int, generator: torch.Generator, size: int, start: int, end: int) -> Iterator[Places]:
    whole: Places = torch.randperm(count, generator=generator).cpu().numpy()
    yield from (whole[first : min(first + size, end)] for first in range(start, end, size))


def _drawn(count: int, generator: torch.Generator, size: int, start: int, end: int) -> Iterator[Places]:
    state = generator.get_state()
    permutation = TorchPermutation(count, state.numpy(), start if start < end else 0)
    skip_words(state.numpy(), max(0, count - 1))
    generator.set_state(state)
    for first in range(start, end, size):
        places = np.empty(min(size, end - first), dtype=np.int64)
        permutation.fill(places)
        yield places


@functools.cache
def _draws_as_torch() -> bool:
    """Whether this torch draws as those that were looked at. Asked once, of a permutation that takes 200 us."""
    count = 1000  # more than a generator has words at a time
    generator, torchs = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    try:
        (ours,) = _drawn(count, generator, count, 0, count)
    except ValueError:  # its generators' states are others
        return False
    theirs: Places = torch.randperm(count, generator=torchs).numpy()
    return np.array_equal(ours, theirs) and torch.equal(generator.get_state(), torchs.get_state())
