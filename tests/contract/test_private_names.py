"""2.9 Private names: those of torch's loader and iterators that libraries, profilers and tests use."""

import os
from typing import Any

import pytest
import torch
from laws import differs
from subjects import Calls, Squares, Stream
from torch.utils.data.dataloader import (
    _BaseDataLoaderIter,
    _DatasetKind,
    _MultiProcessingDataLoaderIter,
    _SingleProcessDataLoaderIter,
)

from support import flat


def test_iterators_are_instances_of_torchs_classes(kind: Any) -> None:
    inline, working = iter(kind([1])), iter(kind([1], num_workers=1))
    assert isinstance(inline, _SingleProcessDataLoaderIter)
    assert isinstance(working, _MultiProcessingDataLoaderIter)
    assert isinstance(inline, _BaseDataLoaderIter)
    assert not isinstance(inline, _MultiProcessingDataLoaderIter)


def test_a_loader_is_an_instance_of_torchs_class(kind: Any) -> None:
    assert isinstance(kind([1]), torch.utils.data.DataLoader)
    assert issubclass(kind, torch.utils.data.DataLoader)


def test_a_loader_tells_its_index_sampler_and_whether_it_collates(kind: Any) -> None:
    batched, single = kind(Squares(3)), kind(Squares(3), batch_size=None)
    assert (batched._auto_collation, single._auto_collation) == (True, False)
    assert batched._index_sampler is batched.batch_sampler
    assert single._index_sampler is single.sampler


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iterator_has_the_fields_of_its_loader(kind: Any, workers: int) -> None:
    dataset, generator = Squares(5), torch.Generator()
    loader = kind(dataset, batch_size=2, drop_last=True, num_workers=workers, generator=generator)
    iterator = iter(loader)
    assert iterator._dataset is dataset
    assert iterator._dataset_kind == _DatasetKind.Map
    assert iterator._auto_collation is True
    assert iterator._drop_last is True
    assert iterator._index_sampler is loader.batch_sampler
    assert iterator._num_workers == workers
    assert iterator._collate_fn is loader.collate_fn
    assert (iterator._timeout, iterator._persistent_workers, iterator._pin_memory) == (0, False, False)
    assert iterator._IterableDataset_len_called is None
    assert type(iterator._base_seed) is int
    assert iter(kind(Stream(1)))._dataset_kind == _DatasetKind.Iterable


def test_an_iterator_with_workers_tells_how_far_it_runs_ahead(kind: Any) -> None:
    iterator = iter(kind(Squares(5), num_workers=2, prefetch_factor=3, in_order=False))
    assert (iterator._prefetch_factor, iterator._in_order) == (3, False)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iterator_counts_the_batches_it_has_given(kind: Any, workers: int) -> None:
    loader = kind(Squares(3), num_workers=workers)
    iterator = iter(loader)
    counts = [iterator._num_yielded]
    for _ in iterator:
        counts.append(iterator._num_yielded)  # noqa: PERF401 - it is read in between
    assert counts == [0, 1, 2, 3]


def test_a_persistent_iterator_counts_anew_in_each_epoch(kind: Any) -> None:
    loader = kind(Squares(3), num_workers=1, persistent_workers=True)
    for _ in range(2):
        iterator = iter(loader)
        assert iterator._num_yielded == 0
        list(iterator)
        assert iterator._num_yielded == 3


def test_batches_that_were_errors_are_not_counted(kind: Any) -> None:
    def make(index: int) -> int:
        return 1 // index

    for workers in (0, 1):
        iterator = iter(kind(Calls(3, make), num_workers=workers))
        with pytest.raises(ZeroDivisionError):
            next(iterator)
        next(iterator)
        assert iterator._num_yielded == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_the_iterator_over_the_sampler_can_be_read_on(kind: Any, workers: int) -> None:
    iterator = iter(kind(Squares(9), num_workers=workers, prefetch_factor=2 if workers else None))
    ahead = 2 * workers
    assert next(iterator._sampler_iter) == [ahead]
    assert iterator._next_index() == [ahead + 1]
    rest = flat(iterator)
    assert rest == [number * number for number in range(9) if number not in (ahead, ahead + 1)]


@differs(
    "there are no such queues; who extends torch's iterators extends torch's own, and those work on Forebay's loader",
    torch="`_index_queues`, `_worker_result_queue`, `_task_info`, `_tasks_outstanding`, `_try_put_index` and others",
    ours="none of them",
)
def test_the_books_of_torchs_queues(kind: Any, stock: bool) -> None:
    iterator = iter(kind(Squares(6), num_workers=2))
    for name in ("_index_queues", "_worker_result_queue", "_data_queue", "_task_info", "_tasks_outstanding"):
        assert hasattr(iterator, name) == stock
    extended = Extended(kind(Squares(6), num_workers=2))
    assert flat(extended) == [0, 1, 4, 9, 16, 25]
    assert extended.most == 4


class Extended(_MultiProcessingDataLoaderIter):
    """Watches how far torch's iterator runs ahead."""

    most = 0

    def _try_put_index(self) -> None:
        super()._try_put_index()
        self.most = max(self.most, self._tasks_outstanding)


def test_workers_are_processes_with_pid_is_alive_join_exitcode_and_terminate(kind: Any) -> None:
    iterator = iter(kind(Squares(4), num_workers=2, persistent_workers=True))
    assert len(list(iterator)) == 4
    workers = iterator._workers
    assert len(workers) == 2
    assert all(type(worker.pid) is int and worker.pid != os.getpid() for worker in workers)
    assert all(worker.is_alive() and worker.exitcode is None and worker.daemon for worker in workers)
    workers[0].join(timeout=0)
    iterator._shutdown_workers()
    for worker in workers:
        worker.join()
        worker.terminate()
        assert (worker.is_alive(), worker.exitcode) == (False, 0)


def test_reset_begins_a_new_epoch(kind: Any) -> None:
    loader = kind(Squares(4), num_workers=2, persistent_workers=True)
    iterator = iter(loader)
    next(iterator)
    for options in ({}, {"first_iter": False}):
        iterator._reset(loader, **options)
        assert flat(iterator) == [0, 1, 4, 9]


def test_there_is_a_pin_memory_thread_only_where_memory_is_pinned(kind: Any) -> None:
    assert not hasattr(iter(kind([1], num_workers=1)), "_pin_memory_thread")
    assert not hasattr(iter(kind([1])), "_pin_memory_thread")


@pytest.mark.parametrize(
    ("workers", "name"), [(0, "_SingleProcessDataLoaderIter"), (1, "_MultiProcessingDataLoaderIter")]
)
def test_profilers_see_next_under_torchs_name(kind: Any, workers: int, name: str) -> None:
    iterator = iter(kind([1, 2], num_workers=workers))
    expected = f"enumerate(DataLoader)#{name}.__next__"
    assert iterator._profile_name == expected
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        assert flat(iterator) == [1, 2]
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts[expected] == 3  # two batches and the end


def test_an_iterator_names_its_class_as_it_refuses_to_be_pickled(kind: Any) -> None:
    iterator = iter(kind([1]))
    with pytest.raises(NotImplementedError) as refused:
        iterator.__getstate__()
    assert refused.value.args == ("{} cannot be pickled", type(iterator).__name__)
