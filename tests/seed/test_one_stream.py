"""With a seed there is one stream: the same bits whoever makes them, however they are cut, dealt and broken off."""

import json
import random
from collections.abc import Callable
from itertools import islice, product
from typing import Any

import numpy as np
import pytest
import torch
from drawing import Drawing, digest, samples

import forebay
import forebay.torch
from support import Front, journey_of

SEED = 7
LENGTH = 23

WORKERS = (1, 2, 3)
CUTS = [(1, 4), (4, 1), (7, 2)]
"""Batch sizes, and batches that each worker makes ahead."""


def loader_of(front: Front, **options: Any) -> Any:
    return front.DataLoader(Drawing(LENGTH), **{"shuffle": True, "seed": SEED, **options})


@pytest.fixture(scope="module")
def stream() -> list[np.ndarray[Any, Any]]:
    """Two epochs, by one process, sample by sample."""
    loader = forebay.DataLoader(Drawing(LENGTH), shuffle=True, seed=SEED)
    return [samples(loader), samples(loader)]


def is_equal(some: Any, other: Any) -> bool:
    """Bit for bit."""
    return some.shape == other.shape and some.tobytes() == other.tobytes()


def assert_two_epochs(loader: Any, stream: list[np.ndarray[Any, Any]]) -> None:
    with loader:
        assert [digest(loader), digest(loader)] == [digest([epoch]) for epoch in stream]


# -- The grid


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_without_workers_the_stream_is_the_same_in_batches_of_any_size(
    front: Front, cut: tuple[int, int], stream: list[Any]
) -> None:
    assert_two_epochs(loader_of(front, batch_size=cut[0]), stream)


@pytest.mark.parametrize(("workers", "cut"), list(product(WORKERS, CUTS)), ids=str)
@pytest.mark.parametrize("persistent", [False, True], ids=["new-workers", "persistent"])
def test_any_number_of_workers_makes_the_same_stream(
    front: Front, workers: int, cut: tuple[int, int], persistent: bool, stream: list[Any]
) -> None:
    size, ahead = cut
    options = {"num_workers": workers, "prefetch_factor": ahead, "persistent_workers": persistent}
    assert_two_epochs(loader_of(front, batch_size=size, multiprocessing_context="fork", **options), stream)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_of_any_start_method_make_the_same_stream(front: Front, method: str) -> None:
    # A spawned worker of the NumPy front has no torch: what is drawn from torch is left out.
    options = {"num_workers": 2, "batch_size": 4, "multiprocessing_context": method, "persistent_workers": True}
    here = loader_of(front, batch_size=4)
    columns = [0, 1, 2, 3, 4] if front.name == "torch" else [0, 1, 2, 4]
    with loader_of(front, **options) as loader:
        for _ in range(2):
            assert is_equal(samples(loader)[:, columns], samples(here)[:, columns])


@pytest.mark.parametrize("shuffle", [False, True], ids=["in-sequence", "shuffled"])
def test_one_by_one_without_automatic_batching_it_is_the_same_stream(front: Front, shuffle: bool) -> None:
    whole = digest(loader_of(front, batch_size=LENGTH, shuffle=shuffle))
    for workers in (0, 2):
        with loader_of(front, batch_size=None, shuffle=shuffle, num_workers=workers) as loader:
            assert digest(loader) == whole


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [2, 3])
def test_the_ranks_regrouped_are_the_stream(front: Front, world: int, workers: int, stream: list[Any]) -> None:
    regrouped = [np.empty_like(epoch) for epoch in stream]
    for rank in range(world):
        with loader_of(front, batch_size=4, num_workers=workers, rank=rank, world=world) as loader:
            for epoch in regrouped:
                epoch[rank::world] = samples(loader)
    assert all(map(is_equal, regrouped, stream))


@pytest.mark.parametrize("workers", [0, 2])
def test_all_ranks_told_by_the_environment_are_the_stream(
    front: Front, workers: int, stream: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    regrouped = np.empty_like(stream[0])
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        with loader_of(front, batch_size=4, num_workers=workers) as loader:
            regrouped[rank::2] = samples(loader)
    assert is_equal(regrouped, stream[0])


# -- Broken off and gone on with


def broken_off(loader: Any, batches: int) -> tuple[np.ndarray[Any, Any], Any]:
    """The samples of so many batches, and the state after them."""
    with loader:
        delivered = samples(islice(iter(loader), batches))
        return delivered, json.loads(json.dumps(loader.state_dict()))


def test_wherever_it_is_broken_off_the_rest_is_the_rest_of_the_stream(front: Front, stream: list[Any]) -> None:
    for batches in range(7):
        delivered, state = broken_off(loader_of(front, batch_size=4), batches)
        again = loader_of(front, batch_size=4)
        again.load_state_dict(state)
        assert is_equal(np.concatenate([delivered, samples(again)]), stream[0])
        assert is_equal(samples(again), stream[1])


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 4), (0, 4)), ((0, 4), (3, 5)), ((3, 2), (2, 7)), ((1, 5), (1, 1))],
    ids=lambda made: f"{made[0]}workers-{made[1]}samples",
)
@pytest.mark.parametrize("batches", [1, 3])
def test_other_workers_and_batches_go_on_with_the_stream(
    front: Front, before: tuple[int, int], after: tuple[int, int], batches: int, stream: list[Any]
) -> None:
    def of(made: tuple[int, int]) -> Any:
        return loader_of(front, num_workers=made[0], batch_size=made[1])

    delivered, state = broken_off(of(before), batches)
    with of(after) as again:
        again.load_state_dict(state)
        assert is_equal(np.concatenate([delivered, samples(again)]), stream[0])
        assert is_equal(samples(again), stream[1])


@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 1), (2, 3), (3, 2)])
def test_other_ranks_go_on_with_the_stream(front: Front, before: int, after: int, stream: list[Any]) -> None:
    regrouped = np.empty_like(stream[0])
    states = []
    for rank in range(before):
        delivered, state = broken_off(loader_of(front, batch_size=3, rank=rank, world=before), 2)
        regrouped[rank : before * 6 : before] = delivered
        states.append(state)
    for rank in range(after):
        again = loader_of(front, batch_size=2, rank=rank, world=after)
        again.load_state_dict(states[0])
        regrouped[before * 6 + rank :: after] = samples(again)
    assert is_equal(regrouped, stream[0])


# -- Epochs


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_differ_and_the_same_epoch_again_is_the_same(front: Front, workers: int) -> None:
    with loader_of(front, batch_size=4, num_workers=workers, persistent_workers=workers > 0) as loader:
        first, second = samples(loader), samples(loader)
        assert first[:, 0].tolist() != second[:, 0].tolist()
        by_index = [epoch[epoch[:, 0].argsort()] for epoch in (first, second)]
        assert (by_index[0][:, 1:] != by_index[1][:, 1:]).all()
        for epoch, expected in ((0, first), (1, second), (0, first)):
            loader.set_epoch(epoch)
            assert is_equal(samples(loader), expected)


def test_other_seeds_have_other_orders_and_other_numbers(front: Front) -> None:
    some, other = (samples(loader_of(front, seed=seed)) for seed in (7, 8))
    assert some[:, 0].tolist() != other[:, 0].tolist()
    assert (some[some[:, 0].argsort()][:, 1:] != other[other[:, 0].argsort()][:, 1:]).all()


@pytest.mark.parametrize("persistent", [False, True])
def test_out_of_order_the_batches_are_the_same_in_another_sequence(front: Front, persistent: bool) -> None:
    options = {"batch_size": 4, "num_workers": 3, "in_order": False, "persistent_workers": persistent}
    here = loader_of(front, batch_size=4)
    with loader_of(front, **options) as loader:
        for _ in range(2):
            assert sorted(digest([batch]) for batch in loader) == sorted(digest([batch]) for batch in here)


def test_an_epoch_that_was_left_changes_nothing_for_the_next_one(front: Front, stream: list[Any]) -> None:
    for workers in (0, 2):
        with loader_of(front, batch_size=4, num_workers=workers, persistent_workers=workers > 0) as loader:
            next(iter(loader))
            assert is_equal(samples(loader), stream[1])


# -- The two fronts


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_both_fronts_have_the_same_stream(seed: int) -> None:
    loaders = [
        kind(Drawing(), batch_size=4, shuffle=True, seed=seed)
        for kind in (forebay.DataLoader, forebay.torch.DataLoader)
    ]
    for loader in loaders:
        loader.set_epoch(2**64 - 1)
    assert len({digest(loader) for loader in loaders}) == 1


# -- What gives the order is somebody else's


class Coins:
    """A sampler of a user's: a new order for every pass, drawn from Python's stream at once or little by little."""

    def __init__(self, count: int, lazy: bool) -> None:
        self.count, self.lazy = count, lazy

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Any:
        if self.lazy:
            return (random_index(self.count) for _ in range(self.count))
        return iter(shuffled(self.count))


def random_index(count: int) -> int:
    return (random.randrange(count) + int(np.random.randint(count)) + int(torch.randint(count, ()))) % count


def shuffled(count: int) -> list[int]:
    order = list(range(count))
    random.shuffle(order)
    np.random.shuffle(order)
    return order


class EpochsOfItsOwn(Coins):
    """The same, with the epoch that somebody tells it."""

    def __init__(self, count: int) -> None:
        super().__init__(count, lazy=False)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        return iter(np.random.default_rng(self.epoch).permutation(self.count).tolist())


SAMPLERS: dict[str, Callable[[], Any]] = {
    "RandomSampler": lambda: torch.utils.data.RandomSampler(range(LENGTH)),
    "with replacement": lambda: torch.utils.data.RandomSampler(range(LENGTH), replacement=True, num_samples=70),
    "SubsetRandomSampler": lambda: torch.utils.data.SubsetRandomSampler(range(0, LENGTH, 2)),
    "WeightedRandomSampler": lambda: torch.utils.data.WeightedRandomSampler(torch.arange(1.0, LENGTH), 40),
    "DistributedSampler": lambda: torch.utils.data.DistributedSampler(range(LENGTH), 2, 1, seed=4),
    "forebay.RandomSampler": lambda: forebay.RandomSampler(range(LENGTH)),
    "a user's": lambda: Coins(LENGTH, lazy=False),
    "a user's, lazy": lambda: Coins(LENGTH, lazy=True),
    "a user's, with set_epoch": lambda: EpochsOfItsOwn(LENGTH),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_samplers_order_is_a_function_of_seed_and_epoch(front: Front, name: str) -> None:
    torch.manual_seed(1)
    options = {"shuffle": None, "batch_size": 4}
    loader = loader_of(front, sampler=SAMPLERS[name](), **options)
    first, second = samples(loader), samples(loader)
    assert first[:, 0].tolist() != second[:, 0].tolist()
    torch.manual_seed(2)
    np.random.seed(2)
    with loader_of(front, sampler=SAMPLERS[name](), num_workers=2, **options) as again:
        again.set_epoch(1)
        assert is_equal(samples(again), second)
        again.set_epoch(0)
        assert is_equal(samples(again), first)
        delivered, state = broken_off(again, 2)  # of epoch 1
    going_on = loader_of(front, sampler=SAMPLERS[name](), **options)
    going_on.load_state_dict(state)
    assert is_equal(np.concatenate([delivered, samples(going_on)]), second)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_batch_samplers_order_is_a_function_of_seed_and_epoch(front: Front, name: str) -> None:
    def loader() -> Any:
        return loader_of(front, shuffle=None, batch_sampler=torch.utils.data.BatchSampler(SAMPLERS[name](), 4, False))

    torch.manual_seed(1)
    first = loader()
    epochs = [samples(first), samples(first)]
    torch.manual_seed(2)
    again = loader()
    assert all(map(is_equal, [samples(again), samples(again)], epochs))


def test_the_epoch_that_a_library_tells_the_sampler_alone_is_the_loaders(front: Front, stream: list[Any]) -> None:
    loader = loader_of(front, batch_size=4)
    third = loader_of(front, batch_size=4)
    third.set_epoch(2)
    expected = {0: stream[0], 1: stream[1], 2: samples(third)}
    for epoch in (0, 1, 2, 0, 0, 2, 2, 1):
        loader.batch_sampler.sampler.set_epoch(epoch)
        assert is_equal(samples(loader), expected[epoch]), epoch
    assert is_equal(samples(loader), expected[2])  # nobody said anything: the next one


def test_the_epoch_that_a_library_tells_somebody_elses_sampler_is_the_loaders(front: Front) -> None:
    def loader() -> Any:
        return loader_of(front, sampler=EpochsOfItsOwn(LENGTH), shuffle=None, batch_size=4)

    told, named = loader(), loader()
    for epoch in (0, 1, 5, 3):
        told.sampler.set_epoch(epoch)
        named.set_epoch(epoch)
        assert is_equal(samples(told), samples(named))


def test_the_workers_of_this_grid_are_not_the_trainer(front: Front) -> None:
    with loader_of(front, num_workers=3) as loader:
        assert len(journey_of(iter(loader)).processes) == 3
