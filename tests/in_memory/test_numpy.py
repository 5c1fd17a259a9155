"""Arrays as datasets of the NumPy front: batches are gathered, and are those that samples would make."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import forebay
from forebay._gather import gather
from forebay.collate import default_collate, default_collate_fn_map

COUNT = 8
DTYPES = [*"?bBhHiIlLqQefdFD", "M8[s]", "S3", "U2", ">i4", ">f8"]


def expected(dataset: Any, indices: list[Any]) -> Any:
    """The batch made sample by sample, or the exception."""
    try:
        return default_collate([dataset[index] for index in indices])
    except Exception as error:  # noqa: BLE001 - it is what is compared
        return error


def loaded(dataset: Any, indices: list[Any], workers: int = 0) -> Any:
    try:
        (batch,) = forebay.DataLoader(dataset, batch_sampler=[indices], num_workers=workers)
    except Exception as error:  # noqa: BLE001 - it is what is compared
        return error
    return batch


def assert_same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs), f"{ours!r} for {theirs!r}"
    if not isinstance(ours, np.ndarray):
        assert repr(ours) == repr(theirs)
        return
    assert (ours.dtype, ours.shape, ours.strides) == (theirs.dtype, theirs.shape, theirs.strides)
    assert ours.tobytes() == theirs.tobytes()
    assert ours.flags.writeable
    assert ours.base is None


@st.composite
def arrays(draw: Callable[..., Any]) -> np.ndarray[Any, Any]:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = (COUNT, *draw(st.lists(st.integers(0, 3), max_size=3)))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    if dtype.kind == "b":
        array = random.integers(0, 2, shape).astype(bool)
    elif dtype.kind == "U":
        array = random.integers(0, 99, shape).astype(dtype)
    else:
        array = np.frombuffer(random.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)
    ways = {
        "C": lambda: array,
        "F": lambda: np.asarray(array, order="F"),
        "reversed": lambda: array[::-1],
        "every other": lambda: np.repeat(array, 2, axis=0)[::2],
        "transposed": lambda: array.swapaxes(1, -1) if array.ndim > 1 else array,
    }
    return ways[draw(st.sampled_from(sorted(ways)))]()


any_index = st.one_of(st.integers(-COUNT - 1, COUNT), st.integers(0, COUNT - 1).map(np.int64), st.booleans())


@given(dataset=arrays(), indices=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=5))
def test_batches_are_those_made_of_samples(dataset: Any, indices: list[int]) -> None:
    assert_same(loaded(dataset, indices), expected(dataset, indices))


@given(dataset=arrays(), indices=st.lists(any_index, max_size=3))
def test_whatever_the_indices_batches_and_errors_are_those_of_samples(dataset: Any, indices: list[Any]) -> None:
    assert_same(loaded(dataset, indices), expected(dataset, indices))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("dtype", ["?", "i4", "f2", "f8", "F"])
@pytest.mark.parametrize("shape", [(COUNT,), (COUNT, 3, 2)])
def test_workers_gather_too(workers: int, dtype: str, shape: tuple[int, ...]) -> None:
    dataset = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    assert gather(dataset, [3, 1]) is not None
    ours, theirs = loaded(dataset, [3, 1, 3], workers), expected(dataset, [3, 1, 3])
    assert (ours.dtype, ours.strides) == (theirs.dtype, theirs.strides)
    assert ours.tobytes() == theirs.tobytes()


def test_only_plain_arrays_are_gathered() -> None:
    class Doubled(np.ndarray):
        def __getitem__(self, index: Any) -> Any:
            return np.asarray(self)[index] * 2

    dataset = np.arange(COUNT * 2).reshape(COUNT, 2).view(Doubled)
    assert gather(dataset, [1]) is None
    assert_same(loaded(dataset, [1]), np.array([[4, 6]]))


def test_the_registry_and_a_collate_fn_have_their_say(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = np.ones((4, 2))
    assert list(forebay.DataLoader(dataset, batch_size=4, collate_fn=len)) == [4]
    monkeypatch.setitem(default_collate_fn_map, np.ndarray, lambda batch, collate_fn_map: len(batch))
    assert list(forebay.DataLoader(dataset, batch_size=4)) == [4]


def test_without_automatic_batching_samples_are_those_of_the_array() -> None:
    assert list(forebay.DataLoader(np.arange(3), batch_size=None)) == [0, 1, 2]


def test_what_a_program_writes_into_its_array_shows_in_the_next_batch_only() -> None:
    dataset = np.zeros((4, 2))
    iterator = iter(forebay.DataLoader(dataset, batch_sampler=[[0, 1]] * 2))
    first = next(iterator)
    dataset += 1
    assert first.sum() == 0
    assert next(iterator).sum() == 4
