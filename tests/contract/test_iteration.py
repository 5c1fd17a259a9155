"""1.2 Iteration: which batches come, in which order, from whom, and what samplers and datasets are asked meanwhile."""

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from subjects import Calls, Halves, Squares, Stream, as_is, asking, column
from torch.utils.data import ChainDataset, ConcatDataset, StackDataset, Subset, TensorDataset, get_worker_info
from torch.utils.data.distributed import DistributedSampler

from support import Gate, Numbers, SlowFirst, Wire, flat, values

# -- Iterators


@pytest.mark.parametrize("workers", [0, 1])
def test_every_iteration_has_an_iterator_of_its_own(kind: Any, workers: int) -> None:
    loader = kind(Squares(3), num_workers=workers)
    first, second = iter(loader), iter(loader)
    assert first is not second
    assert [next(first).item(), next(second).item(), next(first).item()] == [0, 0, 1]
    assert loader._iterator is None


def test_an_iterator_iterates_over_itself_and_has_the_number_of_batches_as_its_length(kind: Any) -> None:
    for workers in (0, 1):
        iterator = iter(kind(Squares(5), batch_size=2, num_workers=workers))
        assert iter(iterator) is iterator
        assert len(iterator) == 3
        next(iterator)
        assert len(iterator) == 3


def test_the_iterator_of_a_stream_has_no_length(kind: Any) -> None:
    with pytest.raises(TypeError):
        len(iter(kind(Stream(3), num_workers=1)))


def test_list_and_tuple_of_a_loader_are_its_batches(kind: Any) -> None:
    loader = kind(Squares(3), num_workers=2)
    assert values(list(loader)) == values(tuple(loader)) == [[0], [1], [4]]


def test_an_iterator_that_has_ended_stays_ended(kind: Any) -> None:
    for workers in (0, 1):
        iterator = iter(kind(Squares(2), num_workers=workers))
        assert len(list(iterator)) == 2
        assert list(iterator) == []


# -- Without workers


def test_without_workers_indices_are_drawn_one_by_one_as_batches_are_made(kind: Any) -> None:
    drawn: list[str] = []

    def sampler() -> Iterator[int]:
        for index in range(3):
            drawn.append(f"index {index}")
            yield index

    made = Calls(3, lambda index: drawn.append(f"sample {index}") or index)
    for number in kind(made, sampler=sampler(), collate_fn=lambda batch: drawn.append("collated") or batch[0]):
        drawn.append(f"batch {number}")  # noqa: PERF401 - in between, others write there
    assert drawn == [f"{what}" for i in range(3) for what in (f"index {i}", f"sample {i}", "collated", f"batch {i}")]


def test_without_workers_the_programs_own_streams_are_drawn_from(kind: Any) -> None:
    dataset = Calls(2, lambda _: (random.random(), np.random.rand(), torch.rand(()).item(), get_worker_info() is None))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    found = list(kind(dataset, batch_size=None, collate_fn=as_is))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    torch.empty((), dtype=torch.int64).random_()
    assert found == [(random.random(), np.random.rand(), torch.rand(()).item(), True) for _ in range(2)]


# -- Who makes which batch


@pytest.mark.parametrize("options", [{}, {"persistent_workers": True}, {"prefetch_factor": 1}, {"prefetch_factor": 5}])
def test_in_order_batch_i_comes_whole_from_worker_i_modulo_num_workers_in_every_epoch(
    kind: Any, options: dict[str, Any]
) -> None:
    loader = kind(asking(14), batch_size=2, num_workers=3, **options)
    for _ in range(2):
        batches = list(loader)
        assert column(batches, 0) == list(range(14))
        assert [set(batch[:, 1].tolist()) for batch in batches] == [{number % 3} for number in range(7)]


def test_in_order_a_slow_batch_is_waited_for(kind: Any, gate: Gate) -> None:
    iterator = iter(kind(SlowFirst(10, get_worker_info, gate), num_workers=2))
    gate.open()
    batches = list(iterator)
    assert column(batches, 0) == list(range(10))
    assert column(batches, 1) == [0, 1] * 5


def test_in_order_streams_take_turns(kind: Any) -> None:
    batches = list(kind(Halves(10), num_workers=2, collate_fn=as_is))
    assert [batch[0][0] for batch in batches] == [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]


def test_with_in_order_false_a_slow_worker_gets_no_more_than_its_share(kind: Any, gate: Gate) -> None:
    dataset = SlowFirst(10, get_worker_info, gate)
    iterator = iter(kind(dataset, num_workers=2, prefetch_factor=2, in_order=False))
    batches = list(islice(iterator, 8))
    gate.open()
    batches.extend(iterator)
    assert column(batches, 0) == [1, 3, 4, 5, 6, 7, 8, 9, 0, 2]
    assert column(batches, 1) == [1] * 8 + [0] * 2


def test_with_in_order_false_a_fast_stream_passes_a_slow_one(kind: Any, gate: Gate) -> None:
    iterator = iter(kind(Halves(10, 1, gate), num_workers=2, in_order=False, batch_size=None))
    first = list(islice(iterator, 5))
    gate.open()
    assert [tuple(sample) for sample in [*first, *iterator]] == [(number, number // 5) for number in range(10)]


def test_fewer_batches_than_workers_are_enough(kind: Any) -> None:
    assert flat(kind([7], num_workers=3)) == [7]
    assert list(kind([], num_workers=2)) == []


def test_every_sample_comes_once_when_shuffled(kind: Any) -> None:
    for workers in (0, 2):
        found = flat(kind(list(range(50)), batch_size=7, shuffle=True, num_workers=workers))
        assert found != list(range(50))
        assert sorted(found) == list(range(50))


# -- What is asked of samplers


class Asked:
    """A sampler that counts how often it is iterated, and what it has given."""

    def __init__(self, given: list[Any]) -> None:
        self.given = given
        self.iterated = 0
        self.taken = 0

    def __iter__(self) -> Iterator[Any]:
        self.iterated += 1
        return self._indices()

    def _indices(self) -> Iterator[Any]:
        for index in self.given:
            self.taken += 1
            yield index

    def __len__(self) -> int:
        return len(self.given)


@pytest.mark.parametrize(("workers", "factor"), [(1, None), (2, None), (2, 1), (3, 4)])
def test_at_iter_prefetch_factor_batches_for_each_worker_are_drawn_at_once_and_then_one_for_each_that_comes(
    kind: Any, workers: int, factor: int | None
) -> None:
    sampler = Asked(list(range(30)))
    iterator = iter(kind(Squares(30), sampler=sampler, num_workers=workers, prefetch_factor=factor))
    ahead = workers * (factor or 2)
    assert sampler.taken == ahead
    for number in range(1, 4):
        next(iterator)
        assert sampler.taken == ahead + number


def test_batches_that_are_done_and_wait_for_their_turn_count_as_ahead(kind: Any, gate: Gate, wire: Wire) -> None:
    def make(index: int) -> int:
        if index == 0:
            gate.wait()
        wire.send(index)
        return index

    sampler = Asked(list(range(20)))
    iterator = iter(kind(Calls(20, make), sampler=sampler, num_workers=2, prefetch_factor=2))
    assert [wire.receive(), wire.receive()] == [1, 3]  # worker 1 has done its share
    assert sampler.taken == 4
    gate.open()
    assert flat(iterator) == list(range(20))


def test_nothing_is_drawn_before_iter(kind: Any) -> None:
    sampler = Asked([0, 1])
    state = torch.get_rng_state()
    kind(Squares(2), sampler=sampler, num_workers=1)
    assert (sampler.iterated, sampler.taken) == (0, 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"num_workers": 0, "batch_size": None}, 1),
        ({"num_workers": 1, "batch_size": None}, 2),
        ({"num_workers": 0}, 1),
        ({"num_workers": 1}, 1),
    ],
    ids=["inline, no batches", "workers, no batches", "inline", "workers"],
)
def test_a_sampler_is_iterated_as_often_as_torch_does(kind: Any, options: dict[str, Any], calls: int) -> None:
    sampler = Asked([0, 1, 2])
    loader = kind(Squares(3), sampler=sampler, **options)
    for epoch in (1, 2):
        assert [int(number) for number in loader] == [0, 1, 4]
        assert sampler.iterated == epoch * calls
        assert sampler.taken == epoch * 3


def test_a_persistent_loader_iterates_its_sampler_once_more_for_each_epoch(kind: Any) -> None:
    sampler = Asked([0, 1])
    loader = kind(Squares(2), sampler=sampler, batch_size=None, num_workers=1, persistent_workers=True)
    counts = []
    for _ in range(3):
        list(loader)
        counts.append(sampler.iterated)
    assert counts == [2, 3, 4]


def test_set_epoch_counts_when_it_comes_before_iter(kind: Any) -> None:
    sampler = DistributedSampler(range(20), num_replicas=2, rank=1, seed=3)
    for options in ({}, {"persistent_workers": True}):
        loader = kind(range(20), sampler=sampler, num_workers=2, **options)
        for epoch in (0, 1, 0):
            sampler.set_epoch(epoch)
            expected = list(sampler)
            iterator = iter(loader)
            sampler.set_epoch(7)
            assert flat(iterator) == expected


def test_a_distributed_sampler_of_an_impossible_rank_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="Invalid rank 3"):
        kind([1], sampler=DistributedSampler([1], num_replicas=3, rank=3))


def test_drop_last_with_a_distributed_sampler_gives_all_ranks_as_many_batches(kind: Any) -> None:
    found = []
    for rank in range(2):
        sampler = DistributedSampler(range(7), num_replicas=2, rank=rank, shuffle=False, drop_last=True)
        found += flat(kind(range(7), sampler=sampler, num_workers=1))
    assert sorted(found) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("workers", [0, 2])
def test_any_iterable_serves_as_a_sampler_or_batch_sampler(kind: Any, workers: int) -> None:
    options = {"num_workers": workers}
    assert flat(kind(Squares(9), sampler=[3, 1, 3], **options)) == [9, 1, 9]
    assert flat(kind(Squares(9), sampler=(index for index in (5, 6)), **options)) == [25, 36]
    assert values(kind(Squares(9), batch_sampler=[(1, 2), [3]], **options)) == [[1, 4], [9]]
    batches = kind(Squares(9), batch_sampler=(range(n, n + 2) for n in (0, 4)), **options)
    assert values(batches) == [[0, 1], [16, 25]]


@pytest.mark.parametrize("workers", [0, 1])
def test_indices_reach_the_dataset_as_they_were_drawn(kind: Any, workers: int) -> None:
    drawn = [3, True, "key", None, (1, 2), [1, 2], np.int64(4), 2**70, slice(1, 2)]
    echo = Calls(0, lambda index: f"{type(index).__name__} {index!r}")
    expected = [f"{type(index).__name__} {index!r}" for index in drawn]
    assert list(kind(echo, batch_size=None, sampler=drawn, num_workers=workers)) == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_default_samplers_and_torchs_datasets_hand_on_integers(kind: Any, workers: int) -> None:
    class Kinds(Squares):
        def __getitem__(self, index: Any) -> str:
            return type(index).__name__

    base = Kinds(6)
    for dataset in (
        base,
        Subset(base, [1, 3]),
        ConcatDataset([base, base]),
        StackDataset(base, base),
        torch.utils.data.random_split(base, [4, 2])[0],
    ):
        for shuffle in (False, True):
            loader = kind(dataset, batch_size=None, shuffle=shuffle, num_workers=workers, collate_fn=as_is)
            assert {name for sample in loader for name in np.ravel(sample)} == {"int"}


def test_without_batch_size_a_sampler_may_give_lists_for_bulk_loading(kind: Any) -> None:
    table = torch.arange(100).reshape(10, 10)
    bulk = TensorDataset(table)
    for workers in (0, 2):
        loader = kind(bulk, batch_size=None, sampler=[[0, 1], [5], [9, 9]], num_workers=workers)
        assert not loader._auto_collation
        assert [batch[0].tolist() for batch in loader] == [table[rows].tolist() for rows in ([0, 1], [5], [9, 9])]


# -- What is asked of datasets


class Bulk(Numbers):
    """Tells how it was asked."""

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("samples are read in bulk")

    def __getitems__(self, indices: Any) -> list[Any]:
        return [(type(indices).__name__, len(indices), index) for index in indices]


@pytest.mark.parametrize("workers", [0, 2])
def test_dunder_getitems_is_asked_once_for_each_batch(kind: Any, workers: int) -> None:
    expected = [[("list", 2, 0), ("list", 2, 1)], [("list", 1, 2)]]
    for dataset in (Bulk(3), Subset(Bulk(9), [0, 1, 2])):
        assert list(kind(dataset, batch_size=2, num_workers=workers, collate_fn=as_is)) == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_dunder_getitems_that_is_none_is_not_asked(kind: Any, workers: int) -> None:
    dataset = Squares(3)
    dataset.__getitems__ = None  # type: ignore[attr-defined]
    assert flat(kind(dataset, num_workers=workers)) == [0, 1, 4]


@pytest.mark.parametrize("workers", [0, 1])
def test_with_a_sampler_a_dataset_needs_no_length(kind: Any, workers: int) -> None:
    class Endless:
        def __getitem__(self, index: int) -> int:
            return index + 1

    assert flat(kind(Endless(), sampler=[4, 5], num_workers=workers)) == [5, 6]


def test_a_dataset_may_grow(kind: Any) -> None:
    data = [0, 1]
    loader = kind(data, num_workers=1)
    assert flat(loader) == [0, 1]
    data.append(2)
    assert (flat(loader), len(loader)) == ([0, 1, 2], 3)


# -- Streams


def test_every_worker_reads_a_stream_of_its_own(kind: Any) -> None:
    assert flat(kind(Stream(3), num_workers=2)) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("persistent", [False, True])
def test_a_streams_batches_are_made_of_one_workers_samples_and_the_last_may_be_short(
    kind: Any, persistent: bool
) -> None:
    def order(**options: Any) -> list[list[int]]:
        loader = kind(Halves(10), batch_size=2, num_workers=2, persistent_workers=persistent, **options)
        epochs = [[batch[0].tolist() for batch in loader] for _ in range(2)]
        assert epochs[0] == epochs[1]
        return epochs[0]

    assert order() == [[0, 1], [5, 6], [2, 3], [7, 8], [4], [9]]
    assert order(drop_last=True) == [[0, 1], [5, 6], [2, 3], [7, 8]]


def test_a_worker_whose_stream_is_over_leaves_the_circle(kind: Any) -> None:
    class Uneven(Stream):
        def __iter__(self) -> Iterator[Any]:
            worker = get_worker_info().id
            return iter([(worker, place) for place in range(1 if worker == 0 else 4)])

    for persistent in (False, True):
        loader = kind(Uneven(0), batch_size=None, num_workers=3, persistent_workers=persistent, collate_fn=as_is)
        for _ in range(2):
            assert list(loader) == [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (2, 3)]


def test_workers_of_streams_exit_with_code_0(kind: Any) -> None:
    iterator = iter(kind(Halves(10), num_workers=2))
    assert len(list(iterator)) == 10
    assert [worker.exitcode for worker in iterator._workers] == [0, 0]


@pytest.mark.parametrize("workers", [0, 2])
def test_chained_streams_come_one_after_the_other(kind: Any, workers: int) -> None:
    chained = ChainDataset([Stream(2), Stream(3)])
    expected = [number for number in (0, 1, 0, 1, 2) for _ in range(max(workers, 1))]
    assert flat(kind(chained, num_workers=workers)) == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_without_batches_comes_sample_by_sample(kind: Any, workers: int) -> None:
    assert list(kind(Stream(3), batch_size=None, num_workers=workers)) == [0, 1, 2]


# -- Side by side


def test_several_loaders_and_nested_loops_do_not_disturb_each_other(kind: Any) -> None:
    loader = kind(Squares(3), num_workers=1)
    other = kind(Squares(3), num_workers=2)
    found = [(int(i), int(j), int(k)) for i in loader for j in loader for k in other]
    numbers = (0, 1, 4)
    assert found == [(i, j, k) for i in numbers for j in numbers for k in numbers]
