"""Datasets whose samples draw random numbers, and what the tests of `seed=` make of the batches.

Does not name torch at its top, so that spawned workers of the NumPy front stay cheap; a worker draws from torch only if
the program has imported it.
"""

import hashlib
import random
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

import forebay

FEATURES = 5
"""Numbers of a sample: its index, and a draw from each generator."""


def drawn(index: float) -> np.ndarray[Any, Any]:
    """An index and a draw from each generator; torch's is 0 where the program has not imported it."""
    torch: Any = sys.modules.get("torch")
    from_torch = 0.0 if torch is None else torch.rand((), dtype=torch.float64).item()
    return np.array([index, random.random(), np.random.random(), from_torch, forebay.sample_rng().random()])


class Drawing:
    """Samples of different appetite: each third draws much more than the others before and after its own numbers."""

    def __init__(self, count: int = 23) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        if index % 3 == 0:
            random.gauss(0, 1)
            np.random.standard_normal(700)
            forebay.sample_rng().random(9)
        sample = drawn(index)
        np.random.standard_normal(1 + index % 2)
        return sample


def samples(batches: Iterable[Any]) -> np.ndarray[Any, Any]:
    """The samples of all batches, in order, whatever cut them."""
    rows = [np.asarray(batch, np.float64).reshape(-1, FEATURES) for batch in batches]
    return np.concatenate([np.empty((0, FEATURES)), *rows])


def digest(batches: Iterable[Any]) -> str:
    """A hash of all samples' bytes, in order."""
    return hashlib.sha256(samples(batches).tobytes()).hexdigest()
