"""Samplers and subsets: which indices, in which order, how often, and what is refused."""

from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.dataset import Subset
from forebay.sampler import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

lengths = st.integers(1, 200)
seeds = st.integers(0, 2**32)
SEVERAL_CHUNKS = 10_000  # longer than one chunk of conversion


@pytest.fixture
def restored_stream() -> Iterator[None]:
    """Leaves NumPy's global stream as the test found it."""
    state = np.random.get_state()
    yield
    np.random.set_state(state)


def test_the_base_sampler_leaves_iteration_and_length_to_others() -> None:
    with pytest.raises(NotImplementedError):
        iter(Sampler[int]())
    assert not hasattr(Sampler, "__len__")


@given(length=st.integers(0, 200))
def test_a_sequential_sampler_yields_rising_indices(length: int) -> None:
    sampler = SequentialSampler(range(length))
    assert list(sampler) == list(range(length))
    assert len(sampler) == length


def test_samplers_follow_a_data_source_that_grows() -> None:
    source = [0]
    samplers = SequentialSampler(source), RandomSampler(source), DistributedSampler(source, 1, 0)
    source.extend([1, 2])
    assert [sorted(sampler) for sampler in samplers] == [[0, 1, 2]] * 3
    assert [len(sampler) for sampler in samplers] == [3] * 3


@given(length=lengths, seed=seeds)
def test_a_random_sampler_yields_each_index_once(length: int, seed: int) -> None:
    assert sorted(RandomSampler(range(length), generator=seed)) == list(range(length))


@given(length=lengths, seed=seeds, replacement=st.booleans())
def test_a_seeded_random_sampler_repeats_its_order(length: int, seed: int, replacement: bool) -> None:
    def order() -> list[int]:
        return list(RandomSampler(range(length), replacement, generator=seed))

    assert order() == order()


def test_the_order_of_a_seed_is_fixed() -> None:
    assert list(RandomSampler(range(8), generator=0)) == [2, 4, 3, 6, 5, 0, 1, 7]
    assert list(RandomSampler(range(8), replacement=True, generator=0)) == [6, 5, 4, 2, 2, 0, 0, 0]
    assert list(WeightedRandomSampler([1, 2, 3], 6, generator=0)) == [2, 1, 0, 0, 2, 2]
    assert list(DistributedSampler(range(8), 2, 0, seed=1)) == [5, 1, 2, 3]


def test_a_seeded_random_sampler_changes_its_order_from_pass_to_pass() -> None:
    sampler = RandomSampler(range(50), generator=1)
    assert list(sampler) != list(sampler)


def test_two_samplers_of_one_generator_share_its_stream() -> None:
    generator = np.random.default_rng(3)
    shared = [list(RandomSampler(range(50), generator=generator)) for _ in range(2)]
    alone = RandomSampler(range(50), generator=3)
    assert shared == [list(alone), list(alone)]


@pytest.mark.usefixtures("restored_stream")
@pytest.mark.parametrize(
    "sampler",
    [
        RandomSampler(range(50)),
        RandomSampler(range(50), replacement=True),
        SubsetRandomSampler(range(50)),
        WeightedRandomSampler(np.ones(50), 50),
    ],
)
def test_without_a_generator_numpys_global_seed_decides_the_order(sampler: Sampler[int]) -> None:
    def order() -> list[int]:
        np.random.seed(11)
        return list(sampler)

    first = order()
    assert order() == first
    assert list(sampler) != first


@pytest.mark.usefixtures("restored_stream")
def test_nothing_is_drawn_before_the_first_index_is_asked_for() -> None:
    np.random.seed(0)
    before = np.random.get_state()[2]
    passes = [
        iter(RandomSampler(range(9))),
        iter(SubsetRandomSampler([1])),
        iter(WeightedRandomSampler([1], 1)),
    ]
    assert np.random.get_state()[2] == before
    for indices in passes:
        next(indices)
    assert np.random.get_state()[2] != before


@given(length=lengths, num_samples=st.integers(1, 700), seed=seeds)
def test_more_samples_than_indices_are_several_permutations(length: int, num_samples: int, seed: int) -> None:
    sampler = RandomSampler(range(length), num_samples=num_samples, generator=seed)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == num_samples
    rounds, rest = divmod(num_samples, length)
    counts = Counter(drawn)
    assert set(counts.values()) <= {rounds, rounds + 1}
    assert sum(count == rounds + 1 for count in counts.values()) == rest


@given(length=lengths, num_samples=st.integers(1, 700), seed=seeds)
def test_with_replacement_all_indices_lie_in_range(length: int, num_samples: int, seed: int) -> None:
    drawn = list(RandomSampler(range(length), True, num_samples, seed))
    assert len(drawn) == num_samples
    assert set(drawn) <= set(range(length))


@pytest.mark.parametrize(
    "sampler",
    [
        SequentialSampler(range(SEVERAL_CHUNKS)),
        RandomSampler(range(SEVERAL_CHUNKS)),
        RandomSampler(range(SEVERAL_CHUNKS), replacement=True),
        WeightedRandomSampler(np.ones(3), SEVERAL_CHUNKS),
        DistributedSampler(range(SEVERAL_CHUNKS), 1, 0),
    ],
)
def test_indices_are_plain_ints_however_many(sampler: Sampler[int]) -> None:
    drawn = list(sampler)
    assert len(drawn) == SEVERAL_CHUNKS
    assert {type(index) for index in drawn} == {int}


def test_a_source_that_became_empty_is_refused_in_words() -> None:
    source = [1]
    sampler = RandomSampler(source, num_samples=3)
    source.clear()
    with pytest.raises(ValueError, match="num_samples=3 from an empty data source"):
        list(sampler)
    assert list(RandomSampler([1], num_samples=None)) == [0]


@given(indices=st.lists(st.text(max_size=2)), seed=seeds)
def test_a_subset_sampler_yields_the_given_objects_once_each(indices: list[str], seed: int) -> None:
    sampler = SubsetRandomSampler(indices, seed)
    assert sorted(sampler) == sorted(indices)
    assert len(sampler) == len(indices)


@given(weights=st.lists(st.sampled_from([0.0, 1e-300, 0.5, 3.0, 1e308]), min_size=1).filter(any), seed=seeds)
def test_a_weight_of_zero_is_never_drawn(weights: list[float], seed: int) -> None:
    drawn = list(WeightedRandomSampler(weights, 50, generator=seed))
    assert len(drawn) == 50
    assert all(weights[index] > 0 for index in drawn)


@given(weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=30), seed=seeds)
def test_without_replacement_no_weighted_index_repeats(weights: list[float], seed: int) -> None:
    sampler = WeightedRandomSampler(weights, len(weights), replacement=False, generator=seed)
    assert sorted(sampler) == list(range(len(weights)))


def test_weighted_frequencies_follow_the_weights() -> None:
    counts = Counter(WeightedRandomSampler([1, 0, 3], 40_000, generator=0))
    assert counts[0] / 40_000 == pytest.approx(0.25, abs=0.02)
    assert counts[2] / 40_000 == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    ("weights", "fragment"),
    [
        ([-1.0, 2.0], "element < 0"),
        ([float("nan"), 1.0], "`nan`"),
        ([float("inf"), 1.0], "`inf`"),
        ([0.0, 0.0], "sum of probabilities <= 0"),
        ([], "sum of probabilities <= 0"),
    ],
)
def test_weights_that_are_no_distribution_are_refused_when_drawn(weights: list[float], fragment: str) -> None:
    with pytest.raises(RuntimeError, match=fragment):
        list(WeightedRandomSampler(weights, 1))


def test_too_few_positive_weights_are_refused_without_replacement() -> None:
    sampler = WeightedRandomSampler([1.0, 0.0, 2.0], 3, replacement=False)
    with pytest.raises(RuntimeError, match="num_samples=3, but only 2 of 3 weights are positive"):
        list(sampler)


@given(length=st.integers(0, 100), batch_size=st.integers(1, 120), drop_last=st.booleans())
def test_a_batch_sampler_cuts_its_sampler_into_lists(length: int, batch_size: int, drop_last: bool) -> None:
    sampler = BatchSampler(range(length), batch_size, drop_last)
    batches = list(sampler)
    kept = length - length % batch_size if drop_last else length
    assert [index for batch in batches for index in batch] == list(range(kept))
    assert all(type(batch) is list for batch in batches)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert len(sampler) == len(batches)


def test_a_batch_sampler_draws_no_further_than_the_batch_asked_for() -> None:
    seen: list[int] = []

    def indices() -> Iterator[int]:
        for index in range(10):
            seen.append(index)
            yield index

    for drop_last in (False, True):
        seen.clear()
        next(iter(BatchSampler(indices(), 3, drop_last)))
        assert seen == [0, 1, 2]


def test_a_batch_sampler_has_the_length_its_sampler_has() -> None:
    with pytest.raises(TypeError, match="has no len"):
        len(BatchSampler(iter([1]), 2, False))


shares = given(length=st.integers(0, 60), replicas=st.integers(1, 8), shuffle=st.booleans())


@shares
def test_replicas_together_read_everything_and_equally_much(length: int, replicas: int, shuffle: bool) -> None:
    samplers = [DistributedSampler(range(length), replicas, rank, shuffle) for rank in range(replicas)]
    drawn = [list(sampler) for sampler in samplers]
    assert {len(share) for share in drawn} == {len(samplers[0])} == {samplers[0].num_samples}
    counts = Counter(index for share in drawn for index in share)
    assert set(counts) == set(range(length))
    assert counts.total() == samplers[0].total_size < length + replicas


@shares
def test_with_drop_last_replicas_share_nothing(length: int, replicas: int, shuffle: bool) -> None:
    samplers = [DistributedSampler(range(length), replicas, rank, shuffle, drop_last=True) for rank in range(replicas)]
    drawn = [index for sampler in samplers for index in sampler]
    assert len(drawn) == len(set(drawn)) == length // replicas * replicas


@pytest.fixture(scope="module")
def torch_distributed() -> ModuleType:
    return pytest.importorskip("torch.utils.data.distributed")


@pytest.mark.parametrize("drop_last", [False, True])
@given(length=st.integers(0, 30), replicas=st.integers(1, 40), data=st.data())
def test_unshuffled_shares_equal_torchs(
    torch_distributed: ModuleType, drop_last: bool, length: int, replicas: int, data: st.DataObject
) -> None:
    arguments = (range(length), replicas, data.draw(st.integers(0, replicas - 1)), False, 0, drop_last)
    ours, theirs = DistributedSampler(*arguments), torch_distributed.DistributedSampler(*arguments)
    assert list(ours) == list(theirs)
    assert (len(ours), ours.total_size) == (len(theirs), theirs.total_size)


@given(seed=st.integers(-5, 2**40), epoch=st.integers(-1, 1000))
def test_an_epoch_has_an_order_of_its_own(seed: int, epoch: int) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = DistributedSampler(range(40), 1, 0, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(seed, epoch) == order(seed, epoch)
    assert order(seed, epoch) != order(seed, epoch + 1)
    assert order(seed, epoch) != order(seed + 1, epoch - 1)


@pytest.mark.parametrize("numbers", [{}, {"rank": 0}, {"num_replicas": 2}])
def test_a_distributed_sampler_asks_for_both_numbers(numbers: dict[str, int]) -> None:
    with pytest.raises(TypeError, match=r"num_replicas=dist\.get_world_size\(\), rank=dist\.get_rank\(\)"):
        DistributedSampler([1], **numbers)


# Each call is made with our module and with torch's.
refused: list[Callable[[Any], object]] = [
    lambda module: module.RandomSampler([]),
    lambda module: module.RandomSampler([1], num_samples=0),
    lambda module: module.RandomSampler([1], num_samples=-1),
    lambda module: module.RandomSampler([1], num_samples=1.5),
    lambda module: module.RandomSampler([1], replacement=1),
    lambda module: module.RandomSampler([], replacement=None),
    lambda module: module.WeightedRandomSampler([1], 0),
    lambda module: module.WeightedRandomSampler([1], True),
    lambda module: module.WeightedRandomSampler([1], 1, replacement=0),
    lambda module: module.WeightedRandomSampler([[1.0, 2.0]], 1),
    lambda module: module.WeightedRandomSampler(1.0, 1),
    lambda module: module.BatchSampler([1], 0, False),
    lambda module: module.BatchSampler([1], True, False),
    lambda module: module.BatchSampler([1], 2.0, False),
    lambda module: module.BatchSampler([1], 2, 1),
    lambda module: module.BatchSampler([1], None, None),
    lambda module: module.distributed.DistributedSampler([1], 2, 2),
    lambda module: module.distributed.DistributedSampler([1], 2, -1),
]


class Ours:
    """Our samplers, under the names they have in torch.utils.data."""

    RandomSampler = RandomSampler
    WeightedRandomSampler = WeightedRandomSampler
    BatchSampler = BatchSampler

    class distributed:  # noqa: N801  (a module in torch)
        DistributedSampler = DistributedSampler


@pytest.mark.parametrize("call", refused)
def test_bad_arguments_are_refused_in_torchs_words(call: Callable[[Any], object]) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    pytest.importorskip("torch.utils.data.distributed")
    with pytest.raises((ValueError, TypeError)) as theirs:
        call(torch_data)
    with pytest.raises(theirs.type) as ours:
        call(Ours)
    assert str(ours.value) == str(theirs.value)


def test_a_true_number_of_samples_passes_as_in_torch() -> None:
    assert len(RandomSampler([1], num_samples=True)) == 1


class Bulk:
    """A dataset that counts how it is read."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __getitem__(self, index: int) -> int:
        return index * 10

    def __getitems__(self, indices: list[int]) -> list[int]:
        self.calls.append(indices)
        return [self[index] for index in indices]


@given(chosen=st.lists(st.integers(0, 99), min_size=1), data=st.data())
def test_a_subset_reads_the_chosen_indices_one_by_one_or_in_bulk(chosen: list[int], data: st.DataObject) -> None:
    positions = data.draw(st.lists(st.integers(0, len(chosen) - 1)))
    expected = [chosen[position] * 10 for position in positions]
    for whole in (range(0, 1000, 10), Bulk()):
        subset = Subset[int](whole, chosen)
        assert len(subset) == len(chosen)
        assert [subset[position] for position in positions] == expected
        assert subset.__getitems__(positions) == expected


def test_a_subset_of_a_subset_asks_the_whole_once_per_batch() -> None:
    whole = Bulk()
    subset = Subset[int](Subset[int](whole, [5, 6, 7]), [2, 0])
    assert subset.__getitems__([0, 1]) == [70, 50]
    assert whole.calls == [[7, 5]]


def test_a_list_of_positions_reaches_the_whole_dataset_as_one_list() -> None:
    assert Subset[Any](np.arange(0, 100, 10), [5, 6, 7])[[2, 0]].tolist() == [70, 50]


def test_a_subset_that_overrides_only_single_reads_is_refused() -> None:
    class Half(Subset[int]):
        def __getitem__(self, index: int) -> int:
            return 2 * super().__getitem__(index)

    class Whole(Half):
        def __getitems__(self, indices: Any) -> list[int]:
            return [self[index] for index in indices]

    with pytest.raises(NotImplementedError, match="Half overrides __getitem__ but not __getitems__"):
        Half([1], [0])
    assert Whole([4], [0]).__getitems__([0]) == [8]
