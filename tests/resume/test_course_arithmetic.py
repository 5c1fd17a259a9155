"""What was delivered before and after a state, by all ranks together, is the order: each sample once, nothing lost.

Without workers, on the arithmetic alone. Every state goes through JSON.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import forebay
from forebay._course import Course
from forebay._resume import Range
from forebay._share import Share, Uneven

SEED = 7


class Replayed(forebay.sampler.Sampler[int]):
    """Somebody else's: its order is drawn from a global stream, and can only be had from its beginning."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.length))
        random.shuffle(order)
        yield from order

    def __len__(self) -> int:
        return self.length


SAMPLERS: dict[str, Any] = {
    "in sequence": forebay.sampler.SequentialSampler,
    "shuffle": lambda data: forebay.sampler.ShuffleSampler(data, seed=SEED),
    "subset": lambda data: forebay.sampler.SubsetSampler(data, seed=SEED),
    "by length": lambda data: forebay.sampler.LengthGroupedSampler(data, 3, seed=SEED, megabatch=2),
    "blocks": lambda data: forebay.sampler.BlockShuffleSampler(len(data), 3, 2, seed=SEED),
    "replayed": lambda data: Replayed(len(data)),
}


@dataclass(frozen=True)
class Stage:
    """A job between two interruptions: each rank delivers `batches` batches, if it has so many."""

    world: int
    batch_size: int | None
    batches: int


stages = st.builds(Stage, st.integers(1, 5), st.one_of(st.none(), st.integers(1, 7)), st.integers(0, 5))
courses_of_a_run = st.lists(stages, min_size=1, max_size=4)


def course(
    kind: str, length: int, stage: Stage, rank: int, uneven: Uneven, told: dict[str, Any], **options: Any
) -> Course:
    own = SAMPLERS[kind](range(length)) if length or kind != "blocks" else Replayed(0)
    # A sampler beside rank and world is dealt on request.
    loader = forebay.DataLoader(
        range(length), stage.batch_size, sampler=own, seed=SEED, rank=rank, world=stage.world, uneven=uneven, **options
    )
    passed: list[Range] = [(first, last) for first, last in told["ahead"]]
    return Course(loader, loader._seeding, 3, start=told["samples"], passed=passed)


def deliver(of: Course, batches: int | None) -> list[int]:
    """The indices of the next batches."""
    given = list(islice(of.batches(), batches))
    for number in range(len(given)):
        of.cursor.passed(number)
    return flat(given)


def flat(batches: Sequence[Any]) -> list[int]:
    return [int(index) for batch in batches for index in (batch if hasattr(batch, "__len__") else [batch])]


def told_by(of: Course) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps(of.where()))
    return told


BEGIN: dict[str, Any] = {"samples": 0, "ahead": []}


def order_of(kind: str, length: int) -> list[int]:
    return deliver(course(kind, length, Stage(1, None, 0), 0, "keep", BEGIN), None)


@pytest.mark.parametrize("kind", SAMPLERS)
@given(length=st.integers(0, 60), run=courses_of_a_run)
def test_over_any_interruptions_ranks_and_batch_sizes_every_sample_is_delivered_once(
    kind: str, length: int, run: list[Stage]
) -> None:
    order, told, delivered = order_of(kind, length), BEGIN, []
    for stage in run:
        ranks = [course(kind, length, stage, rank, "keep", told) for rank in range(stage.world)]
        delivered += [index for each in ranks for index in deliver(each, stage.batches)]
        done = [each for each in ranks if each.cursor.position == stage.batches] or ranks[:1]
        told = told_by(done[0])
        assert all(told_by(each) == told for each in done), "any rank's state fits all"
        assert sorted(delivered) == sorted(order[: told["samples"]]), "together they have the order's beginning"
    stage = run[0]
    delivered += flat([deliver(course(kind, length, stage, rank, "keep", told), None) for rank in range(stage.world)])
    assert sorted(delivered) == sorted(order)


@pytest.mark.parametrize("kind", ["shuffle", "replayed"])
@given(length=st.integers(0, 60), run=courses_of_a_run)
def test_padded_ranks_have_equally_much_and_only_the_beginning_twice(kind: str, length: int, run: list[Stage]) -> None:
    order, told = order_of(kind, length), BEGIN
    delivered: list[int] = []
    for last, stage in [*((False, stage) for stage in run), (True, run[0])]:
        ranks = [course(kind, length, stage, rank, "pad", told) for rank in range(stage.world)]
        given = [deliver(each, None if last else stage.batches) for each in ranks]
        assert len({len(each) for each in given}) == 1
        assert len({each.cursor.position for each in ranks}) == 1, "all take as many steps"
        delivered += flat(given)
        told = told_by(ranks[0])
    twice = list(delivered)
    for index in order:
        twice.remove(index)
    assert sorted(twice) == sorted((order * len(twice))[: len(twice)]), "the order, and its beginning again"
    assert len(twice) < max(stage.world for stage in run)


@pytest.mark.parametrize("kind", ["shuffle", "replayed"])
@given(length=st.integers(0, 60), run=courses_of_a_run, whole=st.booleans())
def test_dropping_ranks_have_equally_much_and_lose_less_than_one_round_at_the_end(
    kind: str, length: int, run: list[Stage], whole: bool
) -> None:
    """With `drop_last` a round is a batch on every rank, else a sample on every rank."""
    order, told = order_of(kind, length), BEGIN
    delivered: list[int] = []
    for last, stage in [*((False, stage) for stage in run), (True, run[0])]:
        drop_last = whole and stage.batch_size is not None
        ranks = [course(kind, length, stage, rank, "drop", told, drop_last=drop_last) for rank in range(stage.world)]
        given = [deliver(each, None if last else stage.batches) for each in ranks]
        assert len({len(each) for each in given}) == 1
        assert len({each.cursor.position for each in ranks}) == 1, "all take as many steps"
        if drop_last:
            assert len(given[0]) == ranks[0].cursor.position * (stage.batch_size or 1)
        delivered += flat(given)
        told = told_by(ranks[0])
    assert sorted(delivered) == sorted(order[: len(delivered)])
    round_of_samples = run[0].world * ((run[0].batch_size or 1) if whole else 1)
    assert len(order) - len(delivered) < round_of_samples


@pytest.mark.parametrize("kind", ["shuffle", "replayed", "in sequence"])
@given(
    length=st.integers(0, 60),
    rank_and_world=st.sampled_from([(0, 1), (0, 2), (1, 2), (2, 3)]),
    sizes=st.lists(st.one_of(st.none(), st.integers(1, 7)), min_size=1, max_size=5),
    seed=st.integers(0, 2**32),
)
def test_batches_in_any_order_leave_holes_that_exactly_the_rest_fills(
    kind: str, length: int, rank_and_world: tuple[int, int], sizes: list[int | None], seed: int
) -> None:
    """As with `in_order=False`: whatever has been delivered, another batch size gives the rest."""
    (rank, world), told, chance = rank_and_world, BEGIN, random.Random(seed)
    mine = [order_of(kind, length)[place] for place in Share(length, rank, world).places()]
    delivered: list[int] = []
    for size in sizes:
        of = course(kind, length, Stage(world, size, 0), rank, "keep", told, in_order=False)
        batches = list(of.batches())
        assert flat(batches) == [index for index in mine if index not in delivered], "the rest, in order"
        assert all(len(flat([batch])) == (size or 1) for batch in batches[:-1])
        for number in chance.sample(range(len(batches)), chance.randint(0, len(batches))):
            of.cursor.passed(number)
            delivered += flat([batches[number]])
        told = told_by(of)
        assert world == 1 or (told["rank"], told["world"]) == (rank, world), "the state is for this rank alone"
        assert told["ahead"] == sorted(told["ahead"])
        assert all(0 < first < last for first, last in told["ahead"]), "what is at the place is not ahead"
    of = course(kind, length, Stage(world, 3, 0), rank, "keep", told)
    assert sorted(delivered + deliver(of, None)) == sorted(mine)


class Bucketed:
    """Somebody else's batch sampler: batches of any length."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __iter__(self) -> Iterator[list[int]]:
        order = iter(random.sample(range(sum(self.lengths)), sum(self.lengths)))
        return iter([list(islice(order, length)) for length in self.lengths])

    def __len__(self) -> int:
        return len(self.lengths)


@given(lengths=st.lists(st.integers(1, 5), max_size=12), seed=st.integers(0, 2**32), stops=st.integers(1, 4))
def test_batches_of_somebody_elses_are_counted_as_batches(lengths: list[int], seed: int, stops: int) -> None:
    def course_from(told: dict[str, Any]) -> Course:
        batch_sampler = Bucketed(lengths)
        loader = forebay.DataLoader(range(sum(lengths)), batch_sampler=batch_sampler, seed=SEED, in_order=False)
        passed: list[Range] = [(first, last) for first, last in told["ahead"]]
        return Course(loader, loader._seeding, 3, start=told["batches"], passed=passed)

    told: dict[str, Any] = {"batches": 0, "ahead": []}
    whole, delivered, chance = list(course_from(told).batches()), [], random.Random(seed)
    for _ in range(stops):
        of = course_from(told)
        batches = list(of.batches())
        for number in chance.sample(range(len(batches)), chance.randint(0, len(batches))):
            of.cursor.passed(number)
            delivered.append(batches[number])
        told = told_by(of)
    assert sorted(delivered + list(course_from(told).batches())) == sorted(whole)


@given(length=st.integers(0, 60), stage=stages, uneven=st.sampled_from(["keep", "pad", "drop"]), whole=st.booleans())
def test_the_length_of_a_course_is_the_number_of_its_batches(
    length: int, stage: Stage, uneven: Uneven, whole: bool
) -> None:
    for kind in ("shuffle", "replayed"):
        for rank in range(stage.world):
            drop_last = whole and stage.batch_size is not None
            of = course(kind, length, stage, rank, uneven, BEGIN, drop_last=drop_last)
            assert len(of) == len(list(of.batches()))


@given(
    length=st.integers(0, 40),
    world=st.integers(1, 5),
    start=st.integers(0, 50),
    uneven=st.sampled_from(["keep", "pad"]),
)
def test_the_shares_of_all_ranks_are_the_rest_of_the_order(length: int, world: int, start: int, uneven: Uneven) -> None:
    shares = [Share(length, rank, world, uneven, start) for rank in range(world)]
    assert all(len(share.places()) == len(share) for share in shares)
    dealt = [int(place) for share in shares for place in share.places()]
    rest = list(range(start, length))
    for place in rest:
        dealt.remove(place)
    assert len(dealt) < world
    assert not dealt or uneven == "pad"
    assert max(map(len, shares)) - min(map(len, shares)) <= (uneven == "keep")


@given(
    length=st.integers(1, 60),
    before=st.integers(1, 4),
    after=st.integers(1, 4),
    batch_size=st.integers(1, 4),
    batches=st.integers(0, 6),
)
def test_a_shard_sampler_is_dealt_anew_to_other_ranks(
    length: int, before: int, after: int, batch_size: int, batches: int
) -> None:
    """Its place is one of the whole order, as that of `rank=` and `world=`."""

    def course_of(rank: int, world: int, start: int) -> Course:
        inner = forebay.sampler.ShuffleSampler(length, seed=SEED)
        shard = forebay.sampler.ShardSampler(inner, rank=rank, world=world)
        loader = forebay.DataLoader(range(length), batch_size, sampler=shard, seed=SEED)
        assert len(loader) == -(-len(shard) // batch_size)
        return Course(loader, loader._seeding, 3, start=start)

    first = [course_of(rank, before, 0) for rank in range(before)]
    delivered = flat([deliver(each, batches) for each in first])
    start = told_by(first[0])["samples"]
    delivered += flat([deliver(course_of(rank, after, start), None) for rank in range(after)])
    assert sorted(delivered) == list(range(length))


def test_a_place_deep_in_a_huge_order_is_at_hand() -> None:
    """Whatever lies before it is not gone through, and what lies between a rank's places is not computed."""
    length, world = 10**12, 4096
    of = course_in(length, world, start=9 * 10**11)
    first = next(of.batches())
    assert len(set(first.tolist())) == 256
    assert json.dumps(of.where()) == '{"samples": 900000000000, "ahead": []}'


def course_in(length: int, world: int, start: int) -> Course:
    loader = forebay.DataLoader(range(length), 256, shuffle=True, seed=SEED, rank=1, world=world)
    return Course(loader, loader._seeding, 0, start=start)
