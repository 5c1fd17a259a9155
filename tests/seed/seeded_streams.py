"""The streams that tests/golden/seeded_stream.json freezes: orders, and what samples draw from every generator."""

import random
from typing import Any

import numpy as np
import torch

import forebay

SEEDS = [(0, 0), (7, 0), (7, 1), (2**64 - 1, 2**63), (2**63 - 1, 2**64 - 1)]
"""Seeds and epochs."""
INDICES = [0, 1, 2, 1000, 2**31, 2**63 - 1, 2**64 - 1, -1, -(2**63), "a", "é", ("train", 3)]
"""Tuples are lists in JSON."""


def drawn() -> dict[str, list[Any]]:
    """The first two draws of every generator."""
    rng = forebay.sample_rng()
    return {
        "random": [random.random(), random.getrandbits(64)],
        "numpy": [np.random.random(), int(np.random.randint(2**62))],
        "torch": [torch.rand((), dtype=torch.float64).item(), int(torch.randint(2**62, ()))],
        "sample_rng": [rng.random(), int(rng.integers(2**62))],
    }


class Everything:
    """Any index has a sample."""

    def __init__(self, count: int = 12) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        return index, drawn()


def as_it_is(batch: Any) -> Any:
    return batch


def with_draws(batch: Any) -> Any:
    return batch, drawn()


def stream(loader_class: Any, seed: int, epoch: int, **options: Any) -> list[Any]:
    loader = loader_class(Everything(), seed=seed, batch_size=5, shuffle=True, collate_fn=with_draws, **options)
    loader.set_epoch(epoch)
    with loader:
        return [
            {"indices": [index for index, _ in batch], "samples": [draws for _, draws in batch], "collate_fn": draws}
            for batch, draws in loader
        ]


def samples(loader_class: Any, seed: int, epoch: int, **options: Any) -> list[Any]:
    loader = loader_class(Everything(), seed=seed, sampler=INDICES, batch_size=None, collate_fn=as_it_is, **options)
    loader.set_epoch(epoch)
    with loader:
        return [{"index": index, **draws} for index, draws in loader]


def golden(loader_class: Any, **options: Any) -> dict[str, Any]:
    """All of it, by a loader of either front."""
    return {
        "streams": [
            {"seed": seed, "epoch": epoch, "batches": stream(loader_class, seed, epoch, **options)}
            for seed, epoch in SEEDS
        ],
        "samples": [
            {"seed": seed, "epoch": epoch, "draws": samples(loader_class, seed, epoch, **options)}
            for seed, epoch in SEEDS
        ],
    }
