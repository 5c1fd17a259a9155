"""With workers the NumPy front gives what it gives without: the same batches, in the same order, bit for bit."""

import collections
import fractions
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

import forebay
from forebay import BatchSampler, DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler
from forebay.collate import default_collate, default_convert
from likeness import Failure, assert_same
from support import Grown

# Every example starts processes: a failing one is shown as it was found.
loading = settings(max_examples=50, phases=[Phase.explicit, Phase.generate])


class Point(NamedTuple):
    x: Any
    y: Any


@dataclass
class Record:
    image: Any
    label: int


def _array(index: int, dtype: Any, *shape: int) -> np.ndarray:
    return (np.random.default_rng(index).random(shape) * 100).astype(dtype)


DTYPES = [
    "?",
    "u1",
    "u2",
    "u4",
    "u8",
    "i1",
    "i2",
    "i4",
    "i8",
    "f2",
    "f4",
    "f8",
    "c8",
    "c16",
    "g",
    ">f4",
    "M8[s]",
    "m8[D]",
]

LEAVES: dict[str, Callable[[int], Any]] = {
    "int": lambda i: i * 7 - 3,
    "int near the end": lambda i: 2**63 - 1 - i,
    "int beyond int64": lambda i: 2**64 + i,
    "float": lambda i: i / 7,
    "strange float": lambda i: [float("nan"), -0.0, float("inf"), 5e-324][i % 4],
    "bool": lambda i: i % 3 == 0,
    "int then float": lambda i: i if i % 2 == 0 else i + 0.5,
    "bool then int": lambda i: i > 2 if i % 2 == 0 else i,
    "complex": lambda i: complex(i, 1),
    "str": lambda i: f"näme {i} \0",
    "lone surrogate": lambda i: f"\ud800{i}",
    "bytes": lambda i: bytes([i % 256, 0]),
    "none": lambda i: None,
    "numpy float32": lambda i: np.float32(i / 3),
    "numpy bool": lambda i: np.bool_(i % 2),
    "numpy date": lambda i: np.datetime64("2026-01-01") + i,
    "numpy str": np.str_,
    "numpy void": lambda i: np.array([(i, 2.5)], dtype=[("a", "i4"), ("b", "f8")])[0],
    **{f"array {dtype}": (lambda i, dtype=dtype: _array(i, dtype, 3, 4)) for dtype in DTYPES},
    "0-d array": lambda i: np.array(i / 3),
    "array without elements": lambda i: np.zeros((2, 0, 3), "i2"),
    "large array": lambda i: _array(i, "u1", 100, 60, 3),
    "Fortran array": lambda i: np.asfortranarray(_array(i, "f4", 40, 30)),
    "transposed array": lambda i: _array(i, "f4", 3, 4, 5).transpose(2, 0, 1),
    "reversed array": lambda i: _array(i, "f4", 50)[::-1],
    "broadcast array": lambda i: np.broadcast_to(_array(i, "f4", 3), (4, 3)),
    "overlapping array": lambda i: np.lib.stride_tricks.sliding_window_view(_array(i, "f4", 9), 3),
    "strided by half an element": lambda i: np.zeros(20, "u1,f4")["f1"] + np.float32(i),
    "field of a structured array": lambda i: np.full(20, i, "u1,f4")["f1"],
    "structured array": lambda i: np.full(5, i, dtype=[("a", "i4"), ("b", "f8")]),
    "array of strings": lambda i: np.array(["a", "b"]),
    "array of objects": lambda i: np.array([i, None], dtype=object),
    "ragged array": lambda i: _array(i, "f4", 2 + i % 2),
    "array of changing dtype": lambda i: _array(i, ["f4", "f8", "i4"][i % 3], 3),
    "array then int": lambda i: i if i % 2 else np.array(i),
    "masked array": lambda i: np.ma.masked_array([1, 2, 3], [True, False, True]),
    "matrix": lambda i: np.ones((2, 2)).view(np.matrix),
    "read-only array": lambda i: np.frombuffer(bytes(range(8)), "u1"),
    "dict of int keys": lambda i: {0: i, 1: i},
    "dict with missing keys": lambda i: {"a": i, "b": i} if i % 2 == 0 else {"a": i},
    "ordered dict": lambda i: collections.OrderedDict(z=i, a=[i]),
    "list of changing length": lambda i: [i] * (1 + i % 2),
    "list then tuple": lambda i: [i] if i % 2 == 0 else (i,),
    "named tuple": lambda i: Point(i, str(i)),
    "tuple of strings": lambda i: (str(i), b"b"),
    "empty containers": lambda i: {"a": [], "b": (), "c": {}},
    "dataclass": lambda i: Record(i, i),
    "fraction": lambda i: fractions.Fraction(i, 3),
    "index error": lambda i: [][i],
}


class Made(Grown):
    leaves = LEAVES


class OneOfEach:
    def __getitem__(self, index: tuple[str, int]) -> Any:
        name, number = index
        return LEAVES[name](number)


def _outcomes(iterator: Iterator[Any], limit: int | None = None) -> list[Any]:
    found: list[Any] = []
    while limit is None or len(found) < limit:
        try:
            found.append(next(iterator))
        except StopIteration:
            break
        except Exception as error:  # noqa: BLE001 - it is what is compared
            found.append(Failure(error))
    return found


def _ways(**options: Any) -> dict[str, tuple[Any, Any]]:
    """Every leaf with a worker and without."""
    with_workers, without = (
        _outcomes(iter(DataLoader(OneOfEach(), num_workers=workers, **options))) for workers in (1, 0)
    )
    return {name: pair for name, *pair in zip(LEAVES, with_workers, without, strict=True)}


@pytest.fixture(scope="module")
def collated() -> dict[str, tuple[Any, Any]]:
    return _ways(batch_sampler=[[(name, index) for index in range(5)] for name in LEAVES])


@pytest.fixture(scope="module")
def converted() -> dict[str, tuple[Any, Any]]:
    return _ways(batch_size=None, sampler=[(name, 3) for name in LEAVES])


@pytest.fixture(scope="module")
def listed() -> dict[str, tuple[Any, Any]]:
    return _ways(batch_sampler=[[(name, index) for index in range(3)] for name in LEAVES], collate_fn=list)


@pytest.mark.parametrize("name", LEAVES)
def test_default_collate_in_a_worker_makes_what_it_makes_without(name: str, collated: Any) -> None:
    ours, expected = collated[name]
    if isinstance(expected, np.ndarray):
        # As in torch, a worker stacks in order, whatever the order of the samples' axes.
        expected = np.ascontiguousarray(expected)
    assert_same(ours, expected)


# Travelling makes an array ordinary memory: writable, and its elements in order.
COMPACTED = {
    "transposed array", "reversed array", "broadcast array", "overlapping array", "field of a structured array",
    "read-only array", "array without elements",
}  # fmt: skip


@pytest.mark.parametrize("name", LEAVES)
def test_a_sample_without_a_batch_is_the_same_with_workers(name: str, converted: Any) -> None:
    ours, expected = converted[name]
    if name in COMPACTED:
        expected = np.array(expected, order="K")
        assert np.array_equal(ours, expected)
        assert ours.dtype == expected.dtype
        assert ours.flags.writeable
    else:
        assert_same(ours, expected)


@pytest.mark.parametrize("name", LEAVES)
def test_what_a_custom_collate_fn_returns_is_the_same_with_workers(name: str, listed: Any) -> None:
    ours, expected = listed[name]
    if name in COMPACTED:
        for mine, theirs in zip(ours, expected, strict=True):
            assert np.array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype
            assert mine.flags.writeable
    else:
        assert_same(ours, expected)


trees = st.recursive(
    st.sampled_from(list(LEAVES)),
    lambda branches: st.one_of(
        st.lists(branches, max_size=3),
        st.lists(branches, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["a", "b", 3, None]), branches, max_size=3),
        st.builds(Point, branches, branches),
    ),
    max_leaves=5,
)


def _orders(count: int, seed: int) -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "sequential": dict,
        "shuffled": lambda: {"shuffle": True, "generator": seed},
        "shuffled by the global stream": lambda: {"shuffle": True},
        "with replacement": lambda: {"sampler": RandomSampler(range(count), True, count + 3, generator=seed)},
        "weighted": lambda: {"sampler": WeightedRandomSampler(range(1, count + 1), count, generator=seed)},
        "subset": lambda: {"sampler": SubsetRandomSampler(range(0, count, 2), generator=seed)},
        "batch sampler": lambda: {"batch_sampler": BatchSampler(RandomSampler(range(count), generator=seed), 3, False)},
    }


@given(
    tree=trees,
    count=st.integers(1, 12),
    workers=st.integers(1, 3),
    order=st.sampled_from(sorted(_orders(1, 0))),
    batch_size=st.sampled_from([1, 2, 5, None]),
    limits=st.lists(st.sampled_from([None, 0, 2]), min_size=1, max_size=3),
    persistent=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@loading
def test_batches_are_the_same_with_and_without_workers(
    tree: Any, count: int, workers: int, order: str, batch_size: int | None, limits: Any, persistent: bool, seed: int
) -> None:
    def epochs(options: dict[str, Any]) -> tuple[list[Any], Any]:
        np.random.seed(seed)
        random.seed(seed)
        reading = _orders(count, seed)[order]()
        if "batch_sampler" not in reading:
            reading["batch_size"] = batch_size
        loader = DataLoader(Made(tree, count), **reading, **options)
        found = [_outcomes(iter(loader), limit) for limit in limits if limit is None]
        return found, random.getstate()

    note(f"{tree}")
    expected, python_stream = epochs({})
    ours, our_python_stream = epochs({"num_workers": workers, "persistent_workers": persistent})
    assert our_python_stream == python_stream
    for mine, theirs in zip(ours, expected, strict=True):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            if isinstance(other, Failure):
                assert isinstance(one, Failure)
                assert (type(one.error), str(one.error)) == (type(other.error), str(other.error))
            elif batch_size is None and order != "batch sampler":
                assert repr(one) == repr(other)  # a sample's strides are not kept
            else:
                assert_same(one, other)


def _registered(batch: Any, *, collate_fn_map: Any = None) -> Any:
    return sum(batch, fractions.Fraction())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_function_that_users_add_to_the_registry_is_used(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(forebay.default_collate_fn_map, fractions.Fraction, _registered)
    batches = list(DataLoader(Made(("fraction", "int"), 4), batch_size=2, num_workers=workers))
    assert [batch[0] for batch in batches] == [fractions.Fraction(1, 3), fractions.Fraction(5, 3)]


def _largest(batch: Any, *, collate_fn_map: Any = None) -> Any:
    return max(batch)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_function_that_replaces_one_of_ours_is_used(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(forebay.default_collate_fn_map, int, _largest)
    assert list(DataLoader(Made("int", 4), batch_size=2, num_workers=workers)) == [4, 18]


def test_the_default_functions_are_those_that_are_public() -> None:
    assert DataLoader([1]).collate_fn is default_collate is forebay.default_collate
    assert DataLoader([1], batch_size=None).collate_fn is default_convert is forebay.default_convert
