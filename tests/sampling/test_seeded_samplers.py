"""Laws of all samplers with a seed: an order is a function of seed and epoch, and goes on from any place."""

import copy
import itertools
import json
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seeded_catalogue import ALL, PERMUTATIONS, SHUFFLED, golden, through_json

from forebay.errors import ConfigError, StateError
from forebay.sampler import (
    LengthGroupedSampler,
    SeededSampler,
    ShardSampler,
    ShuffleSampler,
    SubsetSampler,
    WeightedSampler,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "samplers.json"
LONG = 10_000  # several chunks

names = st.sampled_from(sorted(ALL))
lengths = st.integers(3, 90) | st.integers(4000, 9000)
seeds = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 2**64 - 2)


@given(name=st.sampled_from(sorted(PERMUTATIONS)), length=st.integers(0, 100) | lengths, seed=seeds, epoch=epochs)
def test_every_index_comes_exactly_once(name: str, length: int, seed: int, epoch: int) -> None:
    order = PERMUTATIONS[name](length, seed).order(epoch).indices()
    assert np.array_equal(np.sort(order), np.arange(length))


@given(name=names, length=lengths, seed=seeds, epoch=epochs, data=st.data())
def test_any_part_is_that_part_of_the_whole(name: str, length: int, seed: int, epoch: int, data: st.DataObject) -> None:
    order, alone = (ALL[name](length, seed).order(epoch) for _ in range(2))
    whole = order.indices()
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole)))))
    assert np.array_equal(alone.indices(start, stop), whole[start:stop])
    places = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20)), np.int64)
    assert np.array_equal(alone.at(places), whole[places])


@given(name=names, length=lengths, seed=seeds)
def test_a_pass_is_the_order_as_plain_ints(name: str, length: int, seed: int) -> None:
    sampler = ALL[name](length, seed)
    order = sampler.indices()
    drawn = list(sampler)
    assert drawn == order.tolist()
    assert len(drawn) == len(sampler)
    assert {type(index) for index in drawn} <= {int}
    assert order.dtype == np.int64


@given(name=names, length=lengths, seed=seeds, epoch=epochs)
def test_equal_seeds_and_epochs_have_equal_orders(name: str, length: int, seed: int, epoch: int) -> None:
    some, other = ALL[name](length, seed), ALL[name](length, seed)
    other.set_epoch(epoch)
    assert np.array_equal(some.order(epoch).indices(), other.indices())
    assert some.fingerprint() == other.fingerprint()


@given(name=st.sampled_from(sorted(SHUFFLED)), length=st.integers(90, 300), seed=seeds, epoch=epochs)
def test_other_epochs_and_seeds_have_other_orders(name: str, length: int, seed: int, epoch: int) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return SHUFFLED[name](length, seed).order(epoch).indices().tolist()  # type: ignore[no-any-return]

    assert len({tuple(order(s, e)) for s in (seed, (seed + 1) % 2**64) for e in (epoch, epoch + 1)}) == 4


@settings(max_examples=200)
@given(name=names, length=lengths, seed=seeds, epoch=st.integers(0, 2**64 - 3), cut=st.floats(0, 1))
def test_a_state_goes_on_exactly_where_it_was_taken(name: str, length: int, seed: int, epoch: int, cut: float) -> None:
    sampler, again = (ALL[name](length, seed) for _ in range(2))
    sampler.set_epoch(epoch)
    going = iter(sampler)
    list(islice(going, int(cut * (len(sampler) - 1))))
    again.load_state_dict(through_json(sampler.state_dict()))
    assert again.epoch == epoch
    assert again.state_dict() == sampler.state_dict()
    rest = list(going)
    assert list(again) == rest
    assert rest
    assert list(again) == list(sampler)


@pytest.mark.parametrize("name", ALL)
def test_a_state_is_small_wherever_it_is_taken(name: str) -> None:
    sampler = ALL[name](9000, 2**64 - 1)
    sampler.set_epoch(2**64 - 2)
    list(islice(sampler, 1000))
    assert len(json.dumps(sampler.state_dict())) < 300


def test_a_billion_indices_take_no_memory_and_any_place_is_at_hand() -> None:
    sampler = ShuffleSampler(10**9, seed=3)
    place = 10**9 - 5
    sampler.load_state_dict({**sampler.state_dict(), "position": place})
    assert list(sampler) == sampler.order(0).indices(place).tolist()


# -- Epochs and passes


def test_each_pass_is_the_next_epoch_unless_set_epoch_says_otherwise() -> None:
    sampler = ShuffleSampler(50, seed=1)
    orders = [sampler.order(epoch).indices().tolist() for epoch in range(4)]
    assert [list(sampler), list(sampler)] == orders[:2]
    sampler.set_epoch(0)
    assert sampler.epoch == 0
    assert [list(sampler), list(sampler)] == orders[:2]
    sampler.set_epoch(3)
    assert list(sampler) == orders[3]


def test_a_pass_begins_with_its_first_index_and_not_before() -> None:
    sampler = ShuffleSampler(50, seed=1)
    passes = [iter(sampler) for _ in range(3)]
    assert sampler.epoch == 0
    assert next(passes[2]) == sampler.order(0).indices()[0]
    assert sampler.epoch == 1


def test_a_pass_that_was_left_has_used_its_epoch() -> None:
    sampler = ShuffleSampler(50, seed=1)
    next(iter(sampler))
    assert list(sampler) == sampler.order(1).indices().tolist()


def test_passes_at_the_same_time_do_not_disturb_each_other() -> None:
    sampler = ShuffleSampler(LONG, seed=1)
    some, other = iter(sampler), iter(sampler)
    pairs = list(zip(some, other, strict=True))
    assert [pair[0] for pair in pairs] == sampler.order(0).indices().tolist()
    assert [pair[1] for pair in pairs] == sampler.order(1).indices().tolist()


def test_a_pass_reads_its_epoch_to_the_end_whatever_is_set_meanwhile() -> None:
    source = list(range(LONG))
    sampler = ShuffleSampler(source, seed=1)
    order = sampler.indices().tolist()
    going = iter(sampler)
    begun = list(islice(going, 7))
    sampler.set_epoch(30)
    source.append(LONG)
    sampler.load_state_dict(sampler.state_dict())
    assert [*begun, *going] == order
    assert sampler.epoch == 30


def test_a_state_is_about_the_latest_pass_or_about_the_one_that_was_announced() -> None:
    sampler = ShuffleSampler(50, seed=1)

    def stands() -> tuple[int, int]:
        state = sampler.state_dict()
        return state["epoch"], state["position"]

    assert stands() == (0, 0)
    some, other = iter(sampler), iter(sampler)
    list(islice(some, 3))
    assert stands() == (0, 3)
    list(islice(other, 5))
    assert stands() == (1, 5)
    sampler.set_epoch(9)
    assert stands() == (9, 0)
    next(some)
    assert stands() == (9, 0)


@pytest.mark.parametrize("name", ALL)
def test_a_state_of_an_epochs_end_goes_on_with_the_next_unless_the_old_one_is_named(name: str) -> None:
    sampler, again, named = (ALL[name](60, 1) for _ in range(3))
    sampler.set_epoch(4)
    list(sampler)
    state = through_json(sampler.state_dict())
    again.load_state_dict(state)
    named.load_state_dict(state)
    named.set_epoch(4)
    assert list(again) == again.order(5).indices().tolist()
    assert list(named) == []
    assert list(named) == list(sampler)


def test_naming_the_epoch_of_a_loaded_state_keeps_its_place_and_naming_another_does_not() -> None:
    sampler = ShuffleSampler(50, seed=1)
    sampler.set_epoch(4)
    list(islice(sampler, 20))
    state = sampler.state_dict()
    for epoch, start in {4: 20, 5: 0, 3: 0}.items():
        sampler.load_state_dict(state)
        sampler.set_epoch(epoch)
        assert list(sampler) == sampler.order(epoch).indices(start).tolist()


def test_lengths_follow_a_data_source_that_grows() -> None:
    source = [0]
    for sampler in (ShuffleSampler(source), ShardSampler(source, rank=0, world=1)):
        source[:] = [0]
        assert list(sampler) == [0]
        source.extend([1, 2])
        assert len(sampler) == 3
        assert sorted(sampler) == [0, 1, 2]


def test_the_place_of_a_state_counts_once() -> None:
    sampler = ShuffleSampler(50, seed=1)
    list(islice(sampler, 20))
    sampler.load_state_dict(sampler.state_dict())
    for start in (20, 0):
        sampler.set_epoch(0)
        assert list(sampler) == sampler.order(0).indices(start).tolist()


def test_an_order_that_was_asked_for_before_the_source_grew_is_not_the_one_after() -> None:
    source = [0]
    sampler = ShuffleSampler(source)
    before = sampler.order()
    source.extend(range(1, 30))
    assert sorted(sampler.indices().tolist()) == source
    assert len(before) == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda sampler: pickle.loads(pickle.dumps(sampler))])
@pytest.mark.parametrize("name", ALL)
def test_a_copy_stands_where_the_sampler_stood(name: str, copied: Any) -> None:
    sampler = ALL[name](60, 1)
    going = iter(sampler)
    list(islice(going, 5))
    again: SeededSampler = copied(sampler)
    state = sampler.state_dict()
    assert again.state_dict() == state
    next(going)
    assert again.state_dict() == state
    assert list(again) == sampler.order(1).indices().tolist()


# -- What is refused


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "1", None, True])
def test_a_seed_that_is_no_64_bit_number_is_refused(seed: Any) -> None:
    with pytest.raises(ConfigError, match="seed should be an integer from 0 to"):
        ShuffleSampler(5, seed=seed)
    assert ShuffleSampler(5, seed=np.uint64(2**64 - 1)).seed == 2**64 - 1


@pytest.mark.parametrize("epoch", [-1, 2**64, 0.5])
def test_an_epoch_that_is_no_64_bit_number_is_refused(epoch: Any) -> None:
    with pytest.raises(ConfigError, match="epoch should be an integer from 0 to"):
        ShuffleSampler(5).set_epoch(epoch)


def other_samplers() -> dict[str, tuple[SeededSampler, SeededSampler]]:
    lengths = list(range(20))
    return {
        "kind": (ShuffleSampler(20), WeightedSampler([1.0] * 20, 20)),
        "length": (ShuffleSampler(20), ShuffleSampler(21)),
        "seed": (ShuffleSampler(20, seed=1), ShuffleSampler(20, seed=2)),
        "subset": (SubsetSampler(range(20)), SubsetSampler(range(1, 21))),
        "shuffle": (SubsetSampler(range(20)), SubsetSampler(range(20), shuffle=False)),
        "weights": (WeightedSampler([1.0, 2.0], 20), WeightedSampler([1.0, 3.0], 20)),
        "batch_size": (LengthGroupedSampler(lengths, 2), LengthGroupedSampler(lengths, 3)),
        "lengths": (LengthGroupedSampler(lengths, 2), LengthGroupedSampler(lengths[::-1], 2)),
    }


@pytest.mark.parametrize("what", other_samplers())
def test_a_state_of_another_order_is_refused_with_what_differs(what: str) -> None:
    here, there = other_samplers()[what]
    with pytest.raises(StateError, match=f"does not fit this sampler: {what} is "):
        here.load_state_dict(through_json(there.state_dict()))
    assert here.state_dict()["position"] == 0


@pytest.mark.parametrize(
    "broken", [{"epoch": -1}, {"epoch": "0"}, {"position": None}, {"fingerprint": 3}, {"version": 2}]
)
def test_a_damaged_or_later_state_is_refused(broken: dict[str, Any]) -> None:
    sampler = ShuffleSampler(20)
    with pytest.raises(StateError):
        sampler.load_state_dict({**sampler.state_dict(), **broken})
    with pytest.raises(StateError, match="not the state of a sampler"):
        sampler.load_state_dict({"weight": 3})


def test_hashes_are_of_the_numbers_and_not_of_their_type() -> None:
    some = [SubsetSampler(np.arange(300_000, dtype=kind)) for kind in (np.int64, np.uint32, ">i4")]
    assert len({sampler.fingerprint()["subset"] for sampler in some}) == 1
    assert SubsetSampler(range(300_000)).fingerprint() == some[0].fingerprint()


# -- Bits


def test_the_orders_are_those_that_were_frozen() -> None:
    assert through_json(golden()) == json.loads(GOLDEN.read_text())


def test_a_shuffle_is_the_order_of_a_loader_with_that_seed() -> None:
    engine = pytest.importorskip("forebay._engine")
    order = engine.Shuffle(50, 7, 3)
    assert ShuffleSampler(50, seed=7).order(3).indices().tolist() == [order.at(place) for place in range(50)]


def test_places_of_an_order_are_as_likely_for_every_index() -> None:
    counts = np.zeros((12, 12))
    for seed, epoch in itertools.product(range(60), range(40)):
        counts[np.arange(12), ShuffleSampler(12, seed=seed).order(epoch).indices()] += 1
    expected = 60 * 40 / 12
    statistic = ((counts - expected) ** 2 / expected).sum()
    degrees = 11 * 11
    assert abs(statistic - degrees) < 4 * np.sqrt(2 * degrees)
