"""Some samples take long: what a batch costs, and how long the trainer waits for it, in turn through each loader.

python bench/late_samples.py       alone, two minutes

One sample in 50 takes 100 ms, at places that are the same in every run; the others take next to nothing. With a seed,
rows are shared, and there are four batches ahead for each worker, if nothing else is said: a late sample makes its own
batch late and no other. Whatever the loader, a batch takes no less than the
samples' time divided by the workers.
"""

import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import forebay.torch

WORKERS, BATCH, BATCHES = 4, 16, 300
LATE_S, ONE_IN = 0.1, 50
STEPS_S = (0.0, 0.01)
ROUNDS = 3

LATE = frozenset(np.flatnonzero(np.random.default_rng(7).random(BATCH * BATCHES) < 1 / ONE_IN).tolist())


class Samples(Dataset[Any]):
    """Small images; those at `LATE` come late."""

    def __len__(self) -> int:
        return BATCH * BATCHES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index in LATE:
            time.sleep(LATE_S)
        return torch.full((3, 32, 32), index % 256, dtype=torch.uint8), index


def _epoch(kind: Callable[..., Any], **options: Any) -> Iterator[Any]:
    return iter(kind(Samples(), BATCH, num_workers=WORKERS, **options))


LOADERS: dict[str, Callable[[], Iterator[Any]]] = {
    "torch": lambda: _epoch(DataLoader),
    "forebay": lambda: _epoch(forebay.torch.DataLoader),
    "forebay, seed": lambda: _epoch(forebay.torch.DataLoader, seed=7),
    "forebay, seed, prefetch_factor=2": lambda: _epoch(forebay.torch.DataLoader, seed=7, prefetch_factor=2),
    "torch, prefetch_factor=4": lambda: _epoch(DataLoader, prefetch_factor=4),
}


def _measure(epoch: Iterator[Any], step_s: float) -> dict[str, float]:
    """Milliseconds of a batch, and of the trainer's waits: the middle one and the 95th of a hundred."""
    next(epoch)
    waits: list[float] = []
    start = before = time.perf_counter()
    for _ in epoch:
        waits.append(time.perf_counter() - before)
        if step_s:
            time.sleep(step_s)
        before = time.perf_counter()
    middle, most = np.percentile(waits, (50, 95)) * 1e3
    return {"ms": (before - start) / len(waits) * 1e3, "wait_50_ms": float(middle), "wait_95_ms": float(most)}


def measure() -> list[dict[str, Any]]:
    """One loader each, for every training step: `step_ms`, `loader`, and the middle round's figures."""
    found: list[dict[str, Any]] = []
    for step_s in STEPS_S:
        rounds = [{name: _measure(make(), step_s) for name, make in LOADERS.items()} for _ in range(ROUNDS)]
        for name in LOADERS:
            figures = {key: statistics.median(one[name][key] for one in rounds) for key in rounds[0][name]}
            ratios = [one["torch"]["ms"] / one[name]["ms"] for one in rounds]
            row = {"step_ms": step_s * 1e3, "loader": name, **figures, "times_torch": statistics.median(ratios)}
            print(json.dumps(row), flush=True)
            found.append(row)
    return found


def main() -> None:
    warnings.simplefilter("ignore")  # of more workers than cores: they sleep
    torch.set_num_threads(1)
    bound = LATE_S * len(LATE) / BATCHES / WORKERS
    print(f"{len(LATE)} of {BATCH * BATCHES} samples are late: a batch takes {bound * 1e3:.2f} ms at least")
    measure()


if __name__ == "__main__":
    main()
