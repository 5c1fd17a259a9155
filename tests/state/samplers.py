"""Samplers of every kind that the laws of resuming are about, and what is asked of them."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

COUNT = 23
DATA = range(COUNT)


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class OfAllStreams(Sampler[int]):
    """Draws its order from all three global streams, at its beginning."""

    def __iter__(self) -> Iterator[int]:
        order = list(DATA)
        random.shuffle(order)
        np.random.shuffle(order)
        return iter([order[place] for place in torch.randperm(COUNT).tolist()])

    def __len__(self) -> int:
        return COUNT


class OfItsGenerator(Sampler[int]):
    """A class of the user's, with a generator of its own."""

    def __init__(self, seed: int = 5) -> None:
        self.generator = seeded(seed)

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(COUNT, generator=self.generator).tolist()

    def __len__(self) -> int:
        return COUNT


class OfTheEpoch(Sampler[int]):
    """An order that is a function of `epoch`."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(random.Random(self.epoch).sample(DATA, COUNT))

    def __len__(self) -> int:
        return COUNT


class Bucketed(Sampler[list[int]]):
    """A batch sampler whose batches are drawn when it is iterated over, and differ in length."""

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(COUNT).tolist()
        return iter([order[:7], order[7:9], order[9:10], order[10:20], order[20:]])

    def __len__(self) -> int:
        return 5


class Counting(Sampler[int]):
    """Stateful: its order goes on with a number that only its state has."""

    def __init__(self) -> None:
        self.drawn = 0
        self.asked = 0
        self.loaded = 0

    def begin(self) -> None:
        self.drawn, self.loaded = self.loaded, 0

    def __iter__(self) -> Iterator[int]:
        self.begin()
        while self.drawn < COUNT:
            self.drawn += 1
            yield (self.drawn - 1) * 7 % COUNT

    def __len__(self) -> int:
        return COUNT

    def state_dict(self) -> dict[str, Any]:
        self.asked += 1
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loaded = state["drawn"]


class CountingBatches(Counting):
    """A stateful batch sampler."""

    def __iter__(self) -> Iterator[Any]:
        self.begin()
        while self.drawn < COUNT:
            size = min(3, COUNT - self.drawn)
            self.drawn += size
            yield list(range(self.drawn - size, self.drawn))

    def __len__(self) -> int:
        return (COUNT + 2) // 3


Options = Callable[[], dict[str, Any]]

OWN: dict[str, Options] = {
    "shuffle with generator": lambda: {"shuffle": True, "generator": seeded()},
    "generator of the sampler": lambda: {"sampler": RandomSampler(DATA, generator=seeded())},
    "two generators": lambda: {"sampler": RandomSampler(DATA, generator=seeded()), "generator": seeded(9)},
    "with replacement": lambda: {"sampler": RandomSampler(DATA, replacement=True, num_samples=77, generator=seeded())},
    "more than there are": lambda: {"sampler": RandomSampler(DATA, num_samples=2 * COUNT + 5, generator=seeded())},
    "fewer than there are": lambda: {"sampler": RandomSampler(DATA, num_samples=11, generator=seeded())},
    "subset with generator": lambda: {"sampler": SubsetRandomSampler(range(3, 20), generator=seeded())},
    "weighted with generator": lambda: {"sampler": WeightedRandomSampler([1.0] * COUNT, 30, generator=seeded())},
    "class with generator": lambda: {"sampler": OfItsGenerator()},
    "sequential": dict,
    "list of batches": lambda: {"batch_sampler": [[3, 4], [5], [1, 2, 0], [9], [8, 7]]},
}
"""What is random about them belongs to the loader, so later epochs, too, are the same after a resume."""

GLOBAL: dict[str, Options] = {
    "shuffle": lambda: {"shuffle": True},
    "subset": lambda: {"sampler": SubsetRandomSampler(range(3, 20))},
    "weighted": lambda: {"sampler": WeightedRandomSampler([1.0] * COUNT, 30)},
    "weighted without replacement": lambda: {"sampler": WeightedRandomSampler([1.0] * COUNT, 9, replacement=False)},
    "distributed": lambda: {"sampler": DistributedSampler(DATA, num_replicas=2, rank=1)},
    "distributed, dropping": lambda: {"sampler": DistributedSampler(DATA, 2, 0, shuffle=False, drop_last=True)},
    "all streams": lambda: {"sampler": OfAllStreams()},
    "epochs": lambda: {"sampler": OfTheEpoch()},
    "batch sampler": lambda: {"batch_sampler": BatchSampler(RandomSampler(DATA), 4, drop_last=True)},
    "batch sampler of a class": lambda: {"batch_sampler": Bucketed()},
    "generator for seeds only": lambda: {"sampler": SequentialSampler(DATA), "generator": seeded()},
}

STATEFUL: dict[str, Options] = {
    "stateful sampler": lambda: {"sampler": Counting()},
    "stateful batch sampler": lambda: {"batch_sampler": CountingBatches()},
}

ALL = OWN | GLOBAL | STATEFUL


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(state))
    return found


def found_in(batch: Any) -> Any:
    return batch.tolist()
