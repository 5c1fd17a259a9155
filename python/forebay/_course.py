"""One epoch of a loader with a seed: the indices of its batches, and how its state is told and taken up again.

The order is a function of the seed and the epoch, so a state is a place in it. From there the rest can be dealt to
other ranks and cut into batches of another size.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import cycle, islice
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from forebay import sampler as our
from forebay._cursor import Cursor
from forebay._engine import base_seed
from forebay._resume import Range, Resume, turn_after
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

    def indices(self, start: int, stop: int) -> Places:
        """The indices at the places from `start` up to but not including `stop`."""
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

    def indices(self, start: int, stop: int) -> Places:
        """As in `RandomAccess`."""
        return np.arange(start, stop, dtype=np.int64)


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
        passed: of this rank's samples, counted from there, ranges that have been delivered already.

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
        self._passed = sorted(passed)
        batch_sampler = loader.batch_sampler
        self._sampler = index_sampler_of(loader)
        self.whole_batches = batch_sampler is not None and not cuts_evenly(batch_sampler)
        """Whether batches are somebody else's, so that places are counted in batches."""
        self.batch_size: int | None = None
        self._drop_last = False
        self._ranks = seeding.ranks()
        self._uneven: Uneven = seeding.uneven
        if batch_sampler is not None and not self.whole_batches:
            self._sampler = batch_sampler.sampler
            self.batch_size = int(batch_sampler.batch_size)
            self._drop_last = bool(batch_sampler.drop_last)
            if self._drop_last and self._uneven == "keep":
                self._uneven = "drop"  # every rank has equally many batches, and only whole ones
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
        samples, size = len(Share(length, *self._ranks, self._uneven)), self.batch_size or 1
        return samples // size if self._drop_last else -(-samples // size)

    def first_worker(self, _num_workers: int) -> int:
        """Who begins: nobody can see it."""
        return 0

    def watch(self, fetcher: Any) -> None:
        """The dataset needs no fetcher to be asked for its state."""

    def batches(self) -> Iterator[Any]:
        """The indices of the batches: arrays, lists, or without automatic batching single ones."""
        if self._order is not None:
            yield from self._cut(self._order)
            return
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
        return Share(length, *self._ranks, self._uneven, self.start)

    def _cut(self, order: RandomAccess) -> Iterator[Any]:
        """Cuts this rank's share of an order with random access into batches."""
        share, size = self._share(len(order)), self.batch_size or 1
        samples = len(share) - _size(self._passed)
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
        if self._passed:
            places = places[[not _within(number, self._passed) for number in range(first, last)]]
        if len(places) > 1 and places[-1] < places[0]:  # padded with one of the first
            return np.concatenate([_at(order, places[:-1]), _at(order, places[-1:])])
        return _at(order, places)

    def _dealt(self, given: Iterable[Any]) -> Iterator[Any]:
        """This rank's share of what a sampler gives, from the start on."""
        (rank, world), given = self._ranks, iter(given)
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
        """The place up to which everything has been delivered, if all ranks have delivered as much."""
        return self._place(self._done)

    @property
    def _done(self) -> int:
        """Of this rank's samples (or batches, if those are counted), the first that has not been delivered."""
        return self._sample(self.cursor.position * self._unit)

    @property
    def _unit(self) -> int:
        """What is counted: the samples of a batch, or batches themselves."""
        return 1 if self.whole_batches else self.batch_size or 1

    def _place(self, samples: int) -> int:
        world = self._ranks[1]
        if self._order is None:
            return self.start + samples * world
        return self._share(len(self._order)).passed(samples)

    @property
    def ahead(self) -> list[Range]:
        """Ranges of this rank's samples, counted from `place`, that were delivered although earlier ones were not."""
        done, size = self._done, self._unit
        numbers = {number for first, last in self._passed for number in range(first, last)}
        numbers |= {self._sample(n * size + row) for n in self.cursor.ahead for row in range(size)}
        end = math.inf if self._order is None else len(self._share(len(self._order)))
        return _ranges(sorted(number - done for number in numbers if done <= number < end))

    @property
    def step(self) -> int:
        """By how much the place grows with a batch."""
        return self._unit * self._ranks[1]

    def where(self) -> dict[str, Any]:
        """What a state has of it."""
        unit = "batches" if self.whole_batches else "samples"
        return {unit: self.place, "ahead": [list(each) for each in self.ahead]}


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
    course.cursor.standings = resume.standings()
    return course


def _at(order: RandomAccess, places: Places) -> Places:
    """The indices at places that grow."""
    first = int(places[0])
    return order.indices(first, int(places[-1]) + 1)[places - first]


def _ranges(numbers: Sequence[int]) -> list[Range]:
    """Sorted numbers as ranges."""
    found: list[Range] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found


def _size(ranges: Iterable[Range]) -> int:
    return sum(last - first for first, last in ranges)


def _within(number: int, ranges: Iterable[Range]) -> bool:
    return any(first <= number < last for first, last in ranges)
