"""What each sampler with a seed promises beyond what all do: weights, shares, lengths, blocks."""

import json
import math
from collections import Counter
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seeded_catalogue import ALL, lengths_of, through_json, weights_of

from forebay.errors import ConfigError
from forebay.sampler import (
    BlockShuffleSampler,
    LengthGroupedSampler,
    RandomSampler,
    SeededSampler,
    ShardSampler,
    ShuffleSampler,
    SubsetSampler,
    WeightedSampler,
)

seeds = st.integers(0, 2**64 - 1)
lengths = st.integers(0, 200)


def surprise(found: Any, expected: Any) -> float:
    """How far counts are from what is expected, by the chi-square test, in standard deviations."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    degrees = len(found) - 1
    statistic = ((found - expected) ** 2 / expected).sum()
    return abs(float(statistic) - degrees) / math.sqrt(2 * degrees)


# -- Subset


@given(subset=st.lists(st.integers(-(2**63), 2**63 - 1)), seed=seeds)
def test_a_subset_comes_once_each_shuffled_or_as_it_is_given(subset: list[int], seed: int) -> None:
    assert sorted(SubsetSampler(subset, seed=seed)) == sorted(subset)
    assert list(SubsetSampler(subset, shuffle=False)) == subset


def test_an_array_is_not_copied() -> None:
    subset, weights, lengths = np.arange(9), np.ones(9), np.arange(9)
    assert SubsetSampler(subset).subset is subset
    assert np.shares_memory(WeightedSampler(weights, 4).weights, weights)
    assert LengthGroupedSampler(lengths, 2).lengths is lengths


@pytest.mark.parametrize("subset", [[1.5], [[1, 2]], ["a"], 3, [True]])
def test_what_is_no_sequence_of_integers_is_no_subset(subset: Any) -> None:
    with pytest.raises(ConfigError, match="subset should be a sequence of integers"):
        SubsetSampler(subset)


# -- Weighted


@pytest.mark.parametrize("size", [4, 300])
def test_draws_with_replacement_follow_the_weights(size: int) -> None:
    weights = weights_of(size) ** 2
    drawn = WeightedSampler(weights, 400_000, seed=11).indices()
    expected = weights / weights.sum() * len(drawn)
    assert surprise(np.bincount(drawn, minlength=size), expected) < 4


def test_draws_of_different_places_and_epochs_have_nothing_to_do_with_each_other() -> None:
    sampler = WeightedSampler([1.0, 2.0, 3.0], 90_000, seed=5)
    some, next_epoch = sampler.order(0).indices(), sampler.order(1).indices()
    shares = np.outer([1, 2, 3], [1, 2, 3]).ravel() / 36
    for first, second in ((some[:-1:2], some[1::2]), (some, next_epoch)):
        assert surprise(np.bincount(first * 3 + second, minlength=9), shares * len(first)) < 4


def test_without_replacement_the_first_is_drawn_by_weight_and_the_second_by_weight_of_the_rest() -> None:
    weights = np.array([1.0, 2.0, 4.0])
    sampler = WeightedSampler(weights, 2, replacement=False, seed=3)
    rounds = 30_000
    pairs = Counter(tuple(sampler.order(epoch).indices().tolist()) for epoch in range(rounds))
    expected = {
        (first, second): weights[first] / 7 * weights[second] / (7 - weights[first]) * rounds
        for first in range(3)
        for second in range(3)
        if first != second
    }
    assert surprise([pairs[pair] for pair in expected], list(expected.values())) < 4


@given(weights=st.lists(st.sampled_from([0.0, 1e-300, 0.5, 3.0, 1e308]), min_size=1).filter(any), seed=seeds)
def test_weight_zero_is_never_drawn_and_without_replacement_nothing_twice(weights: list[float], seed: int) -> None:
    usable = sum(weight > 0 for weight in weights)
    assert all(weights[index] > 0 for index in WeightedSampler(weights, 50, seed=seed))
    each = list(WeightedSampler(weights, usable, replacement=False, seed=seed))
    assert sorted(each) == [index for index, weight in enumerate(weights) if weight > 0]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (([-1.0, 2.0], 1), "element < 0"),
        (([math.nan], 1), "`nan`"),
        (([0.0], 1), "sum of probabilities <= 0"),
        (([], 1), "sum of probabilities <= 0"),
    ],
)
def test_weights_are_refused_as_torchs_are_but_at_once(arguments: Any, fragment: str) -> None:
    with pytest.raises(RuntimeError, match=fragment):
        WeightedSampler(*arguments)


def test_what_cannot_be_drawn_is_refused_at_once() -> None:
    with pytest.raises(RuntimeError, match="num_samples=3, but only 2 of 3 weights are positive"):
        WeightedSampler([1, 0, 2], 3, replacement=False)
    with pytest.raises(ValueError, match="num_samples should be a positive integer"):
        WeightedSampler([1, 0, 2], 0)
    with pytest.raises(ValueError, match="1d sequence"):
        WeightedSampler(1.0, 3)  # type: ignore[arg-type]


# -- Shards


@given(name=st.sampled_from(["shuffle", "by block", "weighted", "subset"]), length=st.integers(3, 60), data=st.data())
def test_ranks_together_have_the_whole_order_as_uneven_says(name: str, length: int, data: st.DataObject) -> None:
    world = data.draw(st.integers(1, 9))
    uneven: Any = data.draw(st.sampled_from(["keep", "pad", "drop"]))
    ranks = [ShardSampler(ALL[name](length, 3), rank=rank, world=world, uneven=uneven) for rank in range(world)]
    order = ALL[name](length, 3).indices().tolist()
    dealt = [list(rank) for rank in ranks]
    assert [len(rank) for rank in ranks] == [len(share) for share in dealt]
    turns = [share[turn] for turn in range(len(dealt[0])) for share in dealt if turn < len(share)]
    if uneven == "keep":
        assert turns == order
    elif uneven == "drop":
        assert turns == order[: length // world * world]
    else:
        assert turns == [*order, *(order * world)][: -(-length // world) * world]


@given(
    worlds=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    length=st.integers(0, 60),
    samples=st.integers(0, 7),
    uneven=st.sampled_from(["keep", "pad", "drop"]),
)
def test_a_state_goes_on_with_another_number_of_ranks(
    worlds: list[int], length: int, samples: int, uneven: Any
) -> None:
    order = ShuffleSampler(length, seed=3).indices().tolist()
    had: list[int] = []
    state = ShuffleSampler(length, seed=3).state_dict()
    for world in worlds:
        ranks = [
            ShardSampler(ShuffleSampler(length, seed=3), rank=rank, world=world, uneven=uneven) for rank in range(world)
        ]
        for rank in ranks:
            rank.load_state_dict(through_json(state))
            rank.set_epoch(0)
        shares = [list(islice(rank, samples)) for rank in ranks]
        had += [share[turn] for turn in range(samples) for share in shares if turn < len(share)]
        states = {json.dumps(rank.state_dict()) for rank in ranks if rank.state_dict()["position"] < length}
        assert len(states) <= 1
        state = ranks[0].state_dict()
        assert state["position"] >= min(len(had), length) - world
    kept = had[: min(len(had), length)] if uneven != "drop" else had
    assert kept == order[: len(kept)]


def test_a_rank_with_nothing_left_waits_for_those_with_one_more() -> None:
    order = ShuffleSampler(5, seed=3).order(0).indices()
    ranks = [ShardSampler(ShuffleSampler(5, seed=3), rank=rank, world=2) for rank in range(2)]
    begun = [list(islice(rank, 2)) for rank in ranks]
    state = ranks[0].state_dict()
    assert state["position"] == 4
    for rank in ranks:
        rank.load_state_dict(state)
    assert [list(rank) for rank in ranks] == [[order[4]], []]
    assert [rank.epoch for rank in ranks] == [1, 1]
    assert begun == [[order[0], order[2]], [order[1], order[3]]]


def test_a_state_of_a_sampler_fits_a_shard_of_it_and_the_other_way() -> None:
    alone = ShuffleSampler(60, seed=3)
    list(islice(alone, 20))
    shard = ShardSampler(ShuffleSampler(60, seed=3), rank=1, world=4)
    shard.load_state_dict(alone.state_dict())
    assert list(islice(shard, 5)) == alone.order(0).indices(21, 41).tolist()[::4]
    alone.load_state_dict(shard.state_dict())
    assert list(alone) == alone.order(0).indices(40).tolist()


@pytest.mark.parametrize("other", [RandomSampler(range(3)), ShardSampler(3, rank=0, world=1)])
def test_a_sampler_without_a_seed_and_a_share_are_not_dealt_out(other: Any) -> None:
    with pytest.raises(ConfigError, match="deals out samplers with a seed"):
        ShardSampler(other, rank=0, world=1)


def test_torchs_samplers_are_not_taken_for_data() -> None:
    data = pytest.importorskip("torch.utils.data")
    with pytest.raises(ConfigError, match="type SequentialSampler"):
        ShardSampler(data.SequentialSampler(range(3)), rank=0, world=1)


def test_an_unknown_uneven_is_refused() -> None:
    with pytest.raises(ConfigError, match="uneven should be 'keep', 'pad' or 'drop', but got uneven='split'"):
        ShardSampler(3, rank=0, world=1, uneven="split")  # type: ignore[arg-type]


# -- By length


def padding(lengths: Any, order: Any, batch_size: int) -> float:
    """The part of the padded batches that is padding."""
    batches = [lengths[order[start : start + batch_size]] for start in range(0, len(order), batch_size)]
    return 1 - lengths.sum() / sum(batch.max() * len(batch) for batch in batches)


def test_batches_of_like_lengths_save_most_of_the_padding() -> None:
    lengths = np.random.default_rng(0).lognormal(5, 0.8, 20_000).astype(np.int64) + 1
    shuffled = padding(lengths, ShuffleSampler(len(lengths)).indices(), 32)
    grouped = padding(lengths, LengthGroupedSampler(lengths, 32).indices(), 32)
    assert shuffled > 0.6
    assert grouped < 0.15


@given(length=st.integers(4, 200), seed=seeds, batch_size=st.integers(1, 9), megabatch=st.integers(1, 6))
def test_the_first_batch_has_the_longest_sample(length: int, seed: int, batch_size: int, megabatch: int) -> None:
    lengths = lengths_of(length)
    sampler = LengthGroupedSampler(lengths, batch_size, seed=seed, megabatch=megabatch)
    first = sampler.indices(0, min(batch_size, length))
    if length >= batch_size:
        assert lengths.argmax() in first


@given(length=st.integers(1, 200), seed=seeds, batch_size=st.integers(1, 9), megabatch=st.integers(1, 6))
def test_in_a_megabatch_no_batch_reaches_into_another(length: int, seed: int, batch_size: int, megabatch: int) -> None:
    lengths = lengths_of(length)
    order = LengthGroupedSampler(lengths, batch_size, seed=seed, megabatch=megabatch).indices()
    whole = len(order) - len(order) % batch_size
    for start in range(0, whole, batch_size * megabatch):
        batches = order[start : min(start + batch_size * megabatch, whole)].reshape(-1, batch_size)
        spans = sorted((lengths[batch].min(), lengths[batch].max()) for batch in batches)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))


@pytest.mark.parametrize("lengths", [[[1, 2]], ["a"], 3])
def test_what_is_no_sequence_of_numbers_is_no_lengths(lengths: Any) -> None:
    with pytest.raises(ConfigError, match="lengths should be a sequence of numbers"):
        LengthGroupedSampler(lengths, 2)


# -- By block


@given(length=st.integers(1, 300), size=st.integers(1, 40), at_once=st.integers(1, 9), seed=seeds)
def test_few_blocks_are_open_at_any_place_and_each_is_opened_once(
    length: int, size: int, at_once: int, seed: int
) -> None:
    blocks = [index // size for index in BlockShuffleSampler(length, size, at_once, seed=seed)]
    first = {block: place for place, block in reversed(list(enumerate(blocks)))}
    last = {block: place for place, block in enumerate(blocks)}
    for place in range(length):
        assert sum(first[block] <= place <= last[block] for block in first) <= at_once


def test_blocks_and_their_samples_are_shuffled() -> None:
    sampler = BlockShuffleSampler(12_000, 100, 4, seed=1)
    order = sampler.indices()
    groups = [tuple(sorted({index // 100 for index in order[start : start + 400]})) for start in range(0, 12_000, 400)]
    assert groups != sorted(groups)
    steps = np.diff(order[:400])
    assert (np.abs(steps) == 1).mean() < 0.05
    assert [tuple(sorted(set(order[:400] // 100)))] != [tuple(sorted(set(sampler.order(1).indices(0, 400) // 100)))]


def test_sizes_of_blocks_add_up_to_the_length() -> None:
    with pytest.raises(
        ConfigError, match="block_size should add up to the length 7 of the data source, but adds up to 6"
    ):
        BlockShuffleSampler(7, [3, 3])
    with pytest.raises(ConfigError, match="sizes from 0 on, but got -1"):
        BlockShuffleSampler(7, [8, -1])
    for size in (0, 1.5, True):
        with pytest.raises(ValueError, match="block_size should be a positive integer"):
            BlockShuffleSampler(7, size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sampler",
    [BlockShuffleSampler(4000, 10, 4, seed=1), LengthGroupedSampler(np.zeros(4000), 1, seed=1, megabatch=40)],
)
def test_each_group_is_shuffled_in_its_own_way(sampler: SeededSampler) -> None:
    groups = sampler.indices().reshape(-1, 40)
    assert len({tuple(np.argsort(group)) for group in groups}) == len(groups)


# -- Lengths


@pytest.mark.parametrize("source", [-1, 1.5, None, True])
@pytest.mark.parametrize("kind", [ShuffleSampler, lambda source: BlockShuffleSampler(source, 2), ShardSampler])
def test_a_data_source_has_a_length_or_is_one(kind: Any, source: Any) -> None:
    with pytest.raises(ConfigError, match="data_source should have a length, or be one"):
        kind(source)


def test_samplers_of_nothing_give_nothing() -> None:
    empty: list[SeededSampler] = [
        *(ShuffleSampler(0), SubsetSampler([]), LengthGroupedSampler([], 3)),
        *(BlockShuffleSampler(0, 3), BlockShuffleSampler(0, []), ShardSampler(0, rank=0, world=2)),
    ]
    assert [list(sampler) for sampler in empty] == [[]] * len(empty)
