"""Where workers share rows, batches are those that one worker would make, and only a late sample makes a batch late."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from forebay._fetch import MapFetcher
from forebay._rows import make_rows
from forebay.errors import LoaderTimeout, SharedMemoryError, UnpicklableError, WorkerDied
from likeness import assert_same
from support import Front, Gate, Numbers, Wire, descriptor_count, identity, journey_of, pids_of, until

ROWS = 4
"""Samples of a batch."""

Sharing = Callable[..., Any]


@pytest.fixture
def sharing(front: Front) -> Iterator[Sharing]:
    """Makes loaders whose workers share rows."""
    loaders: list[Any] = []

    def make(dataset: Any, batch_size: int = ROWS, **options: Any) -> Any:
        options = {"num_workers": 2, "prefetch_factor": 2, "seed": 0, **options}
        loaders.append(front.DataLoader(dataset, batch_size, **options))
        return loaders[-1]

    yield make
    if front.name == "numpy":
        for loader in loaders:
            loader.close()


class Torn:
    """Samples of `make`. The first one is done when the last one of its batch is, by another worker."""

    def __init__(self, make: Callable[[int], Any], gate: Gate, count: int = 5 * ROWS - 1) -> None:
        self.make = make
        self.gate = gate
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        if index == 0:
            self.gate.wait()
        sample = self.make(index)
        if index == ROWS - 1:
            self.gate.open()
        return sample


class Point(NamedTuple):
    x: Any
    name: str


class Locked:
    """Cannot be sent anywhere."""

    error: type[BaseException] = TypeError

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        raise self.error("locked")


class Bolted(Locked):
    error = SystemExit


def numbers_of(samples: list[Locked]) -> Any:
    return np.array([sample.number for sample in samples])


SAMPLES: dict[str, Callable[[int], Any]] = {
    "scalar": lambda index: index,
    "float": lambda index: index / 3,
    "text": lambda index: f"sample {index}",
    "array": lambda index: np.arange(5) * index,
    "large array": lambda index: np.full((3, 100, 100), index, np.float32),
    "strided array": lambda index: np.arange(20).reshape(4, 5).T + index,
    "tensor": lambda index: torch.arange(6.0).reshape(2, 3) * index,
    "tuple": lambda index: (np.full(3, index), index, [f"{index}", b"bytes"]),
    "dict": lambda index: {"tokens": np.arange(9) + index, "label": index % 2 == 0, "inner": {"name": str(index)}},
    "named tuple": lambda index: Point(np.float64(index), str(index)),
}


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("collate_fn", [None, identity], ids=["default", "custom"])
def test_batches_are_those_that_one_worker_makes(
    front: Front, sharing: Sharing, gate: Gate, kind: str, collate_fn: Any
) -> None:
    if front.name == "numpy" and kind == "tensor":
        pytest.skip("the NumPy front collates no tensors")
    dataset = Torn(SAMPLES[kind], gate)
    ours = list(sharing(dataset, collate_fn=collate_fn))
    alone = list(front.DataLoader(dataset, ROWS, collate_fn=collate_fn, num_workers=1))
    assert len(ours) == len(alone) == 5
    for mine, theirs in zip(ours, alone, strict=True):
        assert_same(mine, theirs)


@pytest.mark.parametrize("kind", [Locked, Bolted])
def test_samples_that_cannot_travel_are_made_again_by_who_makes_the_batch(
    sharing: Sharing, gate: Gate, wire: Wire, kind: type[Locked]
) -> None:
    def make(index: int) -> Locked:
        wire.send(index)
        return kind(index)

    batches = list(sharing(Torn(make, gate), collate_fn=numbers_of))
    assert np.concatenate([np.asarray(batch) for batch in batches]).tolist() == list(range(19))
    assert set(range(19)) == set(wire.drain())


def test_what_a_batch_holds_that_cannot_be_sent_is_told_as_ever(sharing: Sharing, gate: Gate) -> None:
    error = until(UnpicklableError, sharing(Torn(Locked, gate), collate_fn=identity))[1]
    assert "locked" in str(error)
    assert "the sample of index 0" in str(error)


class Bad(Exception):
    pass


@pytest.mark.parametrize("bad", [{0}, {1}, {3}, {1, 2}, {0, 1, 2, 3}, {9}, {18}], ids=str)
def test_the_exception_of_the_first_bad_row_is_raised_in_its_batchs_place(
    front: Front, sharing: Sharing, gate: Gate, bad: set[int]
) -> None:
    def make(index: int) -> Any:
        if index in bad:
            gate.open()
            raise Bad(f"index {index}")
        return np.array([index])

    def outcomes(loader: Any) -> list[Any]:
        """Batches, and in the place of others where it happened and the exception's text."""
        found: list[Any] = []
        iterator = iter(loader)
        while True:
            try:
                found.append(next(iterator))
            except StopIteration:
                return found
            except Bad as error:
                where = [note.split(", ", 1)[1] for note in error.__notes__ if note.startswith("[forebay] worker")]
                found.append((where, str(error).splitlines()[-1]))

    dataset = Torn(make, gate)
    ours = outcomes(sharing(dataset))
    gate.open()
    alone = outcomes(front.DataLoader(dataset, ROWS, num_workers=1))
    assert len(ours) == len(alone) == 5
    for mine, theirs in zip(ours, alone, strict=True):
        assert_same(mine, theirs)


@pytest.mark.parametrize("persistent", [False, True])
def test_epoch_after_epoch_is_whole_also_after_one_that_was_broken_off(
    front: Front, sharing: Sharing, persistent: bool
) -> None:
    dataset = Numbers(50)
    loader = sharing(dataset, num_workers=3, persistent_workers=persistent)
    for taken in (13, 3, 0, 13, 13):
        iterator = iter(loader)
        batches = [next(iterator) for _ in range(taken)]
        if taken == 13:
            assert next(iterator, None) is None
            dataset.assert_epoch(batches, ROWS)
    del iterator
    if front.name == "torch" and persistent:
        loader._iterator._journey.close()


@pytest.mark.parametrize(("workers", "prefetch_factor"), [(1, 1), (1, 2), (2, 1), (4, 3)])
@pytest.mark.parametrize("drop_last", [False, True])
def test_any_number_of_workers_and_batches_ahead_gives_the_same_batches(
    sharing: Sharing, workers: int, prefetch_factor: int, drop_last: bool
) -> None:
    dataset = Numbers(30)
    loader = sharing(dataset, num_workers=workers, prefetch_factor=prefetch_factor, drop_last=drop_last)
    batches = list(loader)
    assert len(batches) == (7 if drop_last else 8)
    for number, batch in enumerate(batches):
        assert np.array_equal(np.asarray(batch), dataset.batch(range(number * 4, min(number * 4 + 4, 30))))


class Batches:
    """A batch sampler of lists, one of them empty of use to any but the dataset itself."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def test_batches_of_any_size_and_of_any_kind_of_indices_are_made(front: Front, sharing: Sharing) -> None:
    dataset = Numbers(40)
    batches = [[1], [2, 3], (4, 5), range(6, 9), [np.int64(9), np.int64(10)], list(range(40)), {11: None, 12: None}]
    ours = list(sharing(dataset, 1, batch_sampler=Batches(batches)))
    for mine, indices in zip(ours, batches, strict=True):
        assert np.array_equal(np.asarray(mine), dataset.batch([int(index) for index in indices]))


class WithoutRoom:
    """A worker that is the last to hand in its rows, and has no memory for those of others."""

    def __init__(self) -> None:
        self.shares_rows = True
        self.left = [0, 2]

    def next_row(self) -> int | None:
        return self.left.pop(0) if self.left else None

    def hand_in(self, _made: Any) -> Any:
        self.shares_rows = False
        raise SharedMemoryError("no memory")


def test_rows_of_others_that_there_is_no_memory_for_are_made_again() -> None:
    worker: Any = WithoutRoom()
    assert make_rows(worker, MapFetcher([7, 8, 9], auto_collation=True), [2, 1, 0]) == [9, 8, 7]


@pytest.mark.parametrize(("in_order", "ahead"), [(True, 4), (False, 2)])
def test_only_workers_that_share_rows_are_further_ahead(sharing: Sharing, in_order: bool, ahead: int) -> None:
    loader = sharing(Numbers(64), prefetch_factor=None, in_order=in_order)
    assert journey_of(iter(loader))._options.prefetch_factor == ahead


def test_while_a_sample_is_late_the_others_make_all_other_rows_and_batches(sharing: Sharing, wire: Wire) -> None:
    late = Gate()

    class Late(Numbers):
        def __getitem__(self, index: int) -> Any:
            if index == 1:
                late.wait()
            wire.send(index)
            return super().__getitem__(index)

    dataset = Late(32)
    iterator = iter(sharing(dataset, num_workers=3, timeout=0.05))
    try:
        made: set[int] = set()
        while len(made) < 6 * ROWS - 1:
            with pytest.raises(
                LoaderTimeout, match=r"worker \d \(pid \d+\) has not finished batch 0 of indices \[0, 1"
            ):
                next(iterator)
            made |= set(wire.drain())
        assert made == set(range(6 * ROWS)) - {1}, "all that is sent ahead, but for one row"
        late.open()
        Numbers(32).assert_epoch(list(iterator), ROWS)
    finally:
        late.open()
        late.close()


def test_all_workers_make_the_first_batch_of_an_epoch_together(sharing: Sharing) -> None:
    meetings = [(Gate(), Gate(), Gate()) for _ in range(2)]

    class Meeting(Numbers):
        """The first three samples of an epoch are done when all three have been begun."""

        def __getitem__(self, index: int) -> Any:
            place, epoch = index % 12, index // 12
            if place < 3:
                meetings[epoch][place].open()
                for gate in meetings[epoch]:
                    gate.wait()
            return np.array([index, os.getpid()])

    class Epochs(Batches):
        epoch = -1

        def __iter__(self) -> Iterator[Any]:
            self.epoch += 1
            yield from ([self.epoch * 12 + start + row for row in range(ROWS)] for start in range(0, 12, ROWS))

    loader = sharing(Meeting(24), 1, batch_sampler=Epochs([0] * 3), num_workers=3, persistent_workers=True)
    for epoch in range(2):
        batches = [np.asarray(batch) for batch in loader]
        assert np.concatenate(batches)[:, 0].tolist() == list(range(epoch * 12, epoch * 12 + 12))
        assert len(set(batches[0][:3, 1].tolist())) == 3, "each by a worker of its own"
    journey_of(iter(loader)).close()
    for gates in meetings:
        for gate in gates:
            gate.close()


def test_a_worker_that_dies_is_told_with_the_batch_it_was_at(sharing: Sharing) -> None:
    class Deadly(Numbers):
        def __getitem__(self, index: int) -> Any:
            if index == 9:
                os._exit(3)
            return super().__getitem__(index)

    _, error = until(WorkerDied, sharing(Deadly(40)))
    assert "exited with code 3 while it made batch 2 of indices [8, 9, 10, 11]" in str(error)


def test_a_sample_that_ends_its_worker_is_told_as_ever(sharing: Sharing) -> None:
    class Leaving(Numbers):
        def __getitem__(self, index: int) -> Any:
            if index == 9:
                raise SystemExit(4)
            return super().__getitem__(index)

    batches, error = until(WorkerDied, sharing(Leaving(40)))
    assert len(batches) == 2
    assert "sys.exit(4) was called" in str(error)


def test_worker_init_fn_that_fails_takes_the_place_of_a_batch(sharing: Sharing) -> None:
    def fail(_worker: int) -> None:
        raise Bad("at the start")

    error = until(Bad, sharing(Numbers(40), worker_init_fn=fail))[1]
    assert "at the start" in str(error)


def shared_bytes(pid: int | str) -> int:
    """Bytes that this process holds of memory that can be shared with others."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssShmem")) * 1024


def test_nothing_is_left_when_the_iterator_is_closed(sharing: Sharing, gate: Gate) -> None:
    gc.collect()
    before = descriptor_count(), shared_bytes("self")
    iterator = iter(sharing(Torn(SAMPLES["large array"], gate)))
    kept = np.asarray(next(iterator)).copy()
    pids = pids_of(iterator)
    engine = journey_of(iterator)._engine
    assert engine.memory_bytes > kept.nbytes
    journey_of(iterator).close()
    del iterator
    gc.collect()
    assert engine.memory_bytes == 0
    assert (descriptor_count(), shared_bytes("self")) == before
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
