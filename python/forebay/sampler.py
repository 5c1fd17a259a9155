"""In which order a dataset is read: samplers yield indices, batch samplers yield lists of them.

There are two families. Those with `seed=` (their base is `SeededSampler`) compute the order of an epoch place by place
from the seed and the epoch, tell and load their state, and go on anywhere at once. The others are PyTorch's, with its
arguments and meaning, and draw from a NumPy generator. When to use which: docs/samplers.md.
"""

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice, repeat
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from forebay._grouped import BlockShuffleSampler, LengthGroupedSampler
from forebay._sampler import Sampler, require_bool, require_positive_int
from forebay._seeded import SeededSampler, ShuffleSampler, SubsetSampler
from forebay._seeds import GeneratorLike, as_generator, generator_or_fresh
from forebay._sharded import ShardSampler
from forebay._weighted import WeightedSampler, as_weights, check_weights

__all__ = [
    "BatchSampler",
    "BlockShuffleSampler",
    "DistributedSampler",
    "LengthGroupedSampler",
    "RandomSampler",
    "Sampler",
    "SeededSampler",
    "SequentialSampler",
    "ShardSampler",
    "ShuffleSampler",
    "SubsetRandomSampler",
    "SubsetSampler",
    "WeightedRandomSampler",
    "WeightedSampler",
]

_T = TypeVar("_T")

_Indices: TypeAlias = npt.NDArray[np.int64]

_CHUNK = 4096  # indices held as Python objects at a time: 36 bytes each against 8 in the array
_MASK64 = 2**64 - 1


class SequentialSampler(Sampler[int]):
    """Yields `0, 1, ..., len(data_source) - 1`.

    Args:
        data_source: anything with a length, which is asked for anew in every pass.

    Example:
        >>> list(SequentialSampler("abc"))
        [0, 1, 2]
    """

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        """Returns the indices in rising order."""
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        """Returns the length of the data source."""
        return len(self.data_source)


class EndlessSampler(Sampler[None]):
    """Yields `None` for ever: what stands in the place of an index for a dataset that is a stream."""

    def __iter__(self) -> Iterator[None]:
        """Returns an endless pass."""
        return repeat(None)


class RandomSampler(Sampler[int]):
    """Yields the indices of a data source in random order, or random indices with replacement.

    Args:
        data_source: anything with a length, which is asked for anew in every pass.
        replacement: draw each index independently of the others.
        num_samples: number of indices of one pass; None for the length of the data source. Without
            replacement, more than that length means several permutations, one after the other.
        generator: a generator, or a seed for one; its stream goes on from pass to pass, so that passes
            differ. None draws a seed from NumPy's global stream in every pass.

    Raises:
        TypeError: when `replacement` is no bool, or `generator` is of another type.
        ValueError: when the number of samples is not a positive integer.

    Example:
        >>> sorted(RandomSampler("abcd", generator=0))
        [0, 1, 2, 3]
        >>> list(RandomSampler("abcd", generator=0)) == list(RandomSampler("abcd", generator=0))
        True
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: GeneratorLike = None,
    ) -> None:
        self.data_source = data_source
        self.replacement = require_bool(replacement, "replacement", TypeError)
        self._num_samples = num_samples
        self.generator = as_generator(generator)
        require_positive_int(self.num_samples, "num_samples", allow_bool=True)

    @property
    def num_samples(self) -> int:
        """Number of indices of one pass; it follows a data source that grows."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        """Draws one pass; nothing is drawn before its first index is asked for."""
        population, remaining = len(self.data_source), self.num_samples
        if remaining and not population:
            raise ValueError(f"cannot draw num_samples={remaining} from an empty data source")
        generator = generator_or_fresh(self.generator)
        while remaining:
            if self.replacement:
                drawn = generator.integers(population, size=min(remaining, _CHUNK))
            else:
                drawn = generator.permutation(population)[:remaining]
            yield from _as_ints(drawn)
            remaining -= len(drawn)

    def __len__(self) -> int:
        """Returns the number of indices of one pass."""
        return self.num_samples


class SubsetRandomSampler(Sampler[_T]):
    """Yields given indices in random order, each once.

    Args:
        indices: the indices, which may be of any type.
        generator: as for `RandomSampler`.

    Example:
        >>> sorted(SubsetRandomSampler([7, 3, 5], generator=0))
        [3, 5, 7]
    """

    def __init__(self, indices: Sequence[_T], generator: GeneratorLike = None) -> None:
        self.indices = indices
        self.generator = as_generator(generator)

    def __iter__(self) -> Iterator[_T]:
        """Draws one pass; nothing is drawn before its first index is asked for."""
        order = generator_or_fresh(self.generator).permutation(len(self.indices))
        for position in _as_ints(order):
            yield self.indices[position]

    def __len__(self) -> int:
        """Returns the number of indices."""
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Yields indices `0, ..., len(weights) - 1` with the given relative frequencies.

    Args:
        weights: one non-negative weight per index; their sum need not be one.
        num_samples: number of indices of one pass.
        replacement: False yields each index at most once.
        generator: as for `RandomSampler`.

    Raises:
        ValueError: when `num_samples` is no positive integer, `replacement` no bool, or `weights` not
            one-dimensional. A pass over weights that describe no distribution, or over fewer of them
            than it needs, raises RuntimeError.

    Example:
        >>> list(WeightedRandomSampler([0.0, 1.0, 0.0], num_samples=4))
        [1, 1, 1, 1]
        >>> sorted(WeightedRandomSampler([0.5, 0.25, 0.25], num_samples=3, replacement=False))
        [0, 1, 2]
    """

    def __init__(
        self,
        weights: Sequence[float] | npt.NDArray[Any],
        num_samples: int,
        replacement: bool = True,
        generator: GeneratorLike = None,
    ) -> None:
        self.num_samples = require_positive_int(num_samples, "num_samples")
        self.replacement = require_bool(replacement, "replacement", ValueError)
        self.weights = as_weights(weights)
        self.generator = as_generator(generator)

    def __iter__(self) -> Iterator[int]:
        """Draws one pass; nothing is drawn before its first index is asked for."""
        probabilities = self._probabilities()
        generator = generator_or_fresh(self.generator)
        yield from _as_ints(
            generator.choice(len(probabilities), size=self.num_samples, replace=self.replacement, p=probabilities)
        )

    def __len__(self) -> int:
        """Returns the number of indices of one pass."""
        return self.num_samples

    def _probabilities(self) -> npt.NDArray[np.float64]:
        check_weights(self.weights, self.num_samples, self.replacement)
        scaled = self.weights / self.weights.max()  # first, so that the sum of huge weights stays finite
        return cast("npt.NDArray[np.float64]", scaled / scaled.sum())


class BatchSampler(Sampler[list[_T]]):
    """Groups what another sampler yields into lists.

    Args:
        sampler: any iterable.
        batch_size: length of each list.
        drop_last: leave out a last list that would be shorter.

    Raises:
        ValueError: when `batch_size` is no positive integer or `drop_last` no bool.

    Example:
        >>> list(BatchSampler(range(5), batch_size=2, drop_last=False))
        [[0, 1], [2, 3], [4]]
        >>> list(BatchSampler(range(5), batch_size=2, drop_last=True))
        [[0, 1], [2, 3]]
    """

    def __init__(self, sampler: Iterable[_T], batch_size: int, drop_last: bool) -> None:
        self.batch_size = require_positive_int(batch_size, "batch_size")
        self.drop_last = require_bool(drop_last, "drop_last", ValueError)
        self.sampler = sampler

    def __iter__(self) -> Iterator[list[_T]]:
        """Starts a pass over the sampler and yields its indices, list by list."""
        indices = iter(self.sampler)
        while batch := list(islice(indices, self.batch_size)):
            if self.drop_last and len(batch) < self.batch_size:
                return
            yield batch

    def __len__(self) -> int:
        """Returns the number of lists, if the sampler has a length."""
        length = len(cast("Sized", self.sampler))
        return length // self.batch_size if self.drop_last else -(-length // self.batch_size)


class DistributedSampler(Sampler[int]):
    """Yields to one replica its share of the indices, equally many to each.

    All replicas must agree on every argument but `rank`, and on the epoch.

    Args:
        dataset: anything with a length, which is asked for anew in every pass.
        num_replicas: number of replicas; required, since no process group is asked.
        rank: number of this replica, from 0; required.
        shuffle: a new order for each epoch that `set_epoch` announces.
        seed: the same in all replicas.
        drop_last: leave out what does not divide evenly, instead of repeating indices from the start.

    Raises:
        TypeError: when `num_replicas` or `rank` is missing.
        ValueError: when `rank` lies outside `[0, num_replicas - 1]`.

    Example:
        >>> list(DistributedSampler("abcde", num_replicas=2, rank=1, shuffle=False))
        [1, 3, 0]
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            raise TypeError(
                "DistributedSampler asks no process group, so it needs both numbers, but got "
                f"num_replicas={num_replicas}, rank={rank}; with torch.distributed, pass "
                "num_replicas=dist.get_world_size(), rank=dist.get_rank()"
            )
        if not 0 <= rank < num_replicas:
            raise ValueError(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]")
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0

    @property
    def num_samples(self) -> int:
        """Number of indices of this replica; it follows a dataset that grows."""
        length = len(self.dataset)
        return length // self.num_replicas if self.drop_last else -(-length // self.num_replicas)

    @property
    def total_size(self) -> int:
        """Number of indices of all replicas together."""
        return self.num_samples * self.num_replicas

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next pass; without it every pass shuffles alike."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Returns the share of this replica for the current epoch."""
        length = len(self.dataset)
        share = np.arange(self.rank, self.total_size, self.num_replicas, dtype=np.int64)
        if length:
            share %= length
        if self.shuffle:
            # Both numbers enter as words of their own, so that (seed 1, epoch 2) is not (seed 2, epoch 1).
            entropy = [self.seed & _MASK64, self.epoch & _MASK64]
            share = np.random.default_rng(entropy).permutation(length)[share]
        return _as_ints(share)

    def __len__(self) -> int:
        """Returns the number of indices of this replica."""
        return self.num_samples


def _as_ints(indices: _Indices) -> Iterator[int]:
    """Yields plain ints without holding all of them at once."""
    for start in range(0, len(indices), _CHUNK):
        yield from indices[start : start + _CHUNK].tolist()
