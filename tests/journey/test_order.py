"""Which batches come, in which order, who makes them, and which indices they are made of."""

import multiprocessing.context
import pickle
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

import forebay
from support import (
    Front,
    Gate,
    Numbers,
    SlowFirst,
    WhoAmI,
    Wire,
    chunks,
    flat,
    identity,
    pids_of,
    until,
)

# -- Who makes which batch, and in which order they come


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("persistent", [False, True])
def test_batch_i_of_every_epoch_comes_whole_from_worker_i_mod_n(front: Front, workers: int, persistent: bool) -> None:
    dataset = WhoAmI(14, front.get_worker_info)
    with front.DataLoader(dataset, batch_size=2, num_workers=workers, persistent_workers=persistent) as loader:
        for _ in range(2):
            made = [set(batch[:, 1].tolist()) for batch in loader]
            assert made == [{number % workers} for number in range(7)]


def test_an_epoch_after_an_early_break_begins_with_worker_0_again(front: Front) -> None:
    dataset = WhoAmI(10, front.get_worker_info)
    with front.DataLoader(dataset, num_workers=2, persistent_workers=True) as loader:
        next(iter(loader))
        assert [batch[0, 1].item() for batch in loader] == [0, 1] * 5


def test_in_order_a_slow_first_batch_comes_first_all_the_same(front: Front, gate: Gate) -> None:
    loader = front.DataLoader(SlowFirst(10, front.get_worker_info, gate), num_workers=2)
    iterator = iter(loader)
    gate.open()
    assert [(batch[0, 0].item(), batch[0, 1].item()) for batch in iterator] == [(i, i % 2) for i in range(10)]


def test_out_of_order_a_slow_worker_gets_no_more_than_its_share(front: Front, gate: Gate) -> None:
    dataset = SlowFirst(10, front.get_worker_info, gate)
    iterator = iter(front.DataLoader(dataset, num_workers=2, prefetch_factor=2, in_order=False))
    batches = list(islice(iterator, 8))
    gate.open()
    batches.extend(iterator)
    assert [batch[0, 0].item() for batch in batches] == [1, 3, 4, 5, 6, 7, 8, 9, 0, 2]
    assert [batch[0, 1].item() for batch in batches] == [1] * 8 + [0] * 2


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_out_of_order_every_sample_comes_once(front: Front, workers: int) -> None:
    batches = front.DataLoader(Numbers(23), batch_size=2, num_workers=workers, in_order=False)
    assert sorted(batch[:, 0].tolist() for batch in batches) == sorted(
        Numbers(23).batch(indices)[:, 0].tolist() for indices in chunks(23, 2)
    )


class Counting:
    """A sampler that counts what was taken of it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for index in range(self.count):
            self.taken += 1
            yield index

    def __len__(self) -> int:
        return self.count


@pytest.mark.parametrize(("workers", "factor"), [(1, None), (2, None), (2, 1), (3, 4)])
def test_the_sampler_runs_ahead_by_prefetch_factor_batches_per_worker(
    front: Front, workers: int, factor: int | None
) -> None:
    sampler = Counting(30)
    ahead = workers * (2 if factor is None else factor)
    iterator = iter(front.DataLoader(Numbers(30), sampler=sampler, num_workers=workers, prefetch_factor=factor))
    assert sampler.taken == ahead
    for number in range(1, 5):
        next(iterator)
        assert sampler.taken == ahead + number


def test_a_finished_batch_that_waits_for_its_turn_counts_as_one_ahead(front: Front, gate: Gate, wire: Wire) -> None:
    class Reporting(Numbers):
        def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
            if index == 0:
                gate.wait()
            wire.send(index)
            return super().__getitem__(index)

    sampler = Counting(20)
    iterator = iter(front.DataLoader(Reporting(20), sampler=sampler, num_workers=2, prefetch_factor=2))
    assert [wire.receive(), wire.receive()] == [1, 3]  # worker 1 has done its share
    assert sampler.taken == 4
    gate.open()
    assert len(list(iterator)) == 20


def test_fewer_batches_than_workers_are_enough(front: Front) -> None:
    assert flat(front.DataLoader([7], num_workers=3)) == [7]


def test_an_empty_dataset_gives_no_batches(front: Front) -> None:
    assert list(front.DataLoader([], num_workers=2)) == []


def test_a_dataset_that_grows_is_read_to_its_new_end(front: Front) -> None:
    data = [0, 1]
    loader = front.DataLoader(data, num_workers=1)
    assert flat(loader) == [0, 1]
    data.append(2)
    assert flat(loader) == [0, 1, 2]
    assert len(loader) == 3


# -- Samplers and indices


class Breaking:
    """A sampler that raises after `good` indices."""

    def __init__(self, good: int) -> None:
        self.good = good

    def __iter__(self) -> Iterator[int]:
        yield from range(self.good)
        raise ConnectionError("the index server is gone")

    def __len__(self) -> int:
        return 100


def test_an_error_of_the_sampler_comes_after_the_batches_before_it(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(100), sampler=Breaking(10), num_workers=2))
    found, error = until(ConnectionError, iterator)
    assert "index server" in str(error)
    Numbers(10).assert_epoch(found, 1)


def test_an_error_of_the_sampler_while_it_runs_ahead_leaves_no_process(front: Front) -> None:
    before = {child.pid for child in multiprocessing.active_children()}
    with pytest.raises(ConnectionError, match="index server"):
        list(front.DataLoader(Numbers(100), sampler=Breaking(2), num_workers=2))
    assert {child.pid for child in multiprocessing.active_children()} <= before


def test_persistent_workers_survive_an_error_of_the_sampler(front: Front) -> None:
    sampler = Breaking(10)
    with front.DataLoader(Numbers(100), sampler=sampler, num_workers=2, persistent_workers=True) as loader:
        with pytest.raises(ConnectionError):
            list(loader)
        pids = pids_of(loader._iterator)
        sampler.good = 8
        with pytest.raises(ConnectionError):
            list(loader)
        assert pids_of(loader._iterator) == pids


class Bulk(Numbers):
    """Remembers how it was asked."""

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("samples are read in bulk")

    def __getitems__(self, indices: Any) -> list[Any]:
        return [[type(indices).__name__, len(indices), index] for index in indices]


@pytest.mark.parametrize("workers", [0, 2])
def test_getitems_is_called_once_per_batch(front: Front, workers: int) -> None:
    batches = list(front.DataLoader(Bulk(5), batch_size=2, num_workers=workers, collate_fn=identity))
    assert batches == [
        [["list", 2, 0], ["list", 2, 1]],
        [["list", 2, 2], ["list", 2, 3]],
        [["list", 1, 4]],
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_without_batch_size_samples_come_one_by_one(front: Front, workers: int) -> None:
    samples = list(front.DataLoader(Numbers(5, 1000), batch_size=None, num_workers=workers))
    assert all(isinstance(sample, front.array) for sample in samples)
    assert np.array_equal(np.stack([np.asarray(sample) for sample in samples]), Numbers(5, 1000).batch(range(5)))


def test_without_batch_size_a_sampler_may_give_lists_for_bulk_loading(front: Front) -> None:
    class Table:
        def __getitem__(self, rows: list[int]) -> Any:
            assert type(rows) is list
            return np.arange(100).reshape(10, 10)[rows]

    loader = front.DataLoader(Table(), batch_size=None, sampler=[[0, 1], [5], [9, 9, 9]], num_workers=2)
    assert [len(batch) for batch in loader] == [2, 1, 3]


INDICES = [
    3, True, 2**63 - 1, -(2**63), 2**70, -1, 1.5, "key", b"k", None, (1, 2), [1, [2]], {"a": 1}, frozenset({1}),
    slice(1, 2), np.int64(3), np.float32(1.5), torch.tensor(3),
]  # fmt: skip


class Echo:
    """The sample is the index, as a text that tells its type."""

    def __getitem__(self, index: Any) -> str:
        return f"{type(index).__qualname__} {index!r}"


@pytest.mark.parametrize("workers", [0, 1])
def test_indices_reach_the_dataset_as_the_sampler_gave_them(front: Front, workers: int) -> None:
    wanted = [Echo()[index] for index in INDICES]
    assert list(front.DataLoader(Echo(), batch_size=None, sampler=INDICES, num_workers=workers)) == wanted
    batches = front.DataLoader(Echo(), batch_sampler=[[index] for index in INDICES], num_workers=workers)
    assert [batch[0] for batch in batches] == wanted


class EchoBatch(Echo):
    def __getitems__(self, indices: Any) -> Any:
        return [f"{type(indices).__qualname__} {indices!r}"]


@pytest.mark.parametrize("batch", [[1, 2], (1, 2), range(3), [], [True, 1], [2**63], np.arange(3)], ids=repr)
def test_what_a_batch_sampler_gives_reaches_getitems_as_it_is(front: Front, batch: Any) -> None:
    wanted = EchoBatch().__getitems__(batch)
    assert next(iter(front.DataLoader(EchoBatch(), batch_sampler=[batch], num_workers=1))) == wanted


def test_a_batch_sampler_may_give_batches_of_changing_sizes(front: Front) -> None:
    sampler = [[0], [1, 2, 3], [4, 5], [6] * 50]
    batches = list(front.DataLoader(Numbers(10, 300), batch_sampler=sampler, num_workers=2))
    for indices, batch in zip(sampler, batches, strict=True):
        assert np.array_equal(np.asarray(batch), Numbers(10, 300).batch(indices))


def test_an_index_that_cannot_be_pickled_is_an_error_and_no_hang(front: Front) -> None:
    loader = front.DataLoader(Echo(), batch_size=None, sampler=[lambda: 0], num_workers=1)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        list(loader)


def test_a_large_batch_of_indices_travels(front: Front) -> None:
    (batch,) = front.DataLoader(range(300_000), batch_size=300_000, num_workers=1)
    assert batch.tolist() == list(range(300_000))


def test_set_epoch_of_a_distributed_sampler_takes_effect_at_the_next_iteration(front: Front) -> None:
    package = torch.utils.data if front.name == "torch" else forebay
    orders = []
    for persistent in (False, True):
        sampler = package.DistributedSampler(range(20), num_replicas=2, rank=1, shuffle=True, seed=3)
        with front.DataLoader(range(20), sampler=sampler, num_workers=2, persistent_workers=persistent) as loader:
            for epoch in (0, 1, 0):
                sampler.set_epoch(epoch)
                orders.append(flat(loader))
    assert orders[0] == orders[2] == orders[3] == orders[5]
    assert orders[1] == orders[4] != orders[0]
