"""Streams that users rely on, frozen. A change of them belongs in the changelog, under "Streams that changed".

`python tests/golden/make_seeded_stream.py` (its first lines say how) freezes them anew.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seeded_streams import golden

import forebay
from forebay._engine import base_seed
from support import Front

FOLDER = Path(__file__).parent.parent / "golden"
SHARED: dict[str, Any] = json.loads((FOLDER / "stream.json").read_text())
"""What Rust froze: crates/forebay/tests/golden_streams.rs says how."""


def through_json(found: Any) -> Any:
    return json.loads(json.dumps(found))


@pytest.mark.parametrize("workers", [0, 1])
def test_orders_and_draws_are_the_frozen_ones(front: Front, workers: int) -> None:
    frozen = json.loads((FOLDER / "seeded_stream.json").read_text())
    assert through_json(golden(front.DataLoader, num_workers=workers)) == frozen


class Words:
    """Samples are their index and the first two words of their own generator."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return np.array([index, *forebay.sample_rng().bit_generator.random_raw(2)], np.uint64)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stream", SHARED["streams"], ids=lambda stream: f"{stream['seed']}-{stream['length']}")
def test_the_streams_are_those_of_the_crate(front: Front, stream: dict[str, Any], workers: int) -> None:
    options = {name: stream[name] for name in ("seed", "shuffle", "batch_size", "drop_last", "rank", "world", "uneven")}
    if not stream["length"]:
        options["shuffle"] = False  # as in PyTorch, there is nothing to shuffle
    with front.DataLoader(Words(stream["length"]), num_workers=workers, **options) as loader:
        loader.set_epoch(stream["epoch"])
        batches = [np.asarray(batch) for batch in loader]
    assert [batch[:, 0].tolist() for batch in batches] == stream["batches"]
    assert [batch[:, 1:].tolist() for batch in batches] == stream["words"]


def fnv(data: bytes) -> str:
    """FNV-1a of 64 bits, of Fowler, Noll and Vo."""
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x00000100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{found:016x}"


@pytest.mark.parametrize("frozen", SHARED["hashes"], ids=lambda frozen: f"{frozen['seed']}-{frozen['length']}")
def test_long_streams_have_the_hashes_of_the_crate(frozen: dict[str, Any]) -> None:
    dataset = Words(frozen["length"])
    loader = forebay.DataLoader(dataset, batch_size=4096, shuffle=True, num_workers=2, seed=frozen["seed"])
    with loader:
        loader.set_epoch(frozen["epoch"])
        assert fnv(b"".join(batch.astype("<u8").tobytes() for batch in loader)) == frozen["hash"]


@pytest.mark.parametrize("frozen", SHARED["workers"], ids=lambda frozen: f"{frozen['seed']}-{frozen['epoch']}")
def test_the_seeds_of_workers_are_those_of_the_crate(frozen: dict[str, Any]) -> None:
    first = base_seed(frozen["seed"], frozen["epoch"])
    assert [first + worker for worker in range(len(frozen["seeds"]))] == frozen["seeds"]
