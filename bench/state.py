"""What a loader's state costs, with each of torch's samplers and with a seed: its time, its bytes, the time to resume.

python bench/state.py       alone, half a minute
"""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import (
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from forebay.sampler import BlockShuffleSampler, LengthGroupedSampler, ShuffleSampler
from forebay.torch import DataLoader

SAMPLES = 10_000_000
BATCH = 256
POSITIONS = (0.1, 0.5, 0.9)
TAKEN = 200  # states per sampler
STARTS = 3

MOST_US, MOST_BYTES, MOST_MS = 100, 8 * 1024, 50
MOST_BYTES_SEEDED = 1024

DATA = range(SAMPLES)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


SAMPLERS: dict[str, Callable[[], Any]] = {
    "sequential": lambda: SequentialSampler(DATA),
    "random": lambda: RandomSampler(DATA),
    "random, own generator": lambda: RandomSampler(DATA, generator=_generator()),
    "random, with replacement": lambda: RandomSampler(DATA, replacement=True, generator=_generator()),
    "subset": lambda: SubsetRandomSampler(DATA),
    "weighted": lambda: WeightedRandomSampler(_WEIGHTS, SAMPLES // 10),
    "distributed": lambda: DistributedSampler(DATA, num_replicas=2, rank=1),
}

SEEDED: dict[str, Callable[[], Any]] = {
    "seed, in order": lambda: None,
    "seed, shuffle": lambda: ShuffleSampler(DATA, seed=3),
    "seed, blocks": lambda: BlockShuffleSampler(DATA, 10_000, seed=3),
    "seed, by length": lambda: LengthGroupedSampler(_LENGTHS, BATCH, seed=3),
}
"""In loaders with a seed."""

_LENGTHS = torch.randint(1000, (SAMPLES,), generator=_generator()).numpy()

_WEIGHTS = torch.ones(SAMPLES // 10)
"""A tenth of the samples: torch takes 20 s to draw from all."""


def measure() -> list[dict[str, Any]]:
    """One sampler each: `sampler`, `first_us`, `us`, `bytes`, `start_ms`, and `beyond_ms` of each position."""
    drawn = [_measure(name, make) for name, make in SAMPLERS.items()]
    return drawn + [_measure(name, make, seed=3) for name, make in SEEDED.items()]


def _loader(make: Callable[[], Any], seed: int | None) -> DataLoader[Any]:
    return DataLoader(DATA, batch_size=BATCH, sampler=make(), collate_fn=len, seed=seed)  # type: ignore[arg-type]


def _moved(state: dict[str, Any], batches: int) -> None:
    state["_num_yielded"] = state["_sampler_iter_yielded"] = batches
    if "samples" in state["forebay"]:
        state["forebay"] |= {"samples": batches * BATCH, "delivered": batches}


def _start_ms(loader: DataLoader[Any]) -> float:
    start = time.perf_counter()
    next(iter(loader))
    return (time.perf_counter() - start) * 1e3


def _measure(name: str, make: Callable[[], Any], seed: int | None = None) -> dict[str, Any]:
    starts, first = [], []
    for _ in range(STARTS):
        loader = _loader(make, seed)
        starts.append(_start_ms(loader))
        start = time.perf_counter()
        loader.state_dict()
        first.append((time.perf_counter() - start) * 1e6)
    loader = _loader(make, seed)
    epoch = iter(loader)
    took, state = [], {}
    for _ in range(TAKEN):
        next(epoch)
        start = time.perf_counter()
        state = loader.state_dict()
        took.append((time.perf_counter() - start) * 1e6)
    batches, size = len(loader), len(json.dumps(state))
    del epoch, loader
    beyond: dict[str, float] = {}
    for position in POSITIONS:
        _moved(state, int(batches * position))
        resumed = []
        for _ in range(STARTS):
            again = _loader(make, seed)
            again.load_state_dict(state)
            resumed.append(_start_ms(again))
        beyond[str(position)] = statistics.median(resumed) - statistics.median(starts)
    return {
        "sampler": name,
        "first_us": statistics.median(first),
        "us": statistics.median(took),
        "bytes": size,
        "start_ms": statistics.median(starts),
        "beyond_ms": beyond,
    }


def verdict(figures: dict[str, Any]) -> str:
    """Whether all aims of a sampler are met. An epoch's first state is only shown: it comes out of cold caches."""
    most_bytes = MOST_BYTES_SEEDED if figures["sampler"] in SEEDED else MOST_BYTES
    met = figures["us"] <= MOST_US and figures["bytes"] <= most_bytes and max(figures["beyond_ms"].values()) <= MOST_MS
    return "met" if met else "MISSED"


if __name__ == "__main__":
    for row in measure():
        row["beyond_ms"] = {position: round(value, 1) for position, value in row["beyond_ms"].items()}
        print({key: round(value, 1) if isinstance(value, float) else value for key, value in row.items()}, verdict(row))
