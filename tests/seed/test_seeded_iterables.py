"""Iterable datasets with a seed: what is promised, as the table of docs/seed.md has it."""

import json
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from drawing import FEATURES, drawn, samples

import forebay
import forebay.torch
from forebay.errors import StateWarning
from support import Front, until

SEED = 7
LENGTH = 23


def place_among_workers() -> tuple[int, int]:
    """This worker's number, and how many there are."""
    info = forebay.get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


class Dealt(torch.utils.data.IterableDataset[Any]):
    """Numbers dealt round to the workers, each with what is drawn for it."""

    def __iter__(self) -> Iterator[Any]:
        worker, step = place_among_workers()
        for number in range(worker, LENGTH, step):
            yield drawn(number)


class Copied(torch.utils.data.IterableDataset[Any]):
    """Every worker reads all of it."""

    def __iter__(self) -> Iterator[Any]:
        return (drawn(number) for number in range(6))


class Standing(Dealt):
    """Dealt, by an iterator that tells where it stands. Raises at some numbers, and goes on behind them."""

    bad: tuple[int, ...] = ()

    def __iter__(self) -> Any:
        self.next, self.step = place_among_workers()
        return self

    def __next__(self) -> Any:
        if self.next >= LENGTH:
            raise StopIteration
        number, self.next = self.next, self.next + self.step
        if number in self.bad:
            raise ValueError(number)
        return drawn(number)

    def state_dict(self) -> dict[str, int]:
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.next = state["next"]


class Stumbling(Standing):
    bad = (5, 6)


def of(front: Front, dataset: Any, **options: Any) -> Any:
    return front.DataLoader(dataset, **{"seed": SEED, **options})


def by_number(batches: Any) -> np.ndarray[Any, Any]:
    rows = samples(batches)
    return rows[rows[:, 0].argsort(kind="stable")]


def is_equal(some: Any, other: Any) -> bool:
    return some.tobytes() == other.tobytes()


WAYS = [
    {"num_workers": 1},
    {"num_workers": 2, "batch_size": 4},
    {"num_workers": 3, "batch_size": 2, "persistent_workers": True},
    {"num_workers": 2, "batch_size": None},
    {"num_workers": 0, "batch_size": 5},
]
ways = pytest.mark.parametrize("way", WAYS, ids=str)


@ways
@pytest.mark.parametrize("kind", [Dealt, Standing])
def test_a_dataset_that_deals_round_has_the_same_samples_with_any_number_of_workers(
    front: Front, kind: type, way: dict[str, Any]
) -> None:
    alone = of(front, kind())
    with of(front, kind(), **way) as loader:
        for _ in range(2):
            assert is_equal(by_number(loader), samples(alone))


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_one_by_one_dealt_round_even_the_order_is_the_same(front: Front, workers: int) -> None:
    with of(front, Dealt(), num_workers=workers, batch_size=None) as loader:
        assert is_equal(samples(loader), samples(of(front, Dealt())))


def test_both_fronts_have_the_same_samples() -> None:
    some = samples(forebay.DataLoader(Dealt(), num_workers=2, batch_size=4, seed=SEED))
    assert is_equal(some, samples(forebay.torch.DataLoader(Dealt(), num_workers=2, batch_size=4, seed=SEED)))


def test_batches_come_from_the_workers_in_turn(front: Front) -> None:
    with of(front, Dealt(), num_workers=2, batch_size=2) as loader:
        assert samples(loader)[:8, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_sample_k_of_worker_w_of_n_is_keyed_by_its_turn(front: Front) -> None:
    """Where every worker reads all of it, the same sample is drawn for differently in each."""
    turns = samples(of(front, Dealt()))[:, 1:]
    with of(front, Copied(), num_workers=3, batch_size=2) as loader:
        rows = samples(loader)
    for place, batch in enumerate(rows.reshape(-1, 2, FEATURES)):
        worker, first = place % 3, place // 3 * 2
        for k, row in enumerate(batch, first):
            assert row[0] == k
            assert is_equal(row[1:], turns[k * 3 + worker])


def test_epochs_differ_and_the_same_epoch_again_is_the_same(front: Front) -> None:
    with of(front, Dealt(), num_workers=2, persistent_workers=True) as loader:
        epochs = [samples(loader), samples(loader)]
        assert (epochs[0][:, 1:] != epochs[1][:, 1:]).all()
        for epoch in (0, 1, 1, 0):
            loader.set_epoch(epoch)
            assert is_equal(samples(loader), epochs[epoch])


class Beginning(torch.utils.data.IterableDataset[Any]):
    """Draws when a pass is asked for, not when its first sample is."""

    def __iter__(self) -> Iterator[Any]:
        first = drawn(0)
        return (np.concatenate([first, drawn(number)]) for number in range(2))


def test_what_the_beginning_of_a_pass_draws_is_its_own_and_differs_from_worker_to_worker(front: Front) -> None:
    def rows(**options: Any) -> Any:
        random.seed(0)
        with of(front, Beginning(), **options) as loader:
            return np.concatenate([np.asarray(batch) for _ in range(2) for batch in loader])

    alone, several = rows(), rows(num_workers=2, persistent_workers=True)
    assert is_equal(several, rows(num_workers=2, persistent_workers=False))
    begun = several[:, 1:FEATURES]
    assert len(np.unique(begun)) == 2 * 2 * (FEATURES - 1)  # of two workers and two epochs
    assert not set(begun.ravel()) & set(several[:, FEATURES + 1 :].ravel())
    assert is_equal(alone[0], several[0])


# -- Broken off and gone on with


def broken_off(loader: Any, batches: int) -> tuple[Any, Any]:
    with loader:
        delivered = samples(islice(iter(loader), batches))
        return delivered, json.loads(json.dumps(loader.state_dict()))


@pytest.mark.filterwarnings("ignore::forebay.errors.StateWarning")
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("kind", [Dealt, Standing])
def test_a_stream_goes_on_with_exactly_its_randomness(front: Front, kind: type, workers: int) -> None:
    def loader() -> Any:
        return of(front, kind(), num_workers=workers, batch_size=4, persistent_workers=workers == 2)

    with loader() as whole:
        epochs = [samples(whole), samples(whole)]
    for batches in (0, 1, 3, 6):
        delivered, state = broken_off(loader(), batches)
        with loader() as again:
            again.load_state_dict(state)
            if len(delivered) < LENGTH:
                assert is_equal(np.concatenate([delivered, samples(again)]), epochs[0])
            else:
                again.set_epoch(1)
            assert is_equal(samples(again), epochs[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stateful_stream_goes_on_exactly_behind_samples_that_failed(front: Front, workers: int) -> None:
    def loader(size: int) -> Any:
        return of(front, Stumbling(), num_workers=workers, batch_size=size)

    def rest(batches: Any) -> np.ndarray[Any, Any]:
        found, failed = [], 0
        while True:
            try:
                found.append(next(batches))
            except ValueError:
                failed += 1
            except StopIteration:
                return samples(found)

    with loader(4) as first:
        batches = iter(first)
        delivered = [next(batches)]
        for _ in range(2):
            with pytest.raises(ValueError, match=r"[56]"):
                next(batches)
        delivered.append(next(batches))
        state = first.state_dict()
        expected = rest(batches)
    with loader(4) as again:
        again.load_state_dict(state)
        assert is_equal(samples(again), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_stream_goes_on_in_batches_of_another_size(front: Front, workers: int) -> None:
    def loader(size: int) -> Any:
        return of(front, Standing(), num_workers=workers, batch_size=size)

    delivered, state = broken_off(loader(4), 2)
    with loader(3) as again:
        again.load_state_dict(state)
        rest = samples(again)
    assert is_equal(by_number([delivered, rest]), by_number(loader(1)))


def test_a_stream_that_cannot_tell_is_read_again_and_warned_of(front: Front) -> None:
    _, state = broken_off(of(front, Dealt(), batch_size=4), 2)
    again = of(front, Dealt(), batch_size=4)
    again.load_state_dict(state)
    with pytest.warns(StateWarning, match="2 batches are read and dropped"):
        assert len(samples(again)) == LENGTH - 8


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_in_the_stream_changes_nothing_for_the_samples_behind_it(front: Front, workers: int) -> None:
    with of(front, Stumbling(), num_workers=workers) as loader:
        found, _ = until(ValueError, loader)
    assert is_equal(samples(found), samples(of(front, Dealt()))[:5])


def noisy(batch: list[Any]) -> Any:
    return np.stack([np.append(sample[:1], drawn(0)[1:]) for sample in batch])


def test_what_a_collate_fn_draws_is_keyed_by_the_batchs_first_turn(front: Front) -> None:
    alone = samples(of(front, Dealt(), collate_fn=noisy))
    with of(front, Dealt(), collate_fn=noisy, num_workers=2) as loader:
        assert is_equal(by_number(loader), alone)
    assert not set(alone[:, 1:].ravel()) & set(samples(of(front, Dealt()))[:, 1:].ravel())
