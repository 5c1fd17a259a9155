"""Collating follows torch's rules, with arrays for tensors."""

from collections import OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from forebay.collate import collate, default_collate, default_collate_fn_map, default_convert

# The dtypes that both NumPy and torch stack.
DTYPES = ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16")


class Point(NamedTuple):
    x: Any
    y: Any


@pytest.fixture(scope="module")
def torch_data() -> ModuleType:
    return pytest.importorskip("torch.utils.data")


@pytest.fixture
def registry() -> Iterator[dict[Any, Any]]:
    """The registry itself, restored afterwards."""
    before = dict(default_collate_fn_map)
    yield default_collate_fn_map
    default_collate_fn_map.clear()
    default_collate_fn_map.update(before)


# torch has no way from a numpy.uint64 scalar to a tensor; ours is in a test of its own.
SCALAR_DTYPES = tuple(dtype for dtype in DTYPES if dtype != "u8")


# A kind is a strategy for strategies: it fixes the structure, which all samples of a batch share.
def arrays_of(dtype: str, shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
    return hnp.arrays(dtype, shape)


kinds_of_leaves: st.SearchStrategy[st.SearchStrategy[Any]] = st.one_of(
    st.builds(arrays_of, st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)),
    st.builds(lambda dtype: hnp.arrays(dtype, ()).map(lambda array: array[()]), st.sampled_from(SCALAR_DTYPES)),
    st.sampled_from(
        [
            st.integers(-(2**63), 2**63 - 1),
            st.booleans(),
            st.floats(),
            st.text(max_size=3),
            st.binary(max_size=3),
            st.text(max_size=3).map(np.str_),
        ]
    ),
)


def containers_of(kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(kinds, max_size=3)
    return st.one_of(
        several.map(lambda parts: st.tuples(*parts)),
        several.map(lambda parts: st.tuples(*parts).map(list)),
        several.map(lambda parts: st.tuples(*parts).map(UserList)),
        st.dictionaries(st.sampled_from("abc"), kinds).map(st.fixed_dictionaries),
        st.dictionaries(st.sampled_from("abc"), kinds).map(
            lambda parts: st.fixed_dictionaries(parts).map(MappingProxyType)
        ),
        st.builds(lambda x, y: st.builds(Point, x, y), kinds, kinds),
    )


kinds = st.recursive(kinds_of_leaves, containers_of, max_leaves=4)
samples = kinds.flatmap(lambda kind: kind)
batches = kinds.flatmap(lambda kind: st.lists(kind, min_size=1, max_size=5))


def assert_equal_to_torchs(ours: Any, theirs: Any) -> None:
    """Same structure, same types of containers, arrays equal to tensors in dtype, shape and bits."""
    if hasattr(theirs, "numpy"):
        assert type(ours) is np.ndarray
        expected = theirs.numpy()
        assert ours.dtype == expected.dtype
        np.testing.assert_array_equal(ours, expected, strict=True)
        return
    assert type(ours) is type(theirs)
    if isinstance(theirs, Mapping):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_equal_to_torchs(ours[key], theirs[key])
    elif isinstance(theirs, Sequence) and not isinstance(theirs, (str, bytes)):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_equal_to_torchs(mine, other)
    else:
        assert repr(ours) == repr(theirs)  # nan differs from itself


@given(batch=batches)
def test_a_batch_equals_torchs(torch_data: ModuleType, batch: list[Any]) -> None:
    assert_equal_to_torchs(default_collate(batch), torch_data.default_collate(batch))


@given(sample=samples)
def test_a_converted_sample_equals_torchs(torch_data: ModuleType, sample: Any) -> None:
    converted, expected = default_convert(sample), torch_data.default_convert(sample)
    assert_equal_to_torchs(converted, expected)


@given(batch=batches)
def test_collating_changes_no_sample(batch: list[Any]) -> None:
    before = repr(batch)
    default_collate(batch)
    for sample in batch:
        default_convert(sample)
    assert repr(batch) == before


@given(dtypes=st.lists(st.sampled_from(DTYPES), min_size=1, max_size=6))
def test_mixed_dtypes_promote_as_in_numpy(dtypes: list[str]) -> None:
    for batch in [np.ones(2, dtype) for dtype in dtypes], [np.ones((), dtype)[()] for dtype in dtypes]:
        collated = default_collate(batch)
        assert collated.dtype == np.result_type(*dtypes)
        assert (collated == 1).all()


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ([1, 2.5], np.array([1.0, 2.5])),
        ([1.5, 2], np.array([1.5, 2.0])),
        ([1.5, 2**70], np.array([1.5, 2.0**70])),
        ([1.5, True], np.array([1.5, 1.0])),
        ([True, False], np.array([True, False])),
        ([True, 2], np.array([1, 2])),
        ([-(2**63), 2**63 - 1], np.array([-(2**63), 2**63 - 1])),
        ([1, 2j], np.array([1, 2j])),
        ([np.float32(1), 2.5], np.array([1, 2.5])),
        ([np.uint64(2**63), np.uint64(1)], np.array([2**63, 1], np.uint64)),
        ([np.zeros(()), 1.5], np.array([0.0, 1.5])),
        ([np.zeros(2), [1, 2]], np.array([[0.0, 0.0], [1.0, 2.0]])),
    ],
)
def test_mixed_numbers_become_one_array(batch: list[Any], expected: np.ndarray[Any, Any]) -> None:
    np.testing.assert_array_equal(default_collate(batch), expected, strict=True)


@pytest.mark.parametrize("batch", [[2**63], [1, 2**70], [1, -(2**63) - 1], [2**63, -1], [1, 2.5, 2**64]])
def test_an_int_beyond_int64_is_refused_by_its_position(batch: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"must fit into int64, but got -?\d+ at entry \d"):
        default_collate(batch)


records = np.array([(1, 2.5), (3, 4.5)], dtype=[("id", "i4"), ("score", "f8")])
times = np.array(["2020-01-01", "2021-01-01"], dtype="M8[D]")
spans = np.array([1, 2], dtype="m8[s]")


@pytest.mark.parametrize("array", [records, times, spans], ids=["structured", "datetime", "timedelta"])
def test_records_and_times_are_stacked(array: np.ndarray[Any, Any]) -> None:
    np.testing.assert_array_equal(default_collate([array, array]), np.stack([array, array]), strict=True)
    np.testing.assert_array_equal(default_collate(list(array)), array, strict=True)
    converted = default_convert(array[0])
    assert converted.dtype == array.dtype
    assert converted.shape == ()


def test_subclasses_of_arrays_are_stacked_as_plain_arrays(tmp_path: Any) -> None:
    mapped = np.memmap(tmp_path / "data", np.uint8, "w+", shape=4)
    assert type(default_collate([mapped, mapped])) is np.ndarray


def test_the_batch_shares_no_memory_with_its_samples() -> None:
    sample = np.zeros(3)
    assert not np.shares_memory(default_collate([sample]), sample)


def test_a_converted_array_is_the_array_itself() -> None:
    for array in (np.zeros(3), np.array(["a"]), np.array([None])):
        assert default_convert(array) is array


refused_by_torch = [
    [None],
    [object()],
    [1j],
    [{1}],
    [Fraction(1, 2)],
    [np.array(["a"])],
    [np.array([b"a"])],
    [np.array([None])],
    [{"a": None}],
    [(1, [None])],
    [[1, 2], [3]],
    [(1, 2), (3,)],
    [[], [1]],
    [[1], 2],
    [{"a": 1}, {"b": 1}],
    [],
]


@pytest.mark.parametrize("batch", refused_by_torch, ids=repr)
def test_what_torch_refuses_is_refused_in_the_same_words(torch_data: ModuleType, batch: list[Any]) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011  (its type is compared)
        torch_data.default_collate(batch)
    with pytest.raises(theirs.type) as ours:
        default_collate(batch)
    assert str(ours.value) == str(theirs.value).replace("contain tensors, numpy", "contain numpy")


@pytest.mark.parametrize(
    "batch",
    [
        [1.5, None],
        [1.5, "2.5"],
        [1.5, 2j],
        [1, None],
        [1, "2"],
        [1, b"2"],
        [1, np.timedelta64(1, "s")],
        [1.5, np.timedelta64(1, "s")],
        [1, Fraction(1, 2)],
        [np.float32(1), None],
        [np.float32(1), "a"],
        [np.datetime64("2020"), None],
        [np.zeros(1), np.array(["a"])],
        [np.zeros(1), None],
        [np.array([(None,)], dtype=[("a", "O")])],
    ],
    ids=repr,
)
def test_a_stranger_among_numbers_is_refused_and_never_converted(batch: list[Any]) -> None:
    with pytest.raises(TypeError, match="default_collate: batch must contain numpy arrays, numbers"):
        default_collate(batch)


def test_unequal_shapes_are_refused_with_their_positions() -> None:
    batch = [np.zeros((2, 3)) if position % 3 else np.zeros(4) for position in range(10)]
    with pytest.raises(ValueError, match="equal size") as caught:
        default_collate([{"image": array} for array in batch])
    assert str(caught.value).endswith("but got (4,) at entries 0, 3, 6, 9 and (2, 3) at entries 1, 2, 4, 5 and 2 more")
    with pytest.raises(ValueError, match=r"got \(\) at entry 0 and \(1,\) at entry 1$"):
        default_collate([np.zeros(()), np.zeros(1)])


def test_only_the_keys_of_the_first_sample_count() -> None:
    assert list(default_collate([{"a": 1}, {"a": 2, "b": 3}])) == ["a"]


def test_strings_come_back_as_the_very_object_they_came_in() -> None:
    batch = ["a", "b"]
    assert default_collate(batch) is batch
    assert default_collate([("a", 1), ("b", 2)])[0] == ("a", "b")


class Tagged(dict[str, Any]):
    """A mapping with an attribute of its own."""

    tag = "untagged"


class Stubborn(Mapping[str, Any]):
    """A mapping that cannot be built from a dict."""

    def __getitem__(self, key: str) -> int:
        return {"a": 1}[key]

    def __iter__(self) -> Iterator[str]:
        return iter("a")

    def __len__(self) -> int:
        return 1


def test_containers_keep_their_type_and_attributes_where_they_can() -> None:
    tagged = Tagged(a=1)
    tagged.tag = "mine"
    for rebuilt in (default_collate([tagged, tagged]), default_convert(tagged)):
        assert type(rebuilt) is Tagged
        assert rebuilt.tag == "mine"
    factory = defaultdict(list, a=1)
    assert default_collate([factory]).default_factory is list
    for container in (OrderedDict(a=1), UserDict(a=1), UserList([1]), deque([1]), MappingProxyType({"a": 1})):
        assert type(default_collate([container])) is type(container)
        assert type(default_convert(container)) is type(container)


def test_containers_that_cannot_be_rebuilt_become_dicts_and_lists() -> None:
    for refill in (lambda sample: default_collate([sample]), default_convert):
        assert type(refill(Stubborn())) is dict
        assert type(refill(range(2))) is list
    assert type(default_collate([bytearray(b"ab"), bytearray(b"cd")])) is list


def doubled(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Any:
    return [2 * sample for sample in batch]


def test_a_type_added_to_the_registry_is_collated_by_its_function(registry: dict[Any, Any]) -> None:
    registry[Fraction] = doubled
    assert default_collate([{"a": Fraction(1, 2)}]) == {"a": [Fraction(1)]}


def test_the_exact_type_precedes_the_order_of_the_registry(registry: dict[Any, Any]) -> None:
    registry[bool] = doubled
    assert default_collate([True]) == [2]
    assert default_collate([3]).tolist() == [3]


def test_among_base_types_the_first_entry_wins() -> None:
    fns: list[Callable[..., Any]] = [lambda batch, *, collate_fn_map, n=n: n for n in range(2)]
    assert collate([True], collate_fn_map={(str, int): fns[0], object: fns[1]}) == 0
    assert collate([True], collate_fn_map={object: fns[1], int: fns[0]}) == 1


def test_a_function_gets_the_registry_it_was_found_in() -> None:
    def checked(batch: Sequence[Any], *, collate_fn_map: Any) -> bool:
        return collate_fn_map is mine

    mine: dict[Any, Any] = {int: checked}
    assert collate([(1,)], collate_fn_map=mine) == [True]


@pytest.mark.parametrize("sample", ["ab", b"ab", 1, np.zeros(1)])
def test_without_a_registry_only_containers_are_collated(sample: Any) -> None:
    with pytest.raises(TypeError, match="default_collate: batch must contain"):
        collate([sample])
    assert collate([[], []]) == []
