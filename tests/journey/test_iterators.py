"""Iterators of one loader and of several: abandoned, nested, closed."""

import contextlib
from itertools import islice

import numpy as np
import pytest

import forebay
import forebay.torch
from support import (
    Front,
    Numbers,
    exists,
    flat,
    is_running,
    pids_of,
)


def test_iter_of_a_persistent_loader_is_the_same_iterator(front: Front) -> None:
    with front.DataLoader([1, 2, 3], num_workers=1, persistent_workers=True) as loader:
        first = iter(loader)
        next(first)
        assert iter(loader) is first
        assert flat(first) == [1, 2, 3]
    plain = front.DataLoader([1, 2, 3], num_workers=1)
    assert iter(plain) is not iter(plain)


def test_an_iterator_iterates_over_itself(front: Front) -> None:
    iterator = iter(front.DataLoader([1, 2, 3], num_workers=1))
    assert iter(iterator) is iterator
    assert next(iterator).tolist() == [1]
    assert flat(iterator) == [2, 3]


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("taken", [0, 1, 4])
def test_after_an_early_break_the_next_epoch_is_whole(front: Front, persistent: bool, taken: int) -> None:
    dataset = Numbers(40, size=2000)
    with front.DataLoader(dataset, batch_size=3, num_workers=2, persistent_workers=persistent) as loader:
        for _ in range(3):
            assert len(list(islice(iter(loader), taken))) == taken
        dataset.assert_epoch(list(loader), 3)


def test_an_abandoned_iterator_leaves_no_process(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(100), num_workers=2))
    pids = pids_of(iterator)
    next(iterator)
    del iterator
    assert not [pid for pid in pids if exists(pid)]


def test_two_loops_over_one_loader_can_be_nested(front: Front) -> None:
    loader = front.DataLoader([0, 1, 2], num_workers=2)
    pairs = [(outer.item(), inner.item()) for outer in loader for inner in loader]
    assert pairs == [(outer, inner) for outer in range(3) for inner in range(3)]


def test_two_loaders_can_be_read_side_by_side(front: Front) -> None:
    one, other = (front.DataLoader(Numbers(9, size), batch_size=2, num_workers=2) for size in (1000, 2000))
    pairs = list(zip(one, other, strict=True))
    Numbers(9, 1000).assert_epoch([pair[0] for pair in pairs], 2)
    Numbers(9, 2000).assert_epoch([pair[1] for pair in pairs], 2)


def test_both_fronts_can_be_read_side_by_side() -> None:
    loaders = [
        kind(Numbers(9, 1000), batch_size=2, num_workers=1) for kind in (forebay.DataLoader, forebay.torch.DataLoader)
    ]
    for ours, tensors in zip(*loaders, strict=True):
        assert isinstance(ours, np.ndarray)
        assert np.array_equal(ours, tensors.numpy())


@pytest.mark.parametrize("persistent", [False, True])
def test_close_ends_all_workers_and_may_be_called_again(front: Front, persistent: bool) -> None:
    loader = front.DataLoader(Numbers(50), num_workers=2, persistent_workers=persistent)
    iterators = [iter(loader) for _ in range(2)]
    pids = [pid for iterator in iterators for pid in pids_of(iterator)]
    next(iterators[0])
    for _ in range(2):
        loader.close()
        assert not [pid for pid in pids if exists(pid)]


def test_with_ends_all_workers_when_the_block_raises(front: Front) -> None:
    with contextlib.suppress(ZeroDivisionError), front.DataLoader(Numbers(50), num_workers=2) as loader:
        iterator = iter(loader)
        pids = pids_of(iterator)
        assert all(is_running(pid) for pid in pids)
        1 / 0  # noqa: B018 - the exception is what is wanted
    assert not [pid for pid in pids if exists(pid)]


def test_an_iterator_of_a_closed_loader_is_over(front: Front) -> None:
    loader = front.DataLoader(Numbers(50), num_workers=2)
    iterator = iter(loader)
    next(iterator)
    loader.close()
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(iterator)


@pytest.mark.parametrize("persistent", [False, True])
def test_a_closed_loader_starts_anew_when_it_is_iterated_again(front: Front, persistent: bool) -> None:
    dataset = Numbers(10)
    loader = front.DataLoader(dataset, num_workers=2, persistent_workers=persistent)
    old = iter(loader)
    next(old)
    loader.close()
    dataset.assert_epoch(list(loader), 1)
    loader.close()


def test_closing_a_loader_without_workers_does_nothing(front: Front) -> None:
    with front.DataLoader([1, 2]) as loader:
        assert flat(loader) == [1, 2]
    assert flat(loader) == [1, 2]
