"""Epochs of a torch loader with a seed: what its iterators and its state need of them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from torch.utils.data.dataloader import _DatasetKind

from forebay import _resume
from forebay._course import Course, Places, StreamCourse, open_course
from forebay._inline import InlineBench
from forebay._resume import Resume, State, check_workers, warn_of_skipping
from forebay._sample_seeds import lent_streams
from forebay.torch._gather import gather_places
from forebay.torch._state import DELIVERED, KEY, state_of_epoch

if TYPE_CHECKING:
    from forebay._seeding import Seeding

__all__ = ["SeededBookmark", "SeededFetcher", "length_of_epoch"]


class SeededBookmark:
    """One epoch of a loader with a seed. The iterators treat it as any `Bookmark`.

    Args:
        loader: whose epoch begins, from its loaded state if there is one.

    Attributes:
        course: the epoch.
        seed: of the loader.
    """

    resume = None
    draws_itself = True

    def __init__(self, loader: Any) -> None:
        seeding: Seeding = loader._seeding
        resume: Resume | None = loader._resume
        self.stream = loader._dataset_kind == _DatasetKind.Iterable
        self._num_workers = int(loader.num_workers)
        self.delivered_before = 0 if resume is None or not resume.in_epoch else _delivered(resume)
        """Batches of this epoch that were delivered before it went on."""
        if resume is not None:
            check_workers(resume, self._num_workers)
            if self.stream and resume.in_epoch:
                warn_of_skipping(resume.held)
        self.course: Course | StreamCourse = open_course(loader, seeding, resume, stream=self.stream)
        self.seed = seeding.seed
        loader._bookmark = self

    @property
    def cursor(self) -> Any:
        """The delivered batches."""
        return self.course.cursor

    @property
    def epoch(self) -> int:
        """The number of the epoch."""
        return self.course.epoch

    @property
    def gives_places(self) -> bool:
        """Whether indices come as arrays."""
        return self.course.gives_places

    @property
    def first_worker(self) -> int:
        """Who makes the first batch."""
        return self.course.first_worker(self._num_workers)

    def __len__(self) -> int:
        return len(self.course)

    def drawing(self) -> AbstractContextManager[None]:
        """Held while torch's own iterator draws for the epoch: of that the program notices nothing."""
        return lent_streams()

    def base_seed(self, _loader: Any, _drawn: int) -> int:
        """The seed of the workers."""
        return self.course.base_seed

    def record(self, _loader: Any, *, seeded_between: bool = False) -> None:
        """Nothing is drawn from generators."""

    def batches(self, _loader: Any, _iterator: Iterator[Any]) -> Iterator[Any]:
        """The indices of the batches to deliver."""
        return self.course.batches()

    def watch(self, _fetcher: Any) -> None:
        """`SeededFetcher` sees to that."""

    def describe(self, loader: Any) -> State:
        """This epoch, as a state has it."""
        cursor, ours = self.cursor, _resume.describe(self.course, loader)
        return state_of_epoch(self.delivered_before + cursor.delivered, cursor.finished, ours, self.course.step)


class SeededFetcher:
    """What makes the batches of an iterator without workers.

    Args:
        loader: the loader.
        bookmark: its epoch.
    """

    def __init__(self, loader: Any, bookmark: SeededBookmark) -> None:
        self.dataset = loader.dataset
        self._bench = InlineBench(
            loader, bookmark.course, stream=bookmark.stream, auto_collation=loader._auto_collation
        )
        self._collate_fn = loader.collate_fn

    def fetch(self, indices: Any) -> Any:
        """The batch at these indices."""
        return self._bench.make(indices)

    def fetch_places(self, places: Places) -> Any:
        """The batch at the indices in this array."""
        batch = gather_places(self.dataset, places, self._collate_fn)
        return self._bench.make(places.tolist()) if batch is None else batch


def _delivered(resume: Resume) -> int:
    counted: int = min(resume.state[DELIVERED], resume.state[KEY]["delivered"])
    return counted


def length_of_epoch(loader: Any) -> int:
    """The number of batches of a whole epoch of a map dataset."""
    seeding: Seeding = loader._seeding
    return len(Course(loader, seeding, seeding.next_epoch))
