"""States of version 2 that are kept: of which loaders, and how they were taken.

PYTHONPATH=tests:tests/resume python -m kept_states    adds those of new kinds; what is kept already stays as it is
"""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import forebay
from support import Front, front_named

KEPT = Path(__file__).parent / "golden" / "states-v2.json"
COUNT = 23
BUCKETS = [[3, 4], [5, 6, 7], [1, 2, 0], [9], [8, 10]]


class Stream(torch.utils.data.IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(COUNT))


class Buckets:
    """Somebody else's batch sampler."""

    def __iter__(self) -> Iterator[list[int]]:
        return iter(BUCKETS)

    def __len__(self) -> int:
        return len(BUCKETS)


Options = Callable[[], dict[str, Any]]

KINDS: dict[str, Options] = {
    "in sequence": lambda: {"seed": 7, "batch_size": 4},
    "shuffle": lambda: {"seed": 7, "batch_size": 4, "shuffle": True},
    "one rank of two": lambda: {"seed": 7, "batch_size": 4, "shuffle": True, "rank": 1, "world": 2, "uneven": "pad"},
    "out of order": lambda: {"seed": 7, "batch_size": 2, "shuffle": True, "in_order": False},
    "one rank, out of order": lambda: {"seed": 7, "batch_size": 2, "rank": 1, "world": 2, "in_order": False},
    "batch sampler": lambda: {"seed": 7, "batch_sampler": Buckets()},
    "subset": lambda: {"seed": 7, "sampler": forebay.sampler.SubsetSampler(range(3, 20), seed=5)},
    "single samples": lambda: {"seed": 7, "batch_size": None, "shuffle": True},
    "stream": lambda: {"seed": 7, "batch_size": 4, "dataset": Stream()},
}
WITHOUT_A_SEED: dict[str, Options] = {
    "drawn, shuffle": lambda: {"batch_size": 4, "shuffle": True},
    "drawn, generator": lambda: {"batch_size": 4, "shuffle": True, "generator": 5},
    "drawn, out of order": lambda: {"batch_size": 2, "in_order": False, "shuffle": True},
    "drawn, stream": lambda: {"batch_size": 4, "dataset": Stream()},
}
"""Of the NumPy front; the torch front's are of version 1."""

CASES = [("numpy", name) for name in KINDS | WITHOUT_A_SEED] + [("torch", name) for name in KINDS]


def loader_of(front: Front, kind: str) -> Any:
    options = (KINDS | WITHOUT_A_SEED)[kind]()
    return front.DataLoader(options.pop("dataset", range(COUNT)), **options)


def taken(front: Front, kind: str) -> dict[str, Any]:
    """A state in the middle of the second epoch."""
    loader = loader_of(front, kind)
    list(loader)
    list(islice(loader, 2))
    if "out of order" in kind:
        running = loader._epoch if front.name == "numpy" else loader._bookmark
        running.cursor.passed(4)
    found: dict[str, Any] = json.loads(json.dumps(loader.state_dict()))
    return found


def rest(front: Front, kind: str, state: dict[str, Any]) -> list[Any]:
    loader = loader_of(front, kind)
    loader.load_state_dict(state)
    return [np.asarray(batch).tolist() for batch in loader]


def main() -> None:
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name, kind in CASES:
        if f"{name}, {kind}" not in kept:
            front = front_named(name)
            state = taken(front, kind)
            kept[f"{name}, {kind}"] = {"state": state, "rest": rest(front, kind, state)}
    KEPT.write_text("{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(kept[key])}" for key in kept) + "\n}\n")


if __name__ == "__main__":
    main()
