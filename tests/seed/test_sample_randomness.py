"""What a sample draws is a function of seed, epoch and index: nobody else's doings show in it."""

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from drawing import FEATURES, Drawing, drawn, samples
from hypothesis import given
from hypothesis import strategies as st

import forebay
from forebay.errors import EqualGeneratorsWarning
from support import Front, until

SEED = 7


def of(front: Front, dataset: Any, **options: Any) -> Any:
    return front.DataLoader(dataset, **{"seed": SEED, **options})


def table(batches: Any) -> dict[float, bytes]:
    """Every sample's draws, by its index."""
    return {row[0]: row[1:].tobytes() for row in samples(batches)}


def program_states() -> list[bytes]:
    """The trainer's own global generators."""
    legacy: Any = np.random.get_state(legacy=False)
    words = [*random.getstate()[1], *legacy["state"]["key"], legacy["state"]["pos"], legacy["has_gauss"]]
    return [np.array(words).tobytes(), torch.get_rng_state().numpy().tobytes()]


@pytest.fixture
def untouched() -> Iterator[None]:
    """Fails if the program's own generators have moved."""
    random.gauss(0, 1)  # which keeps a second number
    np.random.standard_normal()
    before = program_states()
    yield
    assert program_states() == before


# -- Neighbours


@given(indices=st.lists(st.integers(-3, 40), min_size=1, max_size=20), size=st.integers(1, 7))
def test_draws_do_not_depend_on_who_else_is_in_the_epoch_or_the_batch(indices: list[int], size: int) -> None:
    alone = {index: table(forebay.DataLoader(Drawing(), sampler=[index], seed=SEED))[float(index)] for index in indices}
    assert table(forebay.DataLoader(Drawing(), sampler=indices, batch_size=size, seed=SEED)) == {
        float(index): row for index, row in alone.items()
    }


def test_an_index_that_comes_twice_draws_the_same_twice_and_others_draw_others(front: Front) -> None:
    rows = samples(of(front, Drawing(), sampler=[3, 5, 3, 4], batch_size=3))
    assert rows[0].tobytes() == rows[2].tobytes()
    assert len({row.tobytes() for row in rows}) == 3


def test_no_two_samples_and_no_two_generators_have_a_number_in_common(front: Front) -> None:
    loader = of(front, Drawing(200), batch_size=50)
    numbers = np.concatenate([samples(loader), samples(loader)])[:, 1:]
    assert len(np.unique(numbers)) == 2 * 200 * (FEATURES - 1)


def test_every_call_of_sample_rng_for_a_sample_is_the_same_generator() -> None:
    class Twice(Drawing):
        def __getitem__(self, index: int) -> Any:
            assert forebay.sample_rng() is forebay.sample_rng()
            return [forebay.sample_rng().random(), forebay.sample_rng().random()]

    for first, second in forebay.DataLoader(Twice(), seed=SEED):
        assert first != second


# -- Whole batches by one call


class Bulk(Drawing):
    """Makes a batch in one call, and notes how many it was asked for."""

    def __init__(self, draws: bool) -> None:
        super().__init__()
        self.draws, self.calls = draws, list[int]()

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        self.calls.append(len(indices))
        return [self[index] if self.draws else np.full(FEATURES, float(index)) for index in indices]


class OnlyBulk:
    """Has no `__getitem__`."""

    def __len__(self) -> int:
        return 23

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        return [drawn(index) for index in indices]


class OnlyOwnGenerator(OnlyBulk):
    """Draws from the sample's own generator alone."""

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        return [np.append(index, forebay.sample_rng().random(FEATURES - 1)) for index in indices]


class DrawsLate(OnlyBulk):
    """Draws for some samples only."""

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        return [drawn(index) if index % 6 == 5 else np.full(FEATURES, float(index)) for index in indices]


def nested(dataset: Any) -> Any:
    return torch.utils.data.Subset(forebay.Subset(dataset, range(23)), range(23))


BULK: dict[str, Callable[[], Any]] = {
    "draws": lambda: Bulk(draws=True),
    "only bulk": OnlyBulk,
    "sample_rng": OnlyOwnGenerator,
    "draws late": DrawsLate,
    "forebay.Subset": lambda: forebay.Subset(Drawing(), range(23)),
    "torch's Subset": lambda: torch.utils.data.Subset(Drawing(), range(23)),
    "Subset of Subset": lambda: nested(Bulk(draws=True)),
}


@pytest.mark.parametrize("name", BULK)
def test_a_bulk_that_draws_has_the_numbers_of_samples_made_one_by_one(front: Front, name: str) -> None:
    one_by_one = samples(of(front, BULK[name]()))
    for options in ({"batch_size": 4}, {"batch_size": 23}, {"batch_size": 7, "num_workers": 2}):
        with of(front, BULK[name](), **options) as loader:
            assert samples(loader).tobytes() == one_by_one.tobytes()
    shuffled = table(of(front, BULK[name](), batch_size=5, shuffle=True))
    assert shuffled == {row[0]: row[1:].tobytes() for row in one_by_one}


class OneNormal(OnlyBulk):
    """Draws what NumPy may have kept of a pair that it made before."""

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        return [np.random.standard_normal() for _ in indices]


def test_a_number_that_numpy_has_kept_for_the_program_is_no_sample_s(front: Front) -> None:
    found = []
    for seed in range(2):
        np.random.seed(seed)
        np.random.standard_normal()
        found.append([batch.item() for batch in of(front, OneNormal())])
    assert found[0] == found[1]
    assert len(set(found[0])) == 23


def test_a_bulk_that_draws_nothing_is_called_once_for_a_batch(front: Front) -> None:
    dataset = Bulk(draws=False)
    list(of(front, dataset, batch_size=4))
    assert dataset.calls == [4, 4, 4, 4, 4, 3]


def test_a_bulk_that_draws_is_asked_for_a_whole_batch_but_once(front: Front) -> None:
    dataset = Bulk(draws=True)
    list(of(front, dataset, batch_size=4))
    assert dataset.calls == [4]


# -- Exceptions


class Falling(Drawing):
    """Draws, and then fails, at some indices."""

    def __getitem__(self, index: int) -> Any:
        sample = super().__getitem__(index)
        if index % 5 == 2:
            raise ValueError(index)
        return sample


class FallingInBulk(Falling):
    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        return [self[index] for index in indices]


@pytest.mark.parametrize("kind", [Falling, FallingInBulk])
@pytest.mark.parametrize("workers", [0, 2])
def test_exceptions_before_a_sample_change_nothing_for_it(front: Front, kind: type, workers: int) -> None:
    expected = table(of(front, Drawing()))
    found, failed = [], 0
    with of(front, kind(), batch_size=2, num_workers=workers) as loader:
        batches = iter(loader)
        while True:
            try:
                found.append(next(batches))
            except ValueError:
                failed += 1
            except StopIteration:
                break
    assert failed == 5
    assert len(table(found)) == 14
    assert table(found).items() <= expected.items()


# -- Collate functions


def noisy(batch: list[Any]) -> Any:
    """Appends what it draws to every sample's index."""
    noise = drawn(0)[1:]
    return np.stack([np.append(sample, noise) for sample in batch])


def noisy_one(sample: Any) -> Any:
    return noisy([sample])


def test_what_a_collate_fn_draws_is_a_function_of_the_batchs_first_index(front: Front) -> None:
    orders = [[0, 1, 2, 3, 4, 5], [5, 0, 1, 2, 3, 4], [0, 5, 4, 3, 2, 1]]
    draws: dict[float, set[bytes]] = {}
    for order in orders:
        for workers, size in ((0, 2), (2, 2), (0, 3), (1, 6)):
            with of(front, range(6), sampler=order, batch_size=size, collate_fn=noisy, num_workers=workers) as loader:
                for batch in loader:
                    rows = np.asarray(batch)
                    assert (rows[:, 1:] == rows[0, 1:]).all()
                    draws.setdefault(rows[0, 0], set()).add(rows[0, 1:].tobytes())
    assert all(len(found) == 1 for found in draws.values())
    assert len(set.union(*draws.values())) == len(draws) == 6


def test_a_collate_fn_does_not_draw_what_the_samples_drew(front: Front) -> None:
    batches = list(of(front, Drawing(), batch_size=4, collate_fn=noisy))
    rows = np.concatenate([np.asarray(batch) for batch in batches])
    assert not set(rows[:, 1:FEATURES].ravel()) & set(rows[:, FEATURES:].ravel())


@pytest.mark.parametrize("workers", [0, 2])
def test_without_automatic_batching_collate_fn_is_keyed_by_the_one_index(front: Front, workers: int) -> None:
    batched = {row[0]: row.tobytes() for batch in of(front, range(9), collate_fn=noisy) for row in np.asarray(batch)}
    with of(front, range(9), batch_size=None, collate_fn=noisy_one, num_workers=workers) as loader:
        single = {row[0]: row.tobytes() for batch in loader for row in np.asarray(batch)}
    assert single == batched


# -- Indices of any kind


class Hashing(Drawing):
    def __getitem__(self, index: Any) -> Any:
        return drawn(hash(index) % 1000)


def draws_at(front: Front, index: Any, **options: Any) -> bytes:
    (row,) = samples(of(front, Hashing(), batch_size=None, sampler=[index], **options))
    return row[1:].tobytes()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [tuple, dict.fromkeys, set, iter], ids=["tuple", "dict", "set", "iterator"])
def test_whatever_can_be_iterated_over_is_a_batch(front: Front, kind: Callable[[list[int]], Any], workers: int) -> None:
    batches = [[1, 2], [3, 4]]
    plain = samples(of(front, Drawing(), batch_sampler=batches))
    others = samples(of(front, Drawing(), batch_sampler=[kind(batch) for batch in batches], num_workers=workers))
    assert np.array_equal(plain, others)


def test_integers_of_any_type_are_the_same_index(front: Front) -> None:
    same = {draws_at(front, index) for index in (5, np.int64(5), np.uint8(5), torch.tensor(5))}
    assert len(same) == 1


@pytest.mark.parametrize("index", ["a", ("train", 3), (1, 2), b"key", 2.5, None, frozenset({1})], ids=repr)
def test_indices_that_are_no_integers_have_draws_of_their_own(front: Front, index: Any) -> None:
    others = [draws_at(front, other) for other in ("b", ("train", 4), 1, 2, 3)]
    assert draws_at(front, index) not in others
    assert draws_at(front, index) == draws_at(front, index, num_workers=1)


@pytest.mark.parametrize("index", [2**63 - 1, -1, -(2**63), 2**70])
def test_integers_of_any_size_are_indices(front: Front, index: int) -> None:
    assert draws_at(front, index) == draws_at(front, index, num_workers=1)


# -- The trainer's own generators


USES: dict[str, Callable[[Front], object]] = {
    "samples": lambda front: list(of(front, Drawing(), batch_size=4, shuffle=True)),
    "one by one": lambda front: list(of(front, Drawing(), batch_size=None)),
    "bulk": lambda front: list(of(front, Bulk(draws=True), batch_size=4)),
    "collate": lambda front: list(of(front, range(9), collate_fn=noisy)),
    "left": lambda front: next(iter(of(front, Drawing()))),
    "in memory": lambda front: list(of(front, np.zeros((9, 2)), batch_size=3, shuffle=True)),
    "torch's random sampler": lambda front: list(
        of(front, Drawing(), sampler=torch.utils.data.RandomSampler(range(9)))
    ),
    "weighted": lambda front: list(of(front, Drawing(), sampler=torch.utils.data.WeightedRandomSampler([1.0, 2.0], 9))),
    "batch sampler": lambda front: list(
        of(front, Drawing(), batch_sampler=torch.utils.data.BatchSampler(Shuffling(), 4, False))
    ),
    "a user's sampler": lambda front: list(of(front, Drawing(), sampler=Shuffling())),
    "an exception": lambda front: until(ValueError, of(front, Falling(), batch_size=4)),
    "an exception of the sampler": lambda front: until(ValueError, of(front, Drawing(), sampler=FailingSampler())),
    "an exception of set_epoch": lambda front: until_in_iter(of(front, FailingEpoch())),
    "a stream": lambda front: list(of(front, Coins(), batch_size=4)),
    "a state": lambda front: resumed(front),
    "with workers": lambda front: list(of(front, Drawing(), batch_size=4, shuffle=True, num_workers=1)),
    "with workers and a user's sampler": lambda front: list(of(front, Drawing(), sampler=Shuffling(), num_workers=1)),
}


class Shuffling:
    """Draws as soon as a pass is asked for."""

    def __len__(self) -> int:
        return 9

    def __iter__(self) -> Iterator[int]:
        order = list(range(9))
        random.shuffle(order)
        np.random.shuffle(order)
        torch.randperm(9)
        return iter(order)


class FailingSampler(Shuffling):
    def __iter__(self) -> Iterator[int]:
        yield random.randrange(9)
        raise ValueError(torch.rand(1))


class FailingEpoch(Drawing):
    def set_epoch(self, epoch: int) -> None:
        raise ValueError(random.random() + np.random.random() + epoch)


class Coins(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        random.random()
        return (drawn(number) for number in range(9))


def until_in_iter(loader: Any) -> None:
    with pytest.raises(ValueError, match=r"^\d"):
        iter(loader)


def resumed(front: Front) -> None:
    loader = of(front, Drawing(), batch_size=4, shuffle=True)
    next(iter(loader))
    again = of(front, Drawing(), batch_size=4, shuffle=True)
    again.load_state_dict(loader.state_dict())
    list(again)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", USES)
def test_the_programs_own_generators_do_not_move(front: Front, name: str) -> None:
    USES[name](front)


class Interrupting(Drawing):
    """Ctrl-C comes in the middle of a sample, once."""

    interrupted = False

    def __getitem__(self, index: int) -> Any:
        sample = super().__getitem__(index)
        if index == 6 and not self.interrupted:
            self.interrupted = True
            signal.raise_signal(signal.SIGINT)
        return sample


@pytest.mark.usefixtures("untouched")
def test_ctrl_c_in_a_sample_leaves_the_programs_generators_and_the_stream_as_they_were(front: Front) -> None:
    batches = iter(of(front, Interrupting(), batch_size=4))
    found = [next(batches)]
    with pytest.raises(KeyboardInterrupt):
        next(batches)
    found += list(batches)
    expected = table(of(front, Drawing(), batch_size=4))
    assert table(found).items() <= expected.items()


def test_a_sample_is_over_when_its_batch_is_there(front: Front) -> None:
    next(iter(of(front, Drawing())))
    rng = forebay.sample_rng()
    assert rng is not forebay.sample_rng()


# -- Loaders in samples


class Outer(Drawing):
    """Draws, has another loader draw, and draws on."""

    def __init__(self, inner: Callable[[], Any] | None) -> None:
        super().__init__(6)
        self.inner = inner

    def __getitem__(self, index: int) -> Any:
        rng = forebay.sample_rng()
        first = super().__getitem__(index)
        within = samples(self.inner()) if self.inner is not None else np.zeros((2, FEATURES))
        assert forebay.sample_rng() is rng
        return np.concatenate([first, drawn(index), *within[:2]])


def wide(batches: Any) -> np.ndarray[Any, Any]:
    return np.concatenate([np.asarray(batch) for batch in batches])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_in_a_sample_has_its_own_stream_and_leaves_the_outer_one_alone(front: Front, workers: int) -> None:
    def inner() -> Any:
        return of(front, Drawing(), batch_size=2, shuffle=True, seed=99)

    own = 2 * FEATURES
    alone, within = wide(of(front, Outer(None), batch_size=2)), samples(inner())
    with of(front, Outer(inner), batch_size=2, num_workers=workers) as loader:
        rows = wide(loader)
    assert rows[:, :own].tobytes() == alone[:, :own].tobytes()
    assert (rows[:, own:] == within[:2].ravel()).all()


def test_a_loader_without_a_seed_in_a_sample_is_a_function_of_that_sample(front: Front) -> None:
    def inner() -> Any:
        return front.DataLoader(Numbered(), batch_size=2, shuffle=True)

    streams = []
    for workers in (0, 2):
        with of(front, Outer(inner), batch_size=2, num_workers=workers) as loader:
            streams.append(wide(loader))
    assert streams[0].tobytes() == streams[1].tobytes()
    assert len(np.unique(streams[0][:, 2 * FEATURES])) > 1


class Numbered(Drawing):
    def __getitem__(self, index: int) -> Any:
        return np.full(FEATURES, index, np.float64)


# -- Generators that a dataset holds


class Holding(Drawing):
    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)


def test_a_held_generator_is_warned_of_with_the_samples_own_as_the_better_cure(front: Front) -> None:
    with of(front, Holding(), num_workers=2) as loader, pytest.warns(EqualGeneratorsWarning) as caught:
        list(loader)
    assert "With a seed, draw from forebay.sample_rng()" in str(caught[0].message)
    with front.DataLoader(Holding(), num_workers=2) as loader, pytest.warns(EqualGeneratorsWarning) as caught:
        list(loader)
    assert "sample_rng" not in str(caught[0].message)
