"""Iterable datasets: every worker reads a copy of its own; batches, their order and their warnings are PyTorch's."""

import itertools
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import forebay
import forebay.torch
from forebay.errors import ForebayWarning, UnpicklableError, WorkerDied
from support import Front, Gate, eventually, exists, flat, identity, pids_of, until, values, wait_for_ends, watch

pytestmark = pytest.mark.filterwarnings("ignore:.*worker processes in total")

TORCH = torch.utils.data.DataLoader


class Lanes(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Worker `i` reads lane `i`, without workers all lanes are read; sample `(lane, place)` is `100 * lane + place`."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __iter__(self) -> Iterator[int]:
        info = torch.utils.data.get_worker_info()
        lanes = range(len(self.lengths)) if info is None else [info.id]
        return iter([100 * lane + place for lane in lanes for place in range(self.lengths[lane])])


class Counting(forebay.IterableDataset[int]):
    """0 to `count - 1`, without workers or with any number of them."""

    def __init__(self, count: int, info: Callable[[], Any]) -> None:
        self.count = count
        self.info = info

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        info = self.info()
        return iter(range(self.count) if info is None else range(info.id, self.count, info.num_workers))


class TorchCounting(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """As `Counting`, for torch."""

    __init__ = Counting.__init__
    __len__ = Counting.__len__
    __iter__ = Counting.__iter__


def counting(front: Front, count: int) -> Any:
    kind = TorchCounting if front.name == "torch" else Counting
    return kind(count, front.get_worker_info)


class Made(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """The samples that `make` gives."""

    def __init__(self, make: Callable[[], Iterator[Any]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        return self.make()


# -- Equal to torch


@settings(max_examples=25)
@given(data=st.data())
def test_batches_and_their_order_are_torchs(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=4), "lengths")
    arguments = {
        "batch_size": data.draw(st.sampled_from([1, 2, 3, None]), "batch_size"),
        "num_workers": len(lengths) if data.draw(st.booleans(), "workers") else 0,
    }
    if arguments["batch_size"] is not None:
        arguments["drop_last"] = data.draw(st.booleans(), "drop_last")
    if arguments["num_workers"]:
        arguments["prefetch_factor"] = data.draw(st.integers(1, 3), "prefetch_factor")
        arguments["persistent_workers"] = data.draw(st.booleans(), "persistent")
    loaders = [make(Lanes(lengths), **arguments) for make in (TORCH, forebay.torch.DataLoader, forebay.DataLoader)]
    expected, torchs, numpys = ([[_plain(batch) for batch in loader] for _ in range(2)] for loader in loaders)
    assert torchs == expected
    assert numpys == expected


def _plain(batch: Any) -> Any:
    return batch if isinstance(batch, int) else batch.tolist()


def test_out_of_order_a_slow_worker_holds_nobody_up(front: Front, gate: Gate) -> None:
    class Halves(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[int]:
            if front.get_worker_info().id == 1:
                gate.wait()
                return iter(range(5, 10))
            return iter(range(5))

    iterator = iter(front.DataLoader(Halves(), num_workers=2, in_order=False))
    first = [next(iterator).tolist() for _ in range(5)]
    gate.open()
    assert first == [[0], [1], [2], [3], [4]]
    assert flat(iterator) == [5, 6, 7, 8, 9]


def test_chained_streams_are_read_one_after_the_other(front: Front) -> None:
    chain = torch.utils.data.ChainDataset([Lanes([2, 2]), Lanes([1, 1])])
    assert values(front.DataLoader(chain, batch_size=2, num_workers=2)) == [[0, 1], [100, 101], [0], [100]]


def test_anything_that_can_only_be_iterated_is_a_stream_of_the_numpy_front() -> None:
    assert values(forebay.DataLoader({3, 1}, batch_size=5)) == [[1, 3]]
    assert values(forebay.DataLoader(iter([4, 2, 8]), batch_size=2, num_workers=1)) == [[4, 2], [8]]


# -- Copies, seeds and worker info


def test_every_worker_reads_a_copy_of_its_own(front: Front) -> None:
    class Marked(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
        marks = 0

        def __iter__(self) -> Iterator[Any]:
            self.marks += 1
            info = front.get_worker_info()
            assert info.dataset is self
            yield np.array([info.id, info.num_workers, os.getpid(), self.marks])

    dataset = Marked()
    loader = front.DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True)
    first, second = list(loader), list(loader)
    assert [row.tolist()[:2] for row in first] == [[0, 2], [1, 2]]
    assert len({int(row[2]) for row in first} | {os.getpid()}) == 3
    assert [int(row[3]) for row in second] == [2, 2], "persistent workers keep their copies and begin a new pass"
    assert dataset.marks == 0


def test_streams_made_for_torch_find_out_about_their_worker_in_the_numpy_front() -> None:
    assert flat(forebay.DataLoader(Lanes([2, 2, 1]), num_workers=3)) == [0, 100, 200, 1, 101]


def test_a_stream_that_does_not_ask_comes_once_from_every_worker(front: Front) -> None:
    dataset = Made(lambda: iter([7, 8]))
    assert sorted(flat(front.DataLoader(dataset, num_workers=3))) == [7, 7, 7, 8, 8, 8]


# -- Lengths


@pytest.mark.parametrize(("drop_last", "expected"), [(False, 4), (True, 3)])
def test_the_length_is_that_of_one_reader(front: Front, drop_last: bool, expected: int) -> None:
    loader = front.DataLoader(counting(front, 10), batch_size=3, drop_last=drop_last, num_workers=2)
    assert len(loader) == expected
    assert len(front.DataLoader(counting(front, 10), batch_size=None)) == 10


def test_a_stream_without_a_length_has_none(front: Front) -> None:
    loader = front.DataLoader(Made(lambda: iter([1])), num_workers=1)
    with pytest.raises(TypeError, match="len"):
        len(loader)
    with pytest.raises(TypeError, match="len"):
        len(iter(loader))


@pytest.mark.parametrize("workers", [0, 2])
def test_more_samples_than_the_length_told_are_warned_of_each_time(front: Front, workers: int) -> None:
    class TooLong(TorchCounting):
        def __iter__(self) -> Iterator[int]:
            return iter(range(self.count + 2 if workers == 0 else self.count))

    loader = front.DataLoader(TooLong(4, front.get_worker_info), num_workers=workers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(loader)  # nobody has asked for the length
    assert len(loader) == 4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = len(list(loader))
    texts = [str(warning.message) for warning in caught if "samples have been fetched" in str(warning.message)]
    assert len(texts) == count - 4 > 0
    assert "was reported to be 4(when accessing len(dataloader)), but 5 samples have been fetched. " in texts[0]
    assert ("For multiprocessing data-loading, this could be caused by" in texts[0]) == (workers > 0)


def test_the_warning_of_the_numpy_front_points_at_the_users_line() -> None:
    loader = forebay.DataLoader(Made(lambda: iter([1, 2])), num_workers=1)
    loader._stream_length = 1
    with pytest.warns(UserWarning, match="samples have been fetched") as caught:
        list(loader)
    assert caught[0].filename == __file__


# -- Failures


def test_an_error_takes_the_place_of_its_batch_and_ends_a_generator(front: Front) -> None:
    def make() -> Iterator[int]:
        yield from (1, 2, 3)
        raise ZeroDivisionError("in the middle")

    iterator = iter(front.DataLoader(Made(make), batch_size=2, num_workers=1))
    assert next(iterator).tolist() == [1, 2]
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        next(iterator)
    assert list(iterator) == []


def test_an_iterator_that_can_go_on_after_an_error_does(front: Front) -> None:
    class Stumbling:
        def __init__(self) -> None:
            self.place = 0

        def __iter__(self) -> "Stumbling":
            return self

        def __next__(self) -> int:
            self.place += 1
            if self.place == 2:
                raise ValueError("number 2")
            if self.place > 4:
                raise StopIteration
            return self.place

    iterator = iter(front.DataLoader(Made(Stumbling), num_workers=1))
    assert next(iterator).tolist() == [1]
    with pytest.raises(ValueError, match="number 2"):
        next(iterator)
    assert flat(iterator) == [3, 4]


@pytest.mark.parametrize("place", ["iter", "init"])
def test_a_stream_that_cannot_begin_is_one_error_for_each_worker_and_epoch(front: Front, place: str) -> None:
    def fail(*_: object) -> Any:
        raise LookupError("nothing to read")

    dataset = Made(fail if place == "iter" else lambda: iter([1]))
    init = fail if place == "init" else None
    loader = front.DataLoader(dataset, num_workers=2, worker_init_fn=init, persistent_workers=True)
    for _ in range(2):
        iterator = iter(loader)
        errors = [until(LookupError, iterator) for _ in range(2)]
        assert all("nothing to read" in str(error) for _, error in errors)
        assert list(iterator) == []


def test_a_collate_fn_that_stops_ends_its_workers_stream_as_in_torch() -> None:
    def collate(samples: list[int]) -> list[int]:
        if 3 in samples:
            raise StopIteration
        return samples

    arguments: dict[str, Any] = {"batch_size": 2, "num_workers": 1, "collate_fn": collate}
    expected = list(TORCH(Lanes([9]), **arguments))
    assert list(forebay.torch.DataLoader(Lanes([9]), **arguments)) == expected == [[0, 1]]
    assert list(forebay.DataLoader(Lanes([9]), **arguments)) == expected


def test_a_sample_that_cannot_travel_is_named_by_its_place(front: Front) -> None:
    dataset = Made(lambda: iter([1, lambda: 0]))
    loader = front.DataLoader(dataset, batch_size=2, num_workers=1, collate_fn=identity)
    with pytest.raises(UnpicklableError, match="its sample 1 is a lambda"):
        list(loader)


def test_a_killed_reader_is_reported_without_indices_that_it_does_not_have(front: Front, gate: Gate) -> None:
    def make() -> Iterator[int]:
        yield 1
        gate.wait()

    iterator = iter(front.DataLoader(Made(make), num_workers=1))
    next(iterator)
    os.kill(pids_of(iterator)[0], signal.SIGKILL)
    with pytest.raises(WorkerDied, match=r"while it made batch 1\. ") as caught:
        next(iterator)
    assert "None" not in str(caught.value)


# -- Ends


def test_an_endless_stream_is_left_without_waiting(front: Front) -> None:
    iterator = iter(front.DataLoader(Made(itertools.count), batch_size=3, num_workers=2))
    assert [next(iterator).tolist() for _ in range(4)] == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]
    pidfds = watch(pids := pids_of(iterator))
    del iterator
    wait_for_ends(pidfds)
    eventually(lambda: not any(map(exists, pids)))


def test_an_epoch_that_was_left_early_is_followed_by_a_whole_one(front: Front) -> None:
    loader = front.DataLoader(counting(front, 20), batch_size=2, num_workers=2, persistent_workers=True)
    for batch in loader:
        assert batch.tolist() == [0, 2]
        break
    assert sorted(flat(loader)) == list(range(20))
    assert sorted(flat(loader)) == list(range(20))


def test_after_the_end_there_is_nothing_more(front: Front) -> None:
    for persistent in (False, True):
        iterator = iter(front.DataLoader(counting(front, 3), num_workers=2, persistent_workers=persistent))
        assert len(list(iterator)) == 3
        assert list(iterator) == []


def test_streams_are_served_by_the_engine_without_a_word(front: Front) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ForebayWarning)
        iterator = iter(front.DataLoader(counting(front, 3), num_workers=1))
        assert pids_of(iterator)
        assert flat(iterator) == [0, 1, 2]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_streams_travel_to_workers_that_are_not_forked(front: Front, method: str) -> None:
    loader = front.DataLoader(counting(front, 5), batch_size=2, num_workers=2, multiprocessing_context=method)
    assert values(loader) == [[0, 2], [1, 3], [4]]


class _CannotArrive(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    def __init__(self) -> None:
        self.luggage = 1

    def __iter__(self) -> Iterator[int]:
        return iter([1])

    def __setstate__(self, state: object) -> None:
        raise LookupError("lost on the way")


def test_a_stream_that_cannot_be_unpickled_is_one_error_for_each_worker(front: Front) -> None:
    iterator = iter(front.DataLoader(_CannotArrive(), num_workers=2, multiprocessing_context="spawn"))
    errors = [until(LookupError, iterator) for _ in range(2)]
    assert all("lost on the way" in str(error) for _, error in errors)
    assert list(iterator) == []


def test_the_numpy_front_refuses_datapipes_which_it_would_read_twice() -> None:
    pipe = torch.utils.data.datapipes.iter.IterableWrapper(range(8)).shuffle().sharding_filter()
    with pytest.raises(ValueError, match=r"no datapipe, but got \w+: .*forebay\.torch\.DataLoader"):
        forebay.DataLoader(pipe, num_workers=2)
