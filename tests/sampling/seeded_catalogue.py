"""Samplers with a seed, of every kind, that the laws are about. Imports no torch."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from forebay.sampler import (
    BlockShuffleSampler,
    LengthGroupedSampler,
    SeededSampler,
    ShardSampler,
    ShuffleSampler,
    SubsetSampler,
    WeightedSampler,
)

Made = Callable[[int, int], SeededSampler]


def subset_of(length: int) -> np.ndarray[Any, Any]:
    return np.arange(length) * 3 + 5


def lengths_of(length: int) -> np.ndarray[Any, Any]:
    return np.arange(length) * 7919 % 97 + 1


def weights_of(length: int) -> np.ndarray[Any, Any]:
    return np.arange(length) % 4 + 0.5


def sizes_of(length: int) -> list[int]:
    """Of blocks, some of them empty."""
    sizes = [0, 3, 11, 0, 1, 6]
    whole, rest = divmod(length, sum(sizes))
    return [*sizes * whole, rest, 0]


PERMUTATIONS: dict[str, Made] = {
    "shuffle": lambda length, seed: ShuffleSampler(length, seed=seed),
    "by length": lambda length, seed: LengthGroupedSampler(lengths_of(length), 4, seed=seed, megabatch=3),
    "by block": lambda length, seed: BlockShuffleSampler(length, 5, 3, seed=seed),
    "by uneven block": lambda length, seed: BlockShuffleSampler(length, sizes_of(length), 3, seed=seed),
    "of one rank": lambda length, seed: ShardSampler(ShuffleSampler(length, seed=seed), rank=0, world=1),
}

OTHERS: dict[str, Made] = {
    "subset": lambda length, seed: SubsetSampler(subset_of(length), seed=seed),
    "weighted": lambda length, seed: WeightedSampler(weights_of(length), length, seed=seed),
    "weighted, each once": lambda length, seed: WeightedSampler(
        weights_of(length), length, replacement=False, seed=seed
    ),
    "shard of a shuffle": lambda length, seed: ShardSampler(ShuffleSampler(length, seed=seed), rank=1, world=3),
    "padded shard by length": lambda length, seed: ShardSampler(
        LengthGroupedSampler(lengths_of(length), 4, seed=seed, megabatch=3), rank=2, world=3, uneven="pad"
    ),
    "dropping shard by block": lambda length, seed: ShardSampler(
        BlockShuffleSampler(length, 5, 3, seed=seed), rank=0, world=3, uneven="drop"
    ),
    "shard of a weighted one": lambda length, seed: ShardSampler(
        WeightedSampler(weights_of(length), length, seed=seed), rank=1, world=2
    ),
}

SHUFFLED = PERMUTATIONS | OTHERS

IN_ORDER: dict[str, Made] = {
    "subset in order": lambda length, _: SubsetSampler(subset_of(length), shuffle=False),
    "shard in order": lambda length, _: ShardSampler(length, rank=1, world=2),
}

ALL = SHUFFLED | IN_ORDER


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(state))
    return found


def golden() -> dict[str, Any]:
    """What is frozen: orders of every kind, of two epochs."""
    orders: dict[str, Any] = {}
    for name, make in ALL.items():
        orders[name] = {str(epoch): make(23, 7).order(epoch).indices().tolist() for epoch in (0, 1)}
    large = {"shuffle": ShuffleSampler(10**9, seed=7), "by block": BlockShuffleSampler(10**7, 1000, seed=7)}
    for name, sampler in large.items():
        orders[f"{name}, {len(sampler)}"] = {"0": sampler.indices(5_000_000, 5_000_008).tolist()}
    return orders
