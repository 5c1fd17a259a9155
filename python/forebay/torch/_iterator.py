"""Iterators of the torch front whose batches are made by worker processes."""

import contextlib
from typing import Any

import torch
from torch._utils import ExceptionWrapper
from torch.utils.data.dataloader import _BaseDataLoaderIter, _DatasetKind, _MultiProcessingDataLoaderIter

from forebay import _ledger
from forebay._journey import Journey, SampleError
from forebay._report import WorkerTraceback
from forebay._seeding import shares_rows
from forebay.torch._bookmark import open_bookmark
from forebay.torch._front import make_front, prepare
from forebay.torch._gather import gathers
from forebay.torch._pinning import MOST_AHEAD, Pinned, Pinner
from forebay.torch._places import drawn_here

__all__ = ["WorkersIterator"]


class WorkersIterator(_MultiProcessingDataLoaderIter):
    """An epoch (or, with persistent workers, all epochs) of a loader.

    An instance of torch's own class, because libraries ask for that.
    """

    _account: _ledger.Account | None = None
    _num_before = 0
    """Of `_num_yielded`, how many were delivered before this epoch was resumed."""

    def __init__(self, loader: torch.utils.data.DataLoader[Any]) -> None:
        bookmark = open_bookmark(loader)
        # Everything of torch's multi-process iterator but its workers and queues.
        with bookmark.drawing():
            _BaseDataLoaderIter.__init__(self, loader)
        self._profile_name = f"enumerate(DataLoader)#{_MultiProcessingDataLoaderIter.__name__}.__next__"
        self._prefetch_factor = loader.prefetch_factor
        self._in_order = loader.in_order
        self._pinner: Pinner | None = None
        self._base_seed = bookmark.base_seed(loader, int(self._base_seed))
        self._journey = Journey.of_loader(
            loader,
            make_front(),
            stream=loader._dataset_kind == _DatasetKind.Iterable,
            auto_collation=loader._auto_collation,
            base_seed=self._base_seed,
            prepare=prepare,
            standings=bookmark.cursor.standings,
            seed=bookmark.seed,
            epoch=bookmark.epoch,
            shares_rows=bookmark.seed is not None and shares_rows(loader, gathers=gathers(loader.dataset)),
        )
        self._workers: Any = self._journey.processes
        self._bookmark = bookmark
        if self._pin_memory:  # not before: a thread and a fork do not go together
            self._pinner = Pinner(str(self._pin_memory_device), loader.timeout)
            self._pin_memory_thread = self._pinner.thread
            # Without order, which worker gets the next indices depends on how many of its batches were delivered.
            most = MOST_AHEAD if loader.in_order else 0
            self._journey.take_ahead(most, self._pinner.start, self._pinner.await_end)
        self._reset(loader, first_iter=True)

    def _reset(self, loader: torch.utils.data.DataLoader[Any], first_iter: bool = False) -> None:
        if self._account is not None:
            self._account.finish(self)
        if not first_iter:
            self._bookmark = open_bookmark(loader, before=self._bookmark)
        bookmark = self._bookmark
        bookmark.record(loader)
        with bookmark.drawing():
            _BaseDataLoaderIter._reset(self, loader, first_iter)
        if not bookmark.draws_itself:
            self._sampler_iter = drawn_here(self._index_sampler) or self._sampler_iter
        self._sampler_iter = bookmark.batches(loader, self._sampler_iter)
        self._num_yielded = self._num_before = bookmark.delivered_before
        self._journey.begin(
            self._sampler_iter,
            bookmark.cursor,
            bookmark.first_worker,
            epoch=bookmark.epoch,
            as_places=bookmark.gives_places,
        )

    def __len__(self) -> int:
        return len(self._bookmark)

    def __next__(self) -> Any:
        # Torch's own also compares what an iterable dataset gives with what its length promised.
        told: int | None = self._IterableDataset_len_called
        if told is not None or torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
            return super().__next__()
        batch = self._next_data()
        self._num_yielded += 1
        return batch

    def _next_data(self) -> Any:
        if self._pinner is None:
            return self._next_batch()
        try:
            pinned: Pinned = self._next_batch()
        finally:
            if self._journey.ended:
                self._pinner.close()
        return pinned.result()

    def _next_batch(self) -> Any:
        try:
            return self._journey.next()
        except SampleError as error:
            _reraise(error)

    @property
    def ended(self) -> bool:
        """Whether there are no workers any more."""
        return self._journey.ended

    def close(self) -> None:
        """Ends the workers."""
        self._shutdown_workers()

    def _shutdown_workers(self) -> None:
        journey, pinner = getattr(self, "_journey", None), getattr(self, "_pinner", None)
        try:
            if journey is not None:
                journey.close()
        finally:
            if pinner is not None:  # not before: until then, another thread may give it batches
                pinner.close()

    def __del__(self) -> None:
        # Half-built iterators, forked children and the end of the interpreter come here too.
        with contextlib.suppress(Exception):
            if self._account is not None:
                self._account.finish(self)
            self._shutdown_workers()


def _reraise(error: SampleError) -> None:
    """Raises what torch raises for a worker's exception: its type and text, with the original as the cause."""
    report = error.report
    wrapper: Any = ExceptionWrapper.__new__(ExceptionWrapper)
    wrapper.exc_type = report.exception_type() or RuntimeError
    wrapper.exc_msg = report.text
    wrapper.where = f"in DataLoader worker process {error.worker}"
    try:
        wrapper.reraise()
    except BaseException as raised:
        raised.__cause__ = report.exception()
        if not _shows(raised, report.text):
            (raised.__cause__ or raised).__cause__ = WorkerTraceback(report.text)
        raised.__suppress_context__ = True
        error.add_notes(raised)
        raise


def _shows(raised: BaseException, text: str) -> bool:
    """Whether the worker's traceback is in the exception's own text.

    It is not where torch fails to make the type again, nor where an exception shows itself in a way of its own.
    """
    try:
        return text in str(raised)
    except Exception:  # noqa: BLE001 - a user's __str__ may raise anything
        return False
