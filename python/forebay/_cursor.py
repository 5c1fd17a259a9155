"""Where a loader stands in an epoch: which batches have been delivered, and how far each worker is."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

__all__ = ["Cursor", "Standing"]


@dataclass(slots=True)
class Standing:
    """How far one worker is, as of its last delivered batch.

    Attributes:
        batches: of a stream, how many of this worker's have been delivered in this epoch.
        state: what its dataset, and its iterator over a stream, told of themselves after it, as `_stateful.pack` made
            it; None if they tell nothing.
    """

    batches: int = 0
    state: bytes | None = None


class Cursor:
    """The delivered batches of one epoch. A batch whose place was taken by an exception counts as delivered.

    Args:
        position: all batches before this number have been delivered.
        ahead: later ones that have been delivered, too; only batches that come as they are finished leave such holes.
        standings: how far the workers are.

    Attributes:
        finished: whether the epoch has been read to its end.
        last_worker: who made the last delivered batch of a stream.
    """

    def __init__(
        self, position: int = 0, ahead: Iterable[int] = (), standings: Mapping[int, Standing] | None = None
    ) -> None:
        self.position = position
        self.ahead = {number for number in ahead if number >= position}
        self.standings = dict(standings or {})
        self.finished = False
        self.last_worker: int | None = None
        self._missing = [number for number in range(position, max(self.ahead, default=0)) if number not in self.ahead]
        self._before = self.delivered

    @property
    def delivered(self) -> int:
        """How many batches of this epoch have been delivered."""
        return self.position + len(self.ahead)

    def number(self, place: int) -> int:
        """Which batch of the epoch is sent as the `place`-th since this cursor was made."""
        return self._missing[place] if place < len(self._missing) else self._before + place

    def undelivered(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Of what a sampler gives from `position` on, what has not been delivered."""
        if not self.ahead:
            return batches
        wanted = [number not in self.ahead for number in range(self.position, max(self.ahead) + 1)]
        first = (batch for want, batch in zip(wanted, batches, strict=False) if want)
        return chain(first, batches)

    def passed(self, number: int) -> None:
        """Batch `number` has been delivered."""
        self.ahead.add(number)
        while self.position in self.ahead:
            self.ahead.remove(self.position)
            self.position += 1

    def passed_of(self, worker: int, state: bytes | None) -> None:
        """A batch of the stream of `worker` has been delivered, and this is how its dataset stands after it."""
        self.position += 1
        standing = self.standings.setdefault(worker, Standing())
        standing.batches += 1
        standing.state = state or standing.state
        self.last_worker = worker

    def keep(self, worker: int, state: bytes | None) -> None:
        """After a delivered batch, the dataset of `worker` stands like this."""
        if state is not None:
            self.standings[worker] = Standing(state=state)
