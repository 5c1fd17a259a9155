"""A loader with a seed, of either front, goes on exactly where a state was taken: order and randomness."""

import copy
import json
import pickle
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import forebay
from forebay.errors import ConfigError, StateError, StateWarning
from support import Front, Gate, front_named

COUNT = 23
SEED = 7


class Noisy:
    """Samples with their index and with what they drew from every stream."""

    def __init__(self, length: int = COUNT) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        return np.array([index, random.random(), np.random.rand(), forebay.sample_rng().random()])


class Failing(Noisy):
    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        if index in (5, 6):
            raise ValueError("no such sample")
        return super().__getitem__(index)


def loader_of(front: Front, dataset: Any = None, **options: Any) -> Any:
    options = {"batch_size": 4, "shuffle": True, "seed": SEED, **options}
    return front.DataLoader(Noisy() if dataset is None else dataset, **options)


def samples(batches: Any) -> list[Any]:
    return [row for batch in batches for row in batch.tolist()]


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(state))
    return found


def after(front: Front, batches: int, epochs: int = 0, **options: Any) -> tuple[dict[str, Any], list[Any]]:
    """A state, and the samples that the loader goes on with."""
    loader = loader_of(front, **options)
    for _ in range(epochs):
        list(loader)
    epoch = iter(loader)
    list(islice(epoch, batches))
    return through_json(loader.state_dict()), samples(epoch)


OTHERS: list[dict[str, Any]] = [
    {"num_workers": 0},
    {"num_workers": 2, "persistent_workers": True},
    {"batch_size": 7},
    {"batch_size": 3, "num_workers": 3},
    {"batch_size": 5, "num_workers": 1, "multiprocessing_context": "spawn"},
]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_any_other_loader_of_the_seed_goes_on_with_the_same_samples(front: Front, other: dict[str, Any]) -> None:
    for batches, epochs, workers in ((0, 0, 0), (2, 1, 2), (5, 0, 0)):
        state, rest = after(front, batches, epochs, num_workers=workers)
        again = loader_of(front, **other)
        again.load_state_dict(state)
        assert samples(again) == rest
        later = loader_of(front)
        later.set_epoch(epochs + 1)
        assert samples(again) == samples(later), "and the next epoch is whole"


@pytest.mark.parametrize("workers", [0, 2])
def test_between_all_calls_of_next_a_state_has_what_was_delivered(front: Front, workers: int) -> None:
    """While workers are ahead, and while all batches are kept."""
    loader = loader_of(front, num_workers=workers)
    whole, kept, states = samples(loader_of(front)), [], [loader.state_dict()]
    for batch in loader:
        kept.append(batch)
        states.append(loader.state_dict())
    states.append(loader.state_dict())
    for number, state in enumerate(states):
        again = loader_of(front, batch_size=6)
        again.load_state_dict(through_json(state))
        delivered = samples(kept[:number])
        if number <= len(kept):
            assert delivered + samples(again) == whole
        else:
            assert len(samples(again)) == COUNT, "after the end: the next epoch"
    assert samples(kept) == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_in_a_batchs_place_is_delivered_like_a_batch(front: Front, workers: int) -> None:
    loader = loader_of(front, Failing(), shuffle=False, num_workers=workers)
    epoch = iter(loader)
    next(epoch)
    with pytest.raises(ValueError, match="no such sample"):
        next(epoch)
    again = loader_of(front, Failing(), shuffle=False)
    again.load_state_dict(through_json(loader.state_dict()))
    assert [row[0] for row in samples(again)] == list(range(8, COUNT))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_an_epoch_that_was_left_had_not_given_is_in_no_later_state(front: Front, workers: int) -> None:
    loader = loader_of(front, num_workers=workers, persistent_workers=workers > 0)
    for _ in islice(loader, 3):
        pass
    epoch = iter(loader)
    next(epoch)
    state = through_json(loader.state_dict())
    again = loader_of(front)
    again.load_state_dict(state)
    assert samples(again) == samples(epoch)
    whole = loader_of(front)
    whole.set_epoch(2)
    assert samples(again) == samples(whole)


def test_a_state_of_several_ranks_goes_on_on_any_number_of_them(front: Front) -> None:
    whole = sorted(samples(loader_of(front)))
    delivered = []
    for rank in range(3):
        loader = loader_of(front, rank=rank, world=3, batch_size=2)
        delivered += samples(islice(loader, 2))
        state = through_json(loader.state_dict())
    for rank in range(2):
        again = loader_of(front, rank=rank, world=2, num_workers=rank)
        again.load_state_dict(state)
        delivered += samples(again)
    assert sorted(delivered) == whole


def test_out_of_order_exactly_the_rest_comes(front: Front, gate: Gate) -> None:
    class Slow(Noisy):
        def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
            if index == 0:
                gate.wait()
            return super().__getitem__(index)

    loader = loader_of(front, Slow(), shuffle=False, num_workers=2, in_order=False)
    epoch = iter(loader)
    delivered = samples(islice(epoch, 3))
    assert 0 not in [row[0] for row in delivered]
    state = through_json(loader.state_dict())
    gate.open()
    again = loader_of(front, shuffle=False, batch_size=3, in_order=False, num_workers=2)
    again.load_state_dict(state)
    delivered += samples(islice(again, 2))
    once_more = loader_of(front, shuffle=False, batch_size=5)
    once_more.load_state_dict(through_json(again.state_dict()))
    assert sorted(delivered + samples(once_more)) == sorted(samples(loader_of(front, shuffle=False)))


def test_out_of_order_a_state_of_several_ranks_is_for_its_own(front: Front) -> None:
    loader = loader_of(front, rank=1, world=2, num_workers=1, in_order=False)
    next(iter(loader))
    state = through_json(loader.state_dict())
    other = loader_of(front, rank=0, world=2)
    other.load_state_dict(state)
    with pytest.raises(StateError, match=r"taken on rank 1 of 2 with in_order=False"):
        iter(other)
    same = loader_of(front, rank=1, world=2)
    same.load_state_dict(state)
    assert len(samples(same)) == 7


@pytest.mark.parametrize("workers", [0, 2])
def test_set_epoch_keeps_a_state_of_that_epoch_and_drops_any_other(front: Front, workers: int) -> None:
    state, rest = after(front, 2, epochs=1)
    loader = loader_of(front, num_workers=workers)
    loader.load_state_dict(state)
    loader.set_epoch(1)
    assert samples(loader) == rest
    loader.load_state_dict(state)
    with pytest.warns(StateWarning, match=r"a state of epoch 1 was loaded, and then set_epoch\(3\) called"):
        loader.set_epoch(3)
    whole = loader_of(front)
    whole.set_epoch(3)
    assert samples(loader) == samples(whole)


def test_lengths_are_of_whole_epochs_and_torchs_count_goes_on() -> None:
    front = front_named("torch")
    state, _ = after(front, 2)
    for workers in (0, 2):
        loader = loader_of(front, num_workers=workers, batch_size=5)
        loader.load_state_dict(state)
        epoch = iter(loader)
        assert (len(loader), len(epoch), epoch._num_yielded) == (5, 5, 2)
        next(epoch)
        assert epoch._num_yielded == 3
        assert loader.state_dict()["_num_yielded"] == 3


def test_a_state_outlives_a_set_epoch_that_is_refused(front: Front) -> None:
    loader = front.DataLoader(range(8), batch_size=2, seed=7)
    next(iter(loader))
    again = front.DataLoader(range(8), batch_size=2, seed=7)
    again.load_state_dict(loader.state_dict())
    with pytest.raises(ConfigError):
        again.set_epoch(-1)
    assert [batch.tolist() for batch in again] == [[2, 3], [4, 5], [6, 7]]


def test_a_loaded_state_is_told_until_its_epoch_begins_and_survives_copies(front: Front) -> None:
    state, rest = after(front, 2)
    loader = loader_of(front)
    loader.load_state_dict(state)
    assert loader.state_dict() == state
    loader.load_state_dict({})
    for copied in (copy.copy(loader), copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))):
        assert samples(copied) == rest
    assert samples(loader) == rest


KINDS: dict[str, dict[str, Any]] = {
    "seed": {"seed": 8},
    "dataset_length": {"dataset": Noisy(9)},
    "sampler": {"shuffle": False},
    "sampler's length": {"sampler": forebay.sampler.ShuffleSampler(9, seed=SEED), "shuffle": None},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_another_order_is_refused_but_not_if_that_is_wanted(front: Front, kind: str) -> None:
    state, _ = after(front, 2)
    other = loader_of(front, **copy.deepcopy(KINDS[kind]))
    with pytest.raises(StateError, match=rf"does not fit this loader: .*{kind} is .*, but .* in the state"):
        other.load_state_dict(state)
    whole = samples(loader_of(front, **copy.deepcopy(KINDS[kind])))
    assert samples(other) == whole, "nothing was loaded"
    other = loader_of(front, **copy.deepcopy(KINDS[kind]))
    other.load_state_dict(state, strict=False)
    assert samples(other) == whole[8:]


@pytest.mark.parametrize("strict", [False, True])
def test_with_and_without_a_seed_are_different_kinds(front: Front, strict: bool) -> None:
    state, _ = after(front, 2)
    with pytest.raises(StateError, match="seed is None, but 7 in the state"):
        loader_of(front, seed=None).load_state_dict(state, strict=strict)
    drawn = loader_of(front, seed=None)
    next(iter(drawn))
    with pytest.raises(StateError, match="seed is 7, but None in the state"):
        loader_of(front).load_state_dict(drawn.state_dict(), strict=strict)


def test_a_state_is_for_its_own_front() -> None:
    fronts = [front_named(name) for name in ("numpy", "torch")]
    for one, other in (fronts, fronts[::-1]):
        state, _ = after(one, 2)
        with pytest.raises(StateError, match=r"this state was taken by forebay(\.torch)?\.DataLoader, whose"):
            loader_of(other).load_state_dict(state)


class Bucketed:
    """Somebody else's batch sampler."""

    def __iter__(self) -> Iterator[list[int]]:
        order = random.sample(range(COUNT), COUNT)
        return iter([order[:7], order[7:9], order[9:10], order[10:20], order[20:]])

    def __len__(self) -> int:
        return 5


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_somebody_elses_sampler_go_on(front: Front, workers: int) -> None:
    own = {"shuffle": None, "batch_size": 1}
    state, rest = after(front, 2, epochs=1, batch_sampler=Bucketed(), **own)
    again = loader_of(front, batch_sampler=Bucketed(), num_workers=workers, **own)
    again.load_state_dict(state)
    assert len(rest) == 14
    assert samples(again) == rest
    with pytest.raises(StateError, match="counted in samples, but in batches in the state"):
        loader_of(front).load_state_dict(state, strict=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_single_samples_go_on_as_batches_and_the_reverse(front: Front, workers: int) -> None:
    whole = samples(loader_of(front))
    loader = loader_of(front, batch_size=None, num_workers=workers)
    epoch = iter(loader)
    few = [next(epoch).tolist() for _ in range(5)]
    again = loader_of(front)
    again.load_state_dict(through_json(loader.state_dict()))
    assert few + samples(again) == whole
    state, rest = after(front, 3)
    loader.load_state_dict(state)
    assert [sample.tolist() for sample in loader] == rest


class Stream(torch.utils.data.IterableDataset[Any]):
    """Each worker reads every so-manyth number."""

    def __iter__(self) -> Iterator[Any]:
        info = forebay.get_worker_info() or torch.utils.data.get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for number in range(first, COUNT, step):
            yield np.array([number, np.random.rand(), forebay.sample_rng().random()])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_stream_goes_on_with_its_randomness(front: Front, workers: int) -> None:
    options = {"dataset": Stream(), "shuffle": None, "num_workers": workers}
    state, rest = after(front, 3, **options)
    again = loader_of(front, **options)
    again.load_state_dict(state)
    with pytest.warns(StateWarning, match="3 batches are read and dropped"):
        assert samples(again) == rest


HUGE = 10**9


@pytest.mark.parametrize(
    "sampler",
    [
        forebay.sampler.SequentialSampler(range(HUGE)),
        forebay.sampler.ShuffleSampler(HUGE, seed=SEED),
        forebay.sampler.ShardSampler(forebay.sampler.ShuffleSampler(HUGE, seed=SEED), rank=1, world=64),
        forebay.sampler.BlockShuffleSampler(HUGE, 10**6, seed=SEED),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_a_state_is_under_a_kilobyte_and_resumes_at_once_at_any_length(front: Front, sampler: Any) -> None:
    sampler = copy.deepcopy(sampler)  # which epoch it is at is its own
    options = {"dataset": range(HUGE), "sampler": sampler, "shuffle": None, "collate_fn": list, "batch_size": 256}
    loader = loader_of(front, **options)
    next(iter(loader))
    state = through_json(loader.state_dict())
    assert len(json.dumps(state)) < 1024
    state.get("forebay", state)["samples"] = 9 * HUGE // 10
    again = loader_of(front, **options)
    again.load_state_dict(state)
    place = 9 * HUGE // 10
    if isinstance(sampler, forebay.sampler.ShardSampler):
        expected = sampler.sampler.order(0).at(np.array([place + 1]))
    elif isinstance(sampler, forebay.sampler.SeededSampler):
        expected = sampler.order(0).indices(place, place + 1)
    else:
        expected = [place]
    assert int(next(iter(again))[0]) == int(expected[0])


# -- Damaged states

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(-1, 30), max_size=3),
    st.lists(st.lists(st.integers(-1, 30), max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def paths_in(state: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from paths_in(value, (*path, key))


@pytest.mark.parametrize("seed", [SEED, None])
@pytest.mark.parametrize("kind", ["map", "stream"])
@pytest.mark.parametrize("name", ["numpy", "torch"])
@settings(max_examples=60)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::forebay.errors.StateWarning")
def test_a_changed_state_is_refused_or_goes_on_with_a_part_of_the_epoch(
    name: str, kind: str, seed: int | None, data: st.DataObject
) -> None:
    front = front_named(name)
    options: dict[str, Any] = {"seed": seed}
    options |= {"dataset": range(COUNT), "shuffle": True} if kind == "map" else {"dataset": Numbers(), "shuffle": None}
    loader = loader_of(front, **options)
    next(iter(loader))
    state = through_json(loader.state_dict())
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = data.draw(st.sampled_from(list(paths_in(state))))
        holder: Any = state
        for key in path:
            holder = holder[key]
        if data.draw(st.booleans()):
            del holder[last]
        else:
            holder[last] = data.draw(VALUES)
    again = loader_of(front, **options)
    try:
        again.load_state_dict(state)
        epoch = iter(again)
    except StateError:
        return
    found = samples(epoch)
    assert len(set(found)) == len(found)
    assert set(found) <= set(range(COUNT))


@pytest.mark.parametrize("seed", [SEED, None])
@pytest.mark.parametrize("place", ["samples", "batches"])
def test_a_place_that_no_epoch_has_is_damage(seed: int | None, place: str) -> None:
    batch_sampler = {"samples": None, "batches": [[0, 1], [2]]}[place]
    loader = forebay.DataLoader(range(3), batch_sampler=batch_sampler, seed=seed)
    next(iter(loader))
    state = loader.state_dict()
    state["samples" if "samples" in state else "batches"] = 2**63
    with pytest.raises(StateError, match="damaged"):
        loader.load_state_dict(state)


class Numbers(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(COUNT))
