"""One epoch of a loader with a seed: the indices of its batches, and how its state is told and taken up again.

The order is a function of the seed and the epoch, so a state is a place in it. From there the rest can be dealt to
other ranks and cut into batches of another size.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, cycle, islice
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from forebay import sampler as our
from forebay._cursor import Cursor
from forebay._engine import base_seed
from forebay._resume import Range, Resume, check_rank, turn_after
from forebay._sample_seeds import SamplerStreams
from forebay._seeding import SAMPLER_MODULES, Seeding, cuts_evenly, draws_at_once, index_sampler_of
from forebay._share import Share, Uneven

__all__ = ["Course", "Places", "StreamCourse", "open_course"]

Places: TypeAlias = npt.NDArray[np.int64]

_AT_ONCE = 8192
"""Indices that are computed at a time: few enough to be ready at once, enough to cost little each."""


class RandomAccess(Protocol):
    """An order of which any part can be told."""

    def __len__(self) -> int: ...

    def at(self, places: Places) -> Places:
        """The indices at these places."""
        ...


class InSequence:
    """The order of a dataset itself.

    Args:
        sampler: a sequential sampler of torch's or ours.
    """

    def __init__(self, sampler: Any) -> None:
        self._source = sampler.data_source

    def __len__(self) -> int:
        return len(self._source)

    def at(self, places: Places) -> Places:
        """As in `RandomAccess`."""
        return places


def random_access(sampler: Any, epoch: int) -> RandomAccess | None:
    """The order that a sampler gives in an epoch, if any part of it can be told."""
    if type(sampler).__name__ == "SequentialSampler" and type(sampler).__module__ in SAMPLER_MODULES:
        return InSequence(sampler)
    return sampler.order(epoch) if isinstance(sampler, our.SeededSampler) else None


class Course:
    """One epoch.

    Args:
        loader: of either front, with a seed.
        seeding: its seed.
        epoch: the number of the epoch.
        start: the place of the order to begin at.
        passed: of this rank's samples, counted from there, ranges that have been delivered already, in order.

    Attributes:
        cursor: the batches that were delivered since the start.
        gives_places: whether batches come as arrays.
    """

    def __init__(
        self, loader: Any, seeding: Seeding, epoch: int, *, start: int = 0, passed: Sequence[Range] = ()
    ) -> None:
        self.seed, self.epoch = seeding.seed, epoch
        self.cursor = Cursor()
        self.start = start
        self._passed = list(passed)
        batch_sampler = loader.batch_sampler
        self._sampler = index_sampler_of(loader)
        self.whole_batches = batch_sampler is not None and not cuts_evenly(batch_sampler)
        """Whether batches are somebody else's, so that places are counted in batches."""
        self.batch_size: int | None = None
        self._drop_last = False
        self.ranks = seeding.ranks()
        """Which rank this is, and of how many."""
        self._uneven: Uneven = seeding.uneven
        if batch_sampler is not None and not self.whole_batches:
            self._sampler = batch_sampler.sampler
            self.batch_size = int(batch_sampler.batch_size)
            self._drop_last = bool(batch_sampler.drop_last)
        if isinstance(self._sampler, our.ShardSampler):
            shard, self._sampler = self._sampler, self._sampler.sampler  # a place is one of the whole order
            self.ranks, self._uneven = (shard.rank, shard.world), shard.uneven
        if self._drop_last and self._uneven == "keep":
            self._uneven = "drop"  # every rank has equally many batches, and only whole ones
        self._in_order = bool(loader.in_order)
        self._order = None if self.whole_batches else random_access(self._sampler, epoch)
        self.gives_places = self._order is not None and self.batch_size is not None

    @property
    def base_seed(self) -> int:
        """Of the workers of this epoch."""
        return base_seed(self.seed, self.epoch)

    def __len__(self) -> int:
        """How many batches this rank has in the whole epoch.

        Raises:
            TypeError: nobody can tell.
        """
        length = len(self._sampler)
        if self.whole_batches:
            return length
        samples, size = len(Share(length, *self.ranks, self._uneven)), self.batch_size or 1
        return samples // size if self._drop_last else -(-samples // size)

    def first_worker(self, _num_workers: int) -> int:
        """Who begins: nobody can see it."""
        return 0

    def watch(self, fetcher: Any) -> None:
        """The dataset needs no fetcher to be asked for its state."""

    def batches(self) -> Iterator[Any]:
        """The indices of the batches: arrays, lists, or without automatic batching single ones.

        Somebody else's sampler is asked for the first one now: later, it may have been told of another epoch.
        """
        if self._order is not None:
            return self._cut(self._order)
        drawn = self._drawn()
        first = list(islice(drawn, 1))
        return chain(first, drawn)

    def _drawn(self) -> Iterator[Any]:
        """Cuts what somebody else's sampler gives into batches, or takes its own."""
        streams = SamplerStreams(self.seed, self.epoch)
        with streams.lent():
            dealt = self._dealt(iter(self._sampler))
        wanted = (each for number, each in enumerate(dealt) if not _within(number, self._passed))
        lend: Callable[[], AbstractContextManager[None]] = streams.lent
        while True:
            with lend():
                batch = list(islice(wanted, self.batch_size or 1))
            if not batch:
                return
            if draws_at_once(self._sampler):
                lend = nullcontext
            if self.batch_size is None:
                yield batch[0]
            elif len(batch) == self.batch_size or not self._drop_last:
                yield batch

    def _share(self, length: int) -> Share:
        return Share(length, *self.ranks, self._uneven, self.start)

    def _cut(self, order: RandomAccess) -> Iterator[Any]:
        """Cuts this rank's share of an order with random access into batches."""
        share, size = self._share(len(order)), self.batch_size or 1
        samples = len(share) - sum(min(last, len(share)) - min(first, len(share)) for first, last in self._passed)
        if self._drop_last:
            samples -= samples % size
        step = max(1, _AT_ONCE // size) * size
        for begin in range(0, samples, step):
            indices = self._indices(order, share, begin, min(begin + step, samples))
            if self.batch_size is None:
                yield from indices.tolist()
            else:
                yield from (indices[at : at + size] for at in range(0, len(indices), size))

    def _indices(self, order: RandomAccess, share: Share, begin: int, end: int) -> Places:
        """Of this rank's samples that are wanted, those number `begin` up to `end`."""
        first, last = self._sample(begin), self._sample(end - 1) + 1
        places = share.places(first, last)
        if self._passed and first < self._passed[-1][1]:
            places = places[[not _within(number, self._passed) for number in range(first, last)]]
        return order.at(places)

    def _dealt(self, given: Iterable[Any]) -> Iterator[Any]:
        """This rank's share of what a sampler gives, from the start on."""
        (rank, world), given = self.ranks, iter(given)
        begun = list(islice(given, min(world, self.start)))
        for _ in islice(given, self.start - len(begun)):
            pass
        while group := list(islice(given, world)):
            begun += group[: max(0, world - len(begun))]
            if len(group) < world:
                if self._uneven == "drop":
                    return
                if self._uneven == "pad":
                    group += islice(cycle(begun), world - len(group))
            if rank < len(group):
                yield group[rank]

    def _sample(self, wanted: int) -> int:
        """Which of this rank's samples the `wanted`-th is that has not been delivered before the start."""
        for first, last in self._passed:
            if first > wanted:
                break
            wanted += last - first
        return wanted

    @property
    def place(self) -> int:
        """The place up to which everything has been delivered, if all ranks have delivered as many batches.

        After a last batch that was short it lies behind the order's end.
        """
        return self.start + self._done * self.ranks[1]

    @property
    def _done(self) -> int:
        """Of this rank's samples (or batches, if those are counted), the first that has not been delivered."""
        return self._sample(self.cursor.position * self._unit)

    @property
    def _unit(self) -> int:
        """What is counted: the samples of a batch, or batches themselves."""
        return 1 if self.whole_batches else self.batch_size or 1

    @property
    def ahead(self) -> list[Range]:
        """Ranges of this rank's samples, counted from `place`, that were delivered although earlier ones were not."""
        done, size = self._done, self._unit
        batches = [(self._sample(n * size), self._sample(n * size + size - 1) + 1) for n in self.cursor.ahead]
        ahead = [(max(done, first) - done, last - done) for first, last in (*self._passed, *batches) if last > done]
        return _merged(sorted(ahead))

    @property
    def step(self) -> int:
        """By how much the place grows with a batch."""
        return self._unit * self.ranks[1]

    def where(self) -> dict[str, Any]:
        """What a state has of it."""
        unit = "batches" if self.whole_batches else "samples"
        told: dict[str, Any] = {unit: self.place, "ahead": [list(each) for each in self.ahead]}
        rank, world = self.ranks
        if world > 1 and (told["ahead"] or not self._in_order):
            told |= {"rank": rank, "world": world}
        return told


class StreamCourse:
    """One epoch over a stream: who knows where it stands are the workers.

    Args:
        loader: of either front, with a seed.
        seeding: its seed.
        epoch: the number of the epoch.
        cursor: how far the workers are.
    """

    gives_places = False
    step = 0

    def __init__(self, loader: Any, seeding: Seeding, epoch: int, cursor: Cursor) -> None:
        self.seed, self.epoch = seeding.seed, epoch
        self.cursor = cursor
        self.fetcher: Any = None
        self._sampler = index_sampler_of(loader)

    @property
    def base_seed(self) -> int:
        """Of the workers of this epoch."""
        return base_seed(self.seed, self.epoch)

    def __len__(self) -> int:
        """As of the sampler, which has no end."""
        return len(self._sampler)

    def batches(self) -> Iterator[Any]:
        """Places for the samples of the stream."""
        return iter(self._sampler)

    def first_worker(self, num_workers: int) -> int:
        """Whose turn it is."""
        return turn_after(self.cursor, num_workers)

    def where(self) -> dict[str, Any]:
        """What a state has of it, beside what each worker told."""
        return {"batches": self.cursor.delivered, "last_worker": self.cursor.last_worker}

    def watch(self, fetcher: Any) -> None:
        """Without workers, the iterator over the dataset is asked when the loader is."""
        self.fetcher = fetcher


def open_course(loader: Any, seeding: Seeding, resume: Resume | None, *, stream: bool) -> Course | StreamCourse:
    """Begins the loader's next epoch, or goes on where `resume` says."""
    if resume is None or not resume.in_epoch:
        epoch = seeding.begin(loader)
        standings = {} if resume is None else resume.standings()
        if stream:
            return StreamCourse(loader, seeding, epoch, Cursor(standings=standings))
        course = Course(loader, seeding, epoch)
        course.cursor.standings = standings
        return course
    seeding.enter(loader, resume.epoch)
    if stream:
        cursor = Cursor(resume.batches, standings=resume.standings())
        cursor.last_worker = resume.last_worker
        return StreamCourse(loader, seeding, resume.epoch, cursor)
    course = Course(loader, seeding, resume.epoch, start=resume.start, passed=resume.passed)
    check_rank(resume, *course.ranks)
    course.cursor.standings = resume.standings()
    return course


def _merged(ranges: Iterable[Range]) -> list[Range]:
    """Sorted ranges, those that touch as one."""
    found: list[Range] = []
    for first, last in ranges:
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def _within(number: int, ranges: Iterable[Range]) -> bool:
    return any(first <= number < last for first, last in ranges)
