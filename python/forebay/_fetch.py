"""How samples are got: by index from a map dataset, or one after the other from a stream.

Used by workers, and by loaders without any. The rules are PyTorch's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from forebay._sample_seeds import SampleSeeds, SeededPass  # needs the engine, which not every system has

__all__ = ["FailedFetcher", "Fetcher", "MapFetcher", "RowFetcher", "StreamFetcher", "fetcher_of", "skip"]


class MapFetcher:
    """Samples of a dataset with `__getitem__`.

    Args:
        dataset: the dataset.
        auto_collation: whether a batch's indices come as a list, or one index for one sample.
        seeds: set before every sample, if the loader has a seed.
    """

    def __init__(self, dataset: Any, *, auto_collation: bool, seeds: "SampleSeeds | None" = None) -> None:
        self._dataset = dataset
        self._seeds = seeds
        self._auto_collation = auto_collation
        bulk: Callable[[Any], Any] | None = getattr(dataset, "__getitems__", None) if auto_collation else None
        self._fetch_all = bulk
        self.current: tuple[Any] | None = None
        """The index of the sample that is being made or has failed, in a tuple; None otherwise."""

    def fetch(self, indices: Any) -> Any:
        """A batch's samples, or without automatic batching the one sample."""
        self.current = None
        if self._seeds is not None:
            return self._fetch_seeded(indices, self._seeds)
        if not self._auto_collation:
            self.current = (indices,)
            sample = self._dataset[indices]
            self.current = None
            return sample
        if self._fetch_all:
            return self._fetch_all(indices)
        samples: list[Any] = []
        dataset = self._dataset
        index: Any = None
        remaining = iter(indices)
        try:
            for index in remaining:
                samples.append(dataset[index])
        except BaseException:
            self.current = (index,)
            raise
        return samples

    def _fetch_seeded(self, indices: Any, seeds: "SampleSeeds") -> Any:
        if not self._auto_collation:
            return self.fetch_row(indices)
        bulk = self._fetch_all
        if bulk is not None and hasattr(indices, "__len__") and len(indices):
            seeds.set(_first_of(indices))
            samples, drawn = seeds.draws(lambda: bulk(indices))
            if not drawn:
                return samples
            # From here on one by one: a sample's numbers must not depend on which others are asked for with it.
            self._fetch_all = None
        return [self.fetch_row(index) for index in indices]

    def fetch_row(self, index: Any) -> Any:
        """One sample, with the generators set for it."""
        try:
            if self._seeds is not None:
                self._seeds.set(index)
            return self._fetch_one(index)
        except BaseException:
            self.current = (index,)
            raise

    def _fetch_one(self, index: Any) -> Any:
        if hasattr(self._dataset, "__getitem__"):
            return self._dataset[index]
        (sample,) = self._dataset.__getitems__([index])
        return sample

    def seed_collate(self, indices: Any) -> None:
        """Called before a batch is collated by a function that may draw."""
        if self._seeds is not None:
            self._seeds.set_for_collate(_first_of(indices) if self._auto_collation else indices)


def _first_of(indices: Iterable[Any]) -> Any:
    """The index that a batch begins with, which may be of any kind; None if there is none (any more)."""
    return next(iter(indices), None)


class StreamFetcher:
    """Samples of one pass over an iterable dataset.

    Args:
        dataset: the dataset.
        auto_collation: whether samples are wanted in lists, or one by one.
        drop_last: whether a last list that is short is left out.
    """

    current = None
    """Samples of a stream have no index."""

    def __init__(self, dataset: Any, *, auto_collation: bool, drop_last: bool) -> None:
        self.samples: Iterator[Any] = iter(dataset)
        self._pass: SeededPass[Any] | None = None
        """The same with the generators set before each, if the loader has a seed."""
        self._seeds: SampleSeeds | None = None
        self._first = 0
        self._auto_collation = auto_collation
        self._drop_last = drop_last
        self.ended = False
        """Whether the last list was short, so that there are no more."""

    def fetch(self, places: Sequence[None]) -> Any:
        """As many of the next samples as there are places, or without automatic batching the next one.

        Raises:
            StopIteration: there are none left.
        """
        given = self.samples
        if self._pass is not None:
            given, self._first = self._pass, self._pass.turn
        if not self._auto_collation:
            return next(given)
        if self.ended:
            raise StopIteration
        samples = list(islice(given, len(places)))
        self.ended = len(samples) < len(places)
        if not samples or (self.ended and self._drop_last):
            raise StopIteration
        return samples

    def seed(self, seeds: "SampleSeeds", worker: int, num_workers: int, place: int) -> None:
        """From now on the generators are set before every sample, `place` of which have been given."""
        self._seeds = seeds
        self._pass = seeds.over(self.samples, worker, num_workers, place)

    @property
    def place(self) -> int | None:
        """With a seed, how many samples have been given."""
        return None if self._pass is None else self._pass.place

    def seed_collate(self, _places: Any) -> None:
        """As of `MapFetcher`."""
        if self._seeds is not None:
            self._seeds.set_for_collate(self._first)


def skip(fetcher: Any, batches: int, places: Any) -> None:
    """Reads and drops as many batches. One that fails is one of them: its exception has been raised before."""
    for _ in range(batches):
        try:
            fetcher.fetch(places)
        except StopIteration:
            return
        except Exception:  # noqa: BLE001 - the user's code may raise anything, and did so the first time
            continue


class FailedFetcher:
    """Takes the place of a fetcher that could not be made: its exception takes the place of the batches.

    For a stream of the first one only: who has no samples must not go on for ever.
    """

    current: tuple[Any] | None = None

    def __init__(self, error: BaseException, *, stream: bool) -> None:
        self._error = error
        self._traceback = error.__traceback__
        self._stream = stream
        self._raised = False

    def seed_collate(self, _indices: Any) -> None:
        """There is nothing to collate."""

    def fetch(self, _indices: Any) -> Any:
        """Raises the exception."""
        if self._stream and self._raised:
            raise StopIteration
        self._raised = True
        raise self._error.with_traceback(self._traceback)

    def fetch_row(self, _index: Any) -> Any:
        """Raises the exception."""
        raise self._error.with_traceback(self._traceback)


Fetcher: TypeAlias = MapFetcher | StreamFetcher | FailedFetcher
RowFetcher: TypeAlias = MapFetcher | FailedFetcher


def fetcher_of(
    dataset: Any,
    *,
    stream: bool,
    auto_collation: bool,
    drop_last: bool,
    seeds: "SampleSeeds | None" = None,
    worker: tuple[int, int] = (0, 1),
) -> Fetcher:
    """The fetcher for a dataset of either kind; for a stream, a new pass over it by one `worker` of so many."""
    if not stream:
        return MapFetcher(dataset, auto_collation=auto_collation, seeds=seeds)
    if seeds is not None:
        seeds.set_for_pass(worker[0])
    fetcher = StreamFetcher(dataset, auto_collation=auto_collation, drop_last=drop_last)
    if seeds is not None:
        fetcher.seed(seeds, *worker, 0)
    return fetcher
