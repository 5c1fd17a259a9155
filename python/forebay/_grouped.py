"""Orders that keep some samples together: of like length, or of a few blocks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay._sampler import require_positive_int
from forebay._seeded import (
    Fingerprint,
    Indices,
    Order,
    SeededSampler,
    ShuffleOrder,
    SizedOrLength,
    digest_of,
    integers_of,
    length_of,
)
from forebay._seeds import integer
from forebay.errors import ConfigError

__all__ = ["BlockShuffleSampler", "LengthGroupedSampler"]


class LengthGroupedSampler(SeededSampler):
    """Yields each index once, so that batches are of like lengths and need little padding.

    The shuffled order is cut into megabatches of `megabatch * batch_size`. Each is sorted by length and cut into
    batches, and these are shuffled. A last, short batch is left as it was drawn. The epoch's first batch has the
    longest sample of all, so that a batch that is too large for the memory fails at once and not hours later. Any part
    of an order costs the megabatches that it touches.

    It yields indices: cut them with the same batch size. Under a `ShardSampler`, that is the batch size of all ranks
    together: each rank then has its share of every batch.

    Args:
        lengths: one number per index: tokens, frames, seconds. An array is not copied, and must not change.
        batch_size: samples of a batch.
        seed: from 0 up to but not including 2**64.
        megabatch: batches that are sorted together: more of them save padding, fewer mix better.

    Raises:
        ConfigError: when the lengths are no real numbers in one dimension, or the seed is out of range.
        ValueError: when `batch_size` or `megabatch` is no positive integer.

    Example:
        >>> sampler = LengthGroupedSampler([5, 90, 7, 80, 6, 85], batch_size=3)
        >>> sorted(sampler.indices(0, 3).tolist())
        [1, 3, 5]
    """

    def __init__(
        self, lengths: Sequence[float] | npt.NDArray[Any], batch_size: int, *, seed: int = 0, megabatch: int = 50
    ) -> None:
        super().__init__(seed=seed)
        self.batch_size = require_positive_int(batch_size, "batch_size")
        self.megabatch = require_positive_int(megabatch, "megabatch")
        self.lengths = np.asarray(lengths)
        if self.lengths.ndim != 1 or self.lengths.dtype.kind not in "iuf":
            raise ConfigError(
                "lengths should be a sequence of numbers, but got an array of "
                f"{self.lengths.dtype} with shape {self.lengths.shape}"
            )
        self._longest = int(self.lengths.argmax()) if len(self.lengths) else 0
        self._digest: str | None = None

    def __len__(self) -> int:
        """Returns the number of lengths."""
        return len(self.lengths)

    def fingerprint(self) -> Fingerprint:
        """Kind, length, seed, batch size, megabatch, and a hash of the lengths, which is made once."""
        self._digest = self._digest or digest_of(self.lengths, np.float64)
        return {
            "kind": "LengthGroupedSampler",
            "length": len(self),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "megabatch": self.megabatch,
            "lengths": self._digest,
        }

    def _order(self, epoch: int) -> Order:
        return _ByLength(self.lengths, self._longest, (self.batch_size, self.megabatch), (self.seed, epoch))


class _ByLength(Order):
    def __init__(self, lengths: npt.NDArray[Any], longest: int, sizes: tuple[int, int], key: tuple[int, int]) -> None:
        self._lengths, self._key = lengths, key
        self._batch_size, self._megabatch = sizes[0], sizes[0] * sizes[1]
        self._drawn = ShuffleOrder(len(lengths), *key)
        self._first = self._drawn.indices(0, 1)
        self._longest = longest
        self._kept: tuple[int, Indices] | None = None

    def __len__(self) -> int:
        return len(self._drawn)

    def at(self, places: Indices) -> Indices:
        numbers = places // self._megabatch
        indices = np.empty(len(places), np.int64)
        for number in np.unique(numbers).tolist():
            here = numbers == number
            indices[here] = self._sorted(number)[places[here] - number * self._megabatch]
        return indices

    def _sorted(self, number: int) -> Indices:
        if self._kept is None or self._kept[0] != number:  # a few parts of each are asked for, one after the other
            self._kept = number, self._made(number)
        return self._kept[1]

    def _made(self, number: int) -> Indices:
        start = number * self._megabatch
        drawn = self._drawn.indices(start, start + self._megabatch)
        drawn = _swapped(drawn, int(self._first[0]), self._longest)
        batches = len(drawn) // self._batch_size
        whole, rest = drawn[: batches * self._batch_size], drawn[batches * self._batch_size :]
        by_length = whole[np.argsort(self._lengths[whole], kind="stable")[::-1]]
        order = ShuffleOrder(batches, *self._key, part=number + 1).indices()
        if number == 0 and batches:
            order = _swapped(order, int(order[0]), 0)
        return np.concatenate([by_length.reshape(batches, self._batch_size)[order].ravel(), rest])


def _swapped(indices: Indices, some: int, other: int) -> Indices:
    """With each of two indices in the place of the other: an order stays one."""
    return np.where(indices == some, other, np.where(indices == other, some, indices))


class BlockShuffleSampler(SeededSampler):
    """Yields each index once, and reads few blocks at a time: for shards, files or chunks that are costly to open.

    The order of the blocks is shuffled; then each group of `blocks_at_once` blocks is shuffled sample by sample. So at
    any place of an order at most that many blocks are open, and each is opened once; a batch at the border of two
    groups touches both. More blocks mix better and need more memory: a sample is only ever near samples of its group,
    and a dataset that is sorted by label needs groups of many blocks, or many small ones.

    Under a `ShardSampler` all ranks read the same group at the same time, each its own samples: of one machine they
    share the operating system's cache, but every machine reads every block.

    Args:
        data_source: anything with a length, which is asked for anew in every pass, or the length.
        block_size: samples of each block (the last may have fewer), or a sequence with the size of each.
        blocks_at_once: blocks that are shuffled together.
        seed: from 0 up to but not including 2**64.

    Raises:
        ConfigError: when the sizes of the blocks make no sense, or do not add up to the length; or the seed is out of
            range.
        ValueError: when `block_size` or `blocks_at_once` is no positive integer.

    Example:
        >>> sampler = BlockShuffleSampler(12, block_size=3, blocks_at_once=2)
        >>> len({index // 3 for index in sampler.indices(0, 6).tolist()})
        2
    """

    def __init__(
        self,
        data_source: SizedOrLength,
        block_size: int | Sequence[int] | npt.NDArray[Any],
        blocks_at_once: int = 8,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        self.data_source = data_source
        self.blocks_at_once = require_positive_int(blocks_at_once, "blocks_at_once")
        self.block_size = _checked_block_size(block_size)
        self._digest: str | None = None
        self._sizes()

    def __len__(self) -> int:
        """Returns the length of the data source."""
        return length_of(self.data_source)

    def fingerprint(self) -> Fingerprint:
        """Kind, length, seed, blocks at once, and the block size, or a hash of all sizes, which is made once."""
        size: int | str
        if isinstance(self.block_size, int):
            size = self.block_size
        else:
            size = self._digest = self._digest or digest_of(self.block_size, np.int64)
        return {
            "kind": "BlockShuffleSampler",
            "length": len(self),
            "seed": self.seed,
            "blocks_at_once": self.blocks_at_once,
            "block_size": size,
        }

    def _sizes(self) -> Indices:
        length, size = len(self), self.block_size
        if isinstance(size, int):
            return np.minimum(size, length - np.arange(0, length, size, dtype=np.int64))
        if size.sum() != length:
            raise ConfigError(
                f"block_size should add up to the length {length} of the data source, but adds up to {size.sum()}"
            )
        return size

    def _order(self, epoch: int) -> Order:
        return _ByBlock(self._sizes(), self.blocks_at_once, (self.seed, epoch))


class _ByBlock(Order):
    """Keeps three numbers per block."""

    def __init__(self, sizes: Indices, at_once: int, key: tuple[int, int]) -> None:
        self._key, self._at_once = key, at_once
        blocks = ShuffleOrder(len(sizes), *key).indices()
        self._ends = np.cumsum(sizes[blocks])
        """The place behind each block, were the samples of a block not shuffled."""
        self._shifts = (np.cumsum(sizes) - sizes)[blocks] - (self._ends - sizes[blocks])
        """What must be added to such a place to make it an index."""
        self._borders = np.concatenate([[0], self._ends[at_once - 1 :: at_once], self._ends[-1:]])
        self._kept: tuple[int, ShuffleOrder] | None = None

    def __len__(self) -> int:
        return int(self._borders[-1])

    def at(self, places: Indices) -> Indices:
        groups = np.searchsorted(self._borders, places, side="right") - 1
        shuffled = np.empty(len(places), np.int64)
        for group in np.unique(groups).tolist():
            here, start = groups == group, self._borders[group]
            shuffled[here] = start + self._shuffle(group).at(places[here] - start)
        return shuffled + self._shifts[np.searchsorted(self._ends, shuffled, side="right")]

    def _shuffle(self, group: int) -> ShuffleOrder:
        if self._kept is None or self._kept[0] != group:  # a few parts of each are asked for, one after the other
            length = int(self._borders[group + 1] - self._borders[group])
            self._kept = group, ShuffleOrder(length, *self._key, part=group + 1)
        return self._kept[1]


def _checked_block_size(block_size: object) -> int | Indices:
    size = integer(block_size)
    if size is not None or isinstance(block_size, bool | float):
        return require_positive_int(block_size if size is None else size, "block_size")
    sizes = integers_of(block_size, "block_size").astype(np.int64, copy=False)
    if (sizes < 0).any():
        raise ConfigError(f"block_size should have sizes from 0 on, but got {sizes.min()} among them")
    return sizes
