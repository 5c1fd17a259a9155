"""The streams that Rust and Python agree on; crates/forebay/tests/golden_streams.rs tells the file's format."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from forebay import _engine
from forebay._share import Share

GOLDEN: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parent / "golden" / "stream.json").read_text())


def words_of(seed: int, epoch: int, index: int) -> list[int]:
    key = np.array(_engine.sample_rng_key(seed, epoch, index), dtype=np.uint64)
    words: list[int] = np.random.Philox(key=key).random_raw(2).tolist()
    return words


def fnv1a(words: list[int]) -> str:
    value = 0xCBF29CE484222325
    for byte in np.array(words, dtype="<u8").tobytes():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def test_the_orders_and_the_samples_words_are_those_of_rust() -> None:
    for stream in GOLDEN["streams"]:
        seed, epoch, size = stream["seed"], stream["epoch"], stream["batch_size"]
        share = Share(stream["length"], stream["rank"], stream["world"], stream["uneven"])
        order = _engine.Shuffle(stream["length"], seed, epoch)
        indices = [order.at(place) if stream["shuffle"] else place for place in share.places().tolist()]
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        if stream["drop_last"]:
            batches = batches[: share.smallest // size]
        assert batches == stream["batches"], stream
        assert [[words_of(seed, epoch, index) for index in batch] for batch in batches] == stream["words"], stream


def test_whole_epochs_are_those_of_rust() -> None:
    for whole in GOLDEN["hashes"]:
        seed, epoch, length = whole["seed"], whole["epoch"], whole["length"]
        indices = np.empty(length, dtype=np.int64)
        _engine.Shuffle(length, seed, epoch).fill(0, indices)
        samples = [word for index in indices.tolist() for word in (index, *words_of(seed, epoch, index))]
        assert fnv1a(samples) == whole["hash"], whole


def test_workers_have_the_seeds_of_rusts_workers() -> None:
    for workers in GOLDEN["workers"]:
        base = _engine.base_seed(workers["seed"], workers["epoch"])
        assert [(base + worker) % 2**64 for worker in range(len(workers["seeds"]))] == workers["seeds"]
