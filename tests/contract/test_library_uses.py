"""2 What libraries do to loaders: each use in a few lines of one's own.

The libraries themselves are run in tests of their own; here are the seams that they use.
"""

import contextlib
import copy
import inspect
import multiprocessing
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from subjects import Calls, Halves, Squares, as_is, asking, column
from torch.utils.data import BatchSampler, SequentialSampler, get_worker_info
from torch.utils.data._utils import worker as torch_worker
from torch.utils.data.dataloader import (
    _BaseDataLoaderIter,
    _DatasetKind,
    _MultiProcessingDataLoaderIter,
    _SingleProcessDataLoaderIter,
)
from torch.utils.data.distributed import DistributedSampler

from support import flat, values, wait_for_ends, watch

SQUARES = [0, 1, 4, 9, 16]


class Repeating:
    """A batch sampler without end."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from iter(self.sampler)


# -- Lightning


def made_again(loader: Any, sampler: Any) -> Any:
    """The same loader with another sampler, made of the attributes that its constructor has arguments for."""
    attributes = {name: value for name, value in vars(loader).items() if not name.startswith("_")}
    attributes["multiprocessing_context"] = loader.multiprocessing_context
    parameters = inspect.signature(type(loader).__init__).parameters
    changed = {
        name: attributes[name]
        for name, parameter in parameters.items()
        if name in attributes and (attributes[name] is not parameter.default or name == "dataset")
    }
    batches = BatchSampler(sampler, loader.batch_size, loader.drop_last)
    unset = {"sampler": None, "shuffle": False, "batch_size": 1, "drop_last": False}
    return type(loader)(**{**changed, **unset, "batch_sampler": batches})


def test_a_loader_is_made_again_from_its_attributes_with_another_sampler(kind: Any) -> None:
    class Named(kind):
        def __init__(self, dataset: Any, *, extra: str = "", **rest: Any) -> None:
            super().__init__(dataset, **rest)
            self.extra = extra

    loader = kind(Squares(5), batch_size=2, num_workers=1, multiprocessing_context="fork", timeout=60)
    again = made_again(loader, DistributedSampler(loader.dataset, num_replicas=2, rank=1, shuffle=False))
    assert type(again) is kind
    assert (again.num_workers, again.timeout, again.prefetch_factor) == (1, 60, 2)
    assert values(again) == [[1, 9], [0]]
    named = Named(Squares(5), extra="kept", batch_size=2)
    assert type(named)(named.dataset, extra=named.extra).extra == "kept"


def test_constructor_and_attributes_can_be_recorded_and_replayed(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    later: list[tuple[str, Any]] = []
    inside = [0]
    begin, change = kind.__init__, kind.__setattr__

    def recording_init(self: Any, *arguments: Any, **options: Any) -> None:
        made.append((arguments, options))
        inside[0] += 1
        begin(self, *arguments, **options)
        inside[0] -= 1

    def recording_change(self: Any, name: str, value: Any) -> None:
        if not inside[0]:
            later.append((name, value))
        change(self, name, value)

    monkeypatch.setattr(kind, "__init__", recording_init)
    monkeypatch.setattr(kind, "__setattr__", recording_change)
    loader = kind(Squares(5), 2, num_workers=1)
    loader.worker_init_fn = mark
    (arguments, options) = made[0]
    assert (arguments[1], options) == (2, {"num_workers": 1})
    recorded = later.copy()
    again = kind(*arguments, **options)
    for name, value in recorded:
        setattr(again, name, value)
    assert again.worker_init_fn is mark
    assert flat(again) == SQUARES


def mark(worker: int) -> None:
    get_worker_info().dataset.mark = 10 + worker


def test_del_iterator_ends_its_workers_and_the_loader_can_be_used_again(kind: Any) -> None:
    loader = kind(Squares(5), num_workers=2, persistent_workers=True)
    next(iter(loader))
    assert isinstance(loader._iterator, _MultiProcessingDataLoaderIter)
    ends = watch(worker.pid for worker in loader._iterator._workers)
    del loader._iterator
    loader._iterator = None
    wait_for_ends(ends)
    assert flat(loader) == SQUARES


def test_a_loader_that_is_not_persistent_can_be_read_after_del_iterator(kind: Any) -> None:
    for workers in (0, 1):
        loader = kind(Squares(5), num_workers=workers)
        list(loader)
        del loader._iterator
        assert flat(loader) == SQUARES


def test_a_loader_without_its_iterators_can_be_pickled_by_who_knows_their_class(kind: Any) -> None:
    class Holder:
        def __init__(self, loader: Any) -> None:
            self.iterators = [iter(loader), 7]

        def __getstate__(self) -> Any:
            kept = [held for held in self.iterators if not isinstance(held, _BaseDataLoaderIter)]
            return {"iterators": kept}

    holder = Holder(kind(Squares(5), num_workers=1))
    assert holder.__reduce_ex__(2)[2] == {"iterators": [7]}


def test_a_wrapper_may_take_over_a_loaders_attributes(kind: Any) -> None:
    class Wrapper:
        def __init__(self, loader: Any) -> None:
            self.__dict__.update(loader.__dict__)
            self.loader = loader

        def __iter__(self) -> Iterator[Any]:
            return iter(self.loader)

    loader = kind(Squares(5), num_workers=1)
    wrapper = Wrapper(loader)
    assert (wrapper.dataset, wrapper.num_workers) == (loader.dataset, 1)
    assert flat(wrapper) == SQUARES
    del wrapper
    assert flat(loader) == SQUARES


def test_a_loader_of_torchs_may_take_over_the_attributes_too(kind: Any) -> None:
    class Wrapper(torch.utils.data.DataLoader):
        def __init__(self, loader: Any) -> None:
            self.__dict__.update(loader.__dict__)

    assert flat(Wrapper(kind(Squares(5), num_workers=1))) == SQUARES


# -- Accelerate, Transformers


def test_an_adapter_may_say_that_it_is_of_the_loaders_class(kind: Any) -> None:
    class Adapter:
        def __init__(self, loader: Any) -> None:
            self.base = loader

        def __getattr__(self, name: str) -> Any:
            return getattr(self.__dict__["base"], name)

        @property
        def __class__(self) -> Any:  # type: ignore[override]
            return self.base.__class__

        def __iter__(self) -> Iterator[Any]:
            return iter(self.base)

    adapter = Adapter(kind(Squares(5), batch_size=2, num_workers=1))
    assert isinstance(adapter, torch.utils.data.DataLoader)
    assert (adapter.batch_size, adapter.batch_sampler.drop_last) == (2, False)
    assert flat(adapter) == SQUARES


def test_a_loader_may_be_made_of_a_list_of_options_and_a_batch_sampler(kind: Any) -> None:
    names = [
        "num_workers",
        "collate_fn",
        "pin_memory",
        "timeout",
        "worker_init_fn",
        "multiprocessing_context",
        "generator",
    ]
    names += ["prefetch_factor", "persistent_workers", "pin_memory_device", "in_order"]
    loader = kind(Squares(5), batch_size=2, num_workers=1)
    options = {name: getattr(loader, name) for name in names}
    again = kind(loader.dataset, batch_sampler=BatchSampler(SequentialSampler(range(4)), 3, False), **options)
    assert values(again) == [[0, 1, 4], [9]]


def test_the_samplers_generator_may_be_replaced(kind: Any) -> None:
    loader = kind(range(20), shuffle=True, num_workers=1)
    loader.sampler.generator = torch.Generator().manual_seed(3)
    expected = torch.randperm(20, generator=torch.Generator().manual_seed(3)).tolist()
    assert flat(loader) == expected


def test_one_batch_ahead_of_use_both_are_whole(kind: Any) -> None:
    loader = kind([torch.full((5000,), number) for number in range(6)], num_workers=2)
    iterator = iter(loader)
    current, found = next(iterator), []
    for following in iterator:
        found.append(set(current.flatten().tolist()))
        current = following
    assert found == [{0}, {1}, {2}, {3}, {4}]
    assert set(current.flatten().tolist()) == {5}


# -- timm, Ultralytics


def test_a_loader_may_be_opened_to_replace_its_batch_sampler_by_one_without_end(kind: Any) -> None:
    class Endless(kind):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._DataLoader__initialized = False
            self.batch_sampler = Repeating(self.batch_sampler)
            self._DataLoader__initialized = True
            self.iterator = super().__iter__()

        def __len__(self) -> int:
            return len(self.batch_sampler.sampler)

        def __iter__(self) -> Iterator[Any]:
            for _ in range(len(self)):
                yield next(self.iterator)

    loader = Endless(asking(5), num_workers=2)
    epochs = [list(loader) for _ in range(3)]
    assert [column(epoch, 0) for epoch in epochs] == [[0, 1, 2, 3, 4]] * 3
    assert len({pid for epoch in epochs for pid in column(epoch, 2)}) == 2
    with pytest.raises(ValueError, match="attribute should not be set after Endless is initialized"):
        loader.batch_sampler = None
    loader.iterator._shutdown_workers()


def test_a_loaders_batch_sampler_may_be_replaced_past_its_guard_and_its_workers_be_terminated(kind: Any) -> None:
    class Endless(kind):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            object.__setattr__(self, "batch_sampler", Repeating(self.batch_sampler))
            self.iterator = super().__iter__()

        def __len__(self) -> int:
            return len(self.batch_sampler.sampler)

        def __iter__(self) -> Iterator[Any]:
            for _ in range(len(self)):
                yield next(self.iterator)

        def reset(self) -> None:
            self.iterator = self._get_iterator()

        def end(self) -> None:
            for worker in self.iterator._workers:
                if worker.is_alive():
                    worker.terminate()
            self.iterator._shutdown_workers()

    loader = Endless(Squares(5), num_workers=2)
    assert [flat(loader) for _ in range(2)] == [SQUARES] * 2
    loader.reset()
    assert flat(loader) == SQUARES
    with contextlib.suppress(RuntimeError):  # torch's loader may take their end for a failure
        loader.end()
    loader.iterator._shutdown_workers()
    assert not any(worker.is_alive() for worker in loader.iterator._workers)


# -- fastai


class Pretended:
    """What an iterator may ask of a loader, and no more."""

    _IterableDataset_len_called = None
    _dataset_kind = _DatasetKind.Map
    _auto_collation = False
    drop_last = False
    generator = None
    prefetch_factor = 2
    in_order = True
    timeout = 0
    pin_memory = False
    pin_memory_device = ""
    persistent_workers = False
    worker_init_fn = None
    multiprocessing_context = multiprocessing

    def __init__(self, dataset: Any, num_workers: int, **others: Any) -> None:
        self.dataset = dataset
        self.num_workers = num_workers
        self._index_sampler = list(range(3))
        self.__dict__.update(others)

    @staticmethod
    def collate_fn(sample: Any) -> Any:
        return sample


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_iterators_can_be_made_of_anything_that_looks_like_a_loader(kind: Any, workers: int) -> None:
    made = type(iter(kind([1], num_workers=workers)))
    assert issubclass(made, _MultiProcessingDataLoaderIter if workers else _SingleProcessDataLoaderIter)
    assert list(made(Pretended(Squares(3), workers))) == [0, 1, 4]
    batched = Pretended(Squares(3), workers, _auto_collation=True, _index_sampler=[[0, 1], [2]])
    assert list(made(batched)) == [[0, 1], [4]]
    stream = Pretended(Halves(4), 1, _dataset_kind=_DatasetKind.Iterable, _index_sampler=[None] * 9)
    if workers:
        assert list(made(stream)) == [(0, 0), (1, 0), (2, 0), (3, 0)]


# -- Ignite, composer, mmengine


def test_a_loader_is_made_again_from_all_its_public_attributes(kind: Any) -> None:
    loader = kind(Squares(5), batch_size=2, num_workers=1)
    left_out = ("batch_size", "sampler", "drop_last", "batch_sampler")
    options = {name: value for name, value in vars(loader).items() if not name.startswith("_") and name not in left_out}
    assert values(type(loader)(**options, batch_sampler=[[4], [3, 2]])) == [[16], [9, 4]]


def test_an_iterator_that_is_at_work_is_known_by_the_attribute(kind: Any) -> None:
    loader = kind(Squares(5), num_workers=1, persistent_workers=True)
    assert loader._iterator is None
    list(loader)
    assert loader._iterator is not None
    loader._iterator._shutdown_workers()
    loader._iterator = None
    assert flat(loader) == SQUARES


# -- PyG


class Transforming:
    """Changes the batches of an iterator."""

    def __init__(self, iterator: Any) -> None:
        self.iterator = iterator
        self.resets = 0

    def __iter__(self) -> "Transforming":
        return self

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        self.resets += 1
        self.iterator._reset(loader, first_iter)

    def __len__(self) -> int:
        return len(self.iterator)

    def __next__(self) -> int:
        return int(next(self.iterator)) + 100


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}], ids=str)
def test_a_subclass_may_wrap_the_iterator_it_gets(kind: Any, options: dict[str, Any]) -> None:
    class Wrapping(kind):
        def _get_iterator(self) -> Any:
            return Transforming(super()._get_iterator())

    loader = Wrapping(Squares(5), **options)
    for _ in range(2):
        iterator = iter(loader)
        assert len(iterator) == 5
        assert list(iterator) == [100, 101, 104, 109, 116]
    assert iterator.resets == (1 if loader.persistent_workers else 0)


def test_an_iterator_may_be_ended_by_its_finaliser(kind: Any) -> None:
    iterator = iter(kind(Squares(5), num_workers=2, persistent_workers=True))
    next(iterator)
    assert isinstance(iterator, _MultiProcessingDataLoaderIter)
    for _ in range(2):
        iterator.__del__()
    assert not any(worker.is_alive() for worker in iterator._workers)


def test_worker_init_fn_may_be_swapped_for_the_time_of_an_iteration(kind: Any) -> None:
    loader = kind(asking(4), num_workers=2)
    before, loader.worker_init_fn = loader.worker_init_fn, mark
    assert column(loader, 4) == [10, 11, 10, 11]
    loader.worker_init_fn = before
    assert column(loader, 4) == [0, 0, 0, 0]


# -- litdata, MONAI, webdataset, HF datasets


def test_a_subclass_may_bring_an_iterator_of_its_own(kind: Any) -> None:
    class Watching(_MultiProcessingDataLoaderIter):
        most = 0

        def _try_put_index(self) -> None:
            super()._try_put_index()
            self.most = max(self.most, self._tasks_outstanding)

    class Bringing(kind):
        def _get_iterator(self) -> Any:
            return Watching(self)

    loader = Bringing(Squares(5), num_workers=2)
    iterator = iter(loader)
    assert type(iterator) is Watching
    assert flat(iterator) == SQUARES
    assert iterator.most == 4


def test_torchs_function_for_workers_may_be_replaced_while_an_iterator_of_ones_own_starts(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = torch_worker._worker_loop

    def counting(kind_: Any, holder: Any, *others: Any) -> None:
        holder[0].mark = 5
        loop(kind_, holder, *others)

    monkeypatch.setattr(torch_worker, "_worker_loop", counting)
    assert column(_MultiProcessingDataLoaderIter(kind(asking(2), num_workers=1)), 4) == [5, 5]


def test_get_worker_info_may_have_been_imported_by_name_long_before(kind: Any) -> None:
    dataset = Calls(2, lambda _: (get_worker_info().id, get_worker_info().num_workers))
    assert list(kind(dataset, batch_size=None, num_workers=2, collate_fn=as_is)) == [(0, 2), (1, 2)]


def test_loaders_of_which_one_is_copied_are_read_side_by_side(kind: Any) -> None:
    loader = kind(Squares(5), num_workers=1)
    twin = copy.copy(loader)
    pairs = list(zip(loader, twin, strict=True))
    assert [(int(one), int(other)) for one, other in pairs] == [(number, number) for number in SQUARES]
    assert pickle.loads(pickle.dumps(loader)).num_workers == 1
