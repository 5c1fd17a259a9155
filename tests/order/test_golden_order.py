"""Orders and randomness of a seed are frozen: the file that the Rust tests write and read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forebay._engine import Shuffle, TorchPermutation, base_seed, sample_rng_key, sample_seeds, sampler_seeds

GOLDEN: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent.parent / "golden" / "order.json").read_text()
)


@pytest.mark.parametrize("row", GOLDEN["shuffle"], ids=lambda row: f"{row['len']}-{row['seed']}-{row['epoch']}")
def test_the_order_of_an_epoch_is_what_it_has_always_been(row: dict[str, Any]) -> None:
    shuffle = Shuffle(row["len"], row["seed"], row["epoch"], row["part"])
    count = len(row["first"])
    indices = np.empty(count, dtype=np.int64)
    shuffle.fill(0, indices)
    assert indices.tolist() == row["first"]
    shuffle.fill(row["len"] - count, indices)
    assert indices.tolist() == row["last"]
    assert [shuffle.at(place) for place in range(count)] == row["first"]


@pytest.mark.parametrize("row", GOLDEN["sample"], ids=lambda row: f"{row['index']}-{row['seed']}-{row['epoch']}")
def test_the_randomness_of_a_sample_is_what_it_has_always_been(row: dict[str, Any]) -> None:
    key = row["seed"], row["epoch"], row["index"]
    assert list(sample_seeds(*key)) == row["seeds"]
    assert list(sample_rng_key(*key)) == row["rng_key"]


@pytest.mark.parametrize("row", GOLDEN["sample"], ids=lambda row: f"{row['index']}-{row['seed']}-{row['epoch']}")
def test_the_private_generator_of_a_sample_is_numpys_philox(row: dict[str, Any]) -> None:
    key = np.array(row["rng_key"], dtype=np.uint64)
    assert np.random.Philox(key=key).random_raw(len(row["rng_words"])).tolist() == row["rng_words"]


@pytest.mark.parametrize("row", GOLDEN["epoch"], ids=lambda row: f"{row['seed']}-{row['epoch']}")
def test_the_seeds_of_an_epoch_are_what_they_have_always_been(row: dict[str, Any]) -> None:
    assert list(sampler_seeds(row["seed"], row["epoch"])) == row["seeds"]
    assert base_seed(row["seed"], row["epoch"]) == row["base_seed"]


@pytest.mark.parametrize("row", GOLDEN["torch_permutation"], ids=lambda row: f"{row['len']}-{row['seed']}")
def test_torchs_permutations_are_those_of_the_torch_that_is_installed(row: dict[str, Any]) -> None:
    state = torch.Generator().manual_seed(row["seed"]).get_state()
    indices = np.empty(len(row["indices"]), dtype=np.int64)
    TorchPermutation(row["len"], state.numpy(), row["start"]).fill(indices)
    assert indices.tolist() == row["indices"]
    whole = torch.randperm(row["len"], generator=torch.Generator().manual_seed(row["seed"]))
    assert whole[row["start"] :][: len(indices)].tolist() == row["indices"]
