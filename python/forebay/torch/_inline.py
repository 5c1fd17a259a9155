"""The iterator of a torch loader without workers: batches are made where they are used."""

from typing import Any

import torch
from torch.utils.data._utils import pin_memory as torch_pinning
from torch.utils.data.dataloader import _BaseDataLoaderIter, _DatasetKind, _SingleProcessDataLoaderIter

from forebay import _ledger
from forebay._fetch import skip
from forebay._stateful import restore_iterator
from forebay.torch._bookmark import open_bookmark
from forebay.torch._gather import GatheringFetcher
from forebay.torch._order import draws_when_advanced
from forebay.torch._places import drawn_here, places_of_batches
from forebay.torch._seeded import SeededBookmark, SeededFetcher
from forebay.torch._state import Resume

__all__ = ["InlineIterator"]


class InlineIterator(_SingleProcessDataLoaderIter):
    """One epoch of a loader without workers.

    An instance of torch's own class, because libraries ask for that.
    """

    _account: _ledger.Account | None = None
    _places: GatheringFetcher | SeededFetcher | None = None
    """What takes a batch's indices as an array, if they come as that."""
    _num_before = 0
    """Of `_num_yielded`, how many were delivered before this epoch was resumed."""
    _drawn = False
    """Whether the indices of a batch were drawn that has not been delivered."""

    def __init__(self, loader: torch.utils.data.DataLoader[Any]) -> None:
        self._bookmark = open_bookmark(loader)
        self._unbegun: torch.utils.data.DataLoader[Any] | None = loader
        """The loader, until its sampler is asked for the first time."""
        if not draws_when_advanced(loader._index_sampler):
            self._bookmark.record(loader, seeded_between=True)
        if isinstance(self._bookmark, SeededBookmark):
            if loader.timeout != 0:
                raise AssertionError("_SingleProcessDataLoaderIter requires timeout == 0")
            with self._bookmark.drawing():
                _BaseDataLoaderIter.__init__(self, loader)  # torch's own would begin a pass over a stream
        else:
            super().__init__(loader)
        self._profile_name = f"enumerate(DataLoader)#{_SingleProcessDataLoaderIter.__name__}.__next__"
        if isinstance(self._bookmark, SeededBookmark):
            self._dataset_fetcher = SeededFetcher(loader, self._bookmark)
            self._places = self._dataset_fetcher if self._bookmark.gives_places else None
        elif self._dataset_kind == _DatasetKind.Map:
            self._dataset_fetcher = GatheringFetcher(
                self._dataset, self._auto_collation, self._collate_fn, self._drop_last
            )
        self._base_seed = self._bookmark.base_seed(loader, int(self._base_seed))
        self._bookmark.watch(self._dataset_fetcher)
        if self._dataset_kind == _DatasetKind.Iterable and self._bookmark.resume is not None:
            self._go_on(self._bookmark.resume)
        self._sampler_iter = self._bookmark.batches(loader, self._sampler_iter)
        self._num_yielded = self._num_before = self._bookmark.delivered_before

    def __len__(self) -> int:
        return len(self._bookmark)

    def __next__(self) -> Any:
        # Torch's own also compares what an iterable dataset gives with what its length promised, and begins again.
        told: Any = self._IterableDataset_len_called
        indices: Any = self._sampler_iter
        if told is not None or indices is None or torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
            return super().__next__()
        batch = self._next_data()
        self._num_yielded += 1
        return batch

    def _begin_order(self, loader: torch.utils.data.DataLoader[Any]) -> None:
        """Called before the sampler is asked for the first time, and not sooner: it may have been replaced until then.

        Accelerate puts another sampler inside the loader's when the epoch has begun.
        """
        self._bookmark.record(loader)
        if self._bookmark.draws_itself:
            return
        fetcher: Any = self._dataset_fetcher
        gathers = isinstance(fetcher, GatheringFetcher) and fetcher.takes_places
        batches = places_of_batches(self._index_sampler) if gathers else None
        if batches is not None:
            self._sampler_iter, self._places = batches, fetcher
        else:
            self._sampler_iter = drawn_here(self._index_sampler) or self._sampler_iter

    def _go_on(self, resume: Resume) -> None:
        """Brings a new stream to where it stood."""
        fetcher: Any = self._dataset_fetcher
        (held,) = resume.held or [{"batches": resume.position}]
        if "dataset" in held or "iterator" in held:
            restore_iterator(fetcher.dataset_iter, held)
            fetcher.ended = bool(held.get("ended"))
            return
        skip(fetcher, held["batches"], next(self._sampler_iter))

    def _next_index(self) -> Any:
        index = self._draw()
        return index if self._places is None else index.tolist()

    def _draw(self) -> Any:
        if self._unbegun is not None:
            self._begin_order(self._unbegun)
            self._unbegun = None
        index = next(self._sampler_iter)
        self._bookmark.cursor.position += self._drawn  # one that was interrupted does not come again
        self._drawn = True
        return index

    def _fetch(self, index: Any) -> Any:
        fetcher = self._dataset_fetcher
        return fetcher.fetch(index) if self._places is None else self._places.fetch_places(index)

    def _next_data(self) -> Any:
        try:
            data = self._fetch(self._draw())
            if self._pin_memory:
                data = torch_pinning.pin_memory(data, self._pin_memory_device)  # type: ignore[no-untyped-call]
        except StopIteration:
            self._bookmark.cursor.finished = True
            raise
        except Exception:
            self._pass()
            raise
        self._pass()
        return data

    def _pass(self) -> None:
        """A batch, or an exception in its place, is the program's now; an error of the sampler is no batch."""
        self._bookmark.cursor.position += self._drawn
        self._drawn = False

    def __del__(self) -> None:
        if self._account is not None:
            self._account.finish(self)
