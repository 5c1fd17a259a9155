"""The NumPy front without a seed: after a resume the order is exactly that of the uninterrupted run."""

import json
import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest

from forebay import DataLoader
from forebay.errors import StateError
from forebay.sampler import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    ShuffleSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from support import Gate, SlowFirst, flat

COUNT = 23
DATA = range(COUNT)


class Foreign(Sampler[int]):
    """A class of the user's, which draws from the global streams."""

    def __iter__(self) -> Iterator[int]:
        order = random.sample(DATA, COUNT)
        np.random.shuffle(order)
        return iter(order)


KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "sequential": dict,
    "shuffle": lambda: {"shuffle": True},
    "shuffle with generator": lambda: {"shuffle": True, "generator": 5},
    "random with generator": lambda: {"sampler": RandomSampler(DATA, generator=5)},
    "random, a generator for seeds": lambda: {"sampler": RandomSampler(DATA), "generator": 5},
    "two generators": lambda: {"sampler": RandomSampler(DATA, generator=5), "generator": 9},
    "with replacement": lambda: {"sampler": RandomSampler(DATA, replacement=True, num_samples=9000)},
    "more than there are": lambda: {"sampler": RandomSampler(DATA, num_samples=50, generator=5)},
    "subset": lambda: {"sampler": SubsetRandomSampler(range(3, 20))},
    "subset with generator": lambda: {"sampler": SubsetRandomSampler(range(3, 20), generator=5)},
    "weighted": lambda: {"sampler": WeightedRandomSampler([1.0] * COUNT, 30)},
    "weighted with generator": lambda: {"sampler": WeightedRandomSampler([1.0] * COUNT, 9, False, generator=5)},
    "distributed": lambda: {"sampler": DistributedSampler(DATA, 2, 1)},
    "with a seed of its own": lambda: {"sampler": ShuffleSampler(DATA, seed=3)},
    "batch sampler": lambda: {"batch_sampler": BatchSampler(RandomSampler(DATA), 4, drop_last=True)},
    "list of batches": lambda: {"batch_sampler": [[3, 4], [5], [1, 2, 0], [9], [8, 7]]},
    "foreign": lambda: {"sampler": Foreign()},
}


def loader_of(kind: str, **options: Any) -> DataLoader:
    own = KINDS[kind]()
    return DataLoader(DATA, **({} if "batch_sampler" in own else {"batch_size": 4}), **own, **options)


def disturbed() -> None:
    random.seed(99)
    np.random.seed(99)


def interrupted(kind: str, batches: int, **options: Any) -> tuple[Any, list[int], DataLoader]:
    loader = loader_of(kind, **options)
    list(loader)
    if hasattr(loader.sampler, "set_epoch"):
        loader.sampler.set_epoch(4)
    epoch = iter(loader)
    list(islice(epoch, batches))
    state = json.loads(json.dumps(loader.state_dict()))
    return state, flat(epoch), loader


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("taken", "resumed"), [(0, 0), (0, 2), (2, 0)])
def test_the_rest_of_the_epoch_comes_in_the_same_order(kind: str, taken: int, resumed: int) -> None:
    for batches in (0, 2):
        state, rest, _ = interrupted(kind, batches, num_workers=taken)
        disturbed()
        again = loader_of(kind, num_workers=resumed)
        again.load_state_dict(state)
        assert flat(again) == rest
        if again.num_workers:
            break  # one place is enough where processes start


@pytest.mark.parametrize("kind", ["shuffle with generator", "two generators", "more than there are"])
def test_later_epochs_of_own_generators_are_those_of_the_uninterrupted_run(kind: str) -> None:
    state, _, loader = interrupted(kind, 2)
    later = [flat(loader) for _ in range(2)]
    between = json.loads(json.dumps(loader.state_dict()))
    again = loader_of(kind)
    again.load_state_dict(state)
    assert len(flat(again)) > 0
    assert [flat(again) for _ in range(2)] == later
    other = loader_of(kind)
    other.load_state_dict(between)
    assert flat(other) == flat(loader), "a state between epochs, too"


@pytest.mark.parametrize("kind", ["shuffle", "foreign", "weighted"])
def test_the_global_streams_are_only_lent(kind: str) -> None:
    state, _, _ = interrupted(kind, 2)
    again = loader_of(kind)
    again.load_state_dict(state)
    disturbed()
    list(again)
    found = random.random(), np.random.rand()
    disturbed()
    assert found == (random.random(), np.random.rand())


def test_out_of_order_exactly_the_rest_comes(gate: Gate) -> None:
    from forebay import get_worker_info

    dataset = SlowFirst(30, get_worker_info, gate)
    loader = DataLoader(dataset, batch_size=2, num_workers=2, in_order=False)
    epoch = iter(loader)
    before = [int(batch[0, 0]) for batch in islice(epoch, 5)]
    state = json.loads(json.dumps(loader.state_dict()))
    gate.open()
    again = DataLoader(dataset, batch_size=2, num_workers=1)
    again.load_state_dict(state)
    assert sorted(before + [int(batch[0, 0]) for batch in again]) == list(range(0, 30, 2))


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"batch_size": 5}, "batch_size is 5, but 4 in the state"),
        ({"dataset": range(9)}, f"dataset_length is 9, but {COUNT} in the state"),
        ({"shuffle": False}, "sampler is 'SequentialSampler', but 'RandomSampler' in the state"),
        ({"generator": 3}, "it has 1 generators of its own, but 0 in the state"),
    ],
)
def test_a_state_of_another_loader_is_refused_and_told_apart(options: dict[str, Any], difference: str) -> None:
    state, _, _ = interrupted("shuffle", 2)
    loader = DataLoader(**({"dataset": DATA, "batch_size": 4, "shuffle": True} | options))
    with pytest.raises(StateError, match=difference):
        loader.load_state_dict(state)


def test_a_state_is_small() -> None:
    for kind in KINDS:
        loader = loader_of(kind)
        next(iter(loader))
        assert len(json.dumps(loader.state_dict())) < 8 * 1024


def test_a_sequential_sampler_needs_no_streams() -> None:
    loader = DataLoader(DATA, sampler=SequentialSampler(DATA))
    next(iter(loader))
    assert len(json.dumps(loader.state_dict())) < 512
