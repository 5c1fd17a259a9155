"""One rank's share of an order: which places of it are its own."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Share", "Uneven"]

Uneven: TypeAlias = Literal["keep", "pad", "drop"]


@dataclass(frozen=True, slots=True)
class Share:
    """The places that are dealt to one rank, as cards are: `start + rank`, then every `world`-th.

    So whatever the ranks have passed together, after equally many samples each, is the beginning of the order; from
    there it can be dealt to another number of ranks.

    Attributes:
        length: samples in the order.
        rank: which rank, from 0.
        world: how many ranks.
        uneven: what is done where the rest does not divide evenly: "keep" every sample (some ranks have one more),
            "pad" with samples from the order's beginning, or "drop" what is left over.
        start: the first place that is dealt.

    Example:
        >>> [Share(5, rank, 2, "keep").places().tolist() for rank in range(2)]
        [[0, 2, 4], [1, 3]]
        >>> [Share(5, rank, 2, "pad").places().tolist() for rank in range(2)]
        [[0, 2, 4], [1, 3, 0]]
        >>> [Share(5, rank, 2, "drop").places().tolist() for rank in range(2)]
        [[0, 2], [1, 3]]
    """

    length: int
    rank: int = 0
    world: int = 1
    uneven: Uneven = "keep"
    start: int = 0

    @property
    def smallest(self) -> int:
        """Samples of the rank that has the fewest."""
        left = max(0, self.length - self.start)
        return -(-left // self.world) if self.uneven == "pad" else left // self.world

    def __len__(self) -> int:
        if self.uneven != "keep":
            return self.smallest
        return max(0, -(-(self.length - self.start - self.rank) // self.world))

    def places(self, first: int = 0, last: int | None = None) -> npt.NDArray[np.int64]:
        """The places of this rank's samples number `first` up to but not including `last`; None for the end."""
        last = len(self) if last is None else min(last, len(self))
        begin = self.start + self.rank
        places = np.arange(begin + first * self.world, begin + last * self.world, self.world, dtype=np.int64)
        if len(places) and places[-1] >= self.length:  # padded
            places %= self.length
        return places

    def passed(self, samples: int) -> int:
        """The place up to which the order is done, when every rank has passed as many samples, if it has them."""
        return min(self.start + samples * self.world, max(self.length, self.start))
