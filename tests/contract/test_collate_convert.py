"""1.10 Collate and convert: what becomes of samples, in the trainer (no workers) and in workers.

tests/torch_front compares hundreds of kinds of samples bit for bit; here are the rules.
"""

import datetime as dt
from collections import OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from laws import differs
from subjects import Calls
from torch.utils.data import default_collate, default_convert, get_worker_info
from torch.utils.data._utils import collate as torch_collate
from torch.utils.data._utils import worker as torch_worker

pytestmark = pytest.mark.parametrize("workers", [0, 1])

UNFIT = "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {}"


class Pair(NamedTuple):
    left: Any
    right: Any


class Frozen(Mapping):
    """A mapping that cannot be changed."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = dict(content)

    def __getitem__(self, key: str) -> Any:
        return self._content[key]

    def __iter__(self) -> Any:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)


class Stubborn(Frozen):
    """A mapping that cannot be made of another one."""

    def __init__(self, **content: Any) -> None:
        super().__init__(content)


class Tagged(list):
    """A list with an attribute."""

    tag = ""


def tagged(values: list[Any]) -> Tagged:
    made = Tagged(values)
    made.tag = "kept"
    return made


def collated(kind: Any, samples: list[Any], workers: int) -> Any:
    """The one batch of these samples."""
    dataset = Calls(len(samples), samples.__getitem__)
    (batch,) = kind(dataset, batch_size=len(samples), num_workers=workers)
    return batch


def converted(kind: Any, sample: Any, workers: int) -> Any:
    (found,) = kind(Calls(1, lambda _: sample), batch_size=None, num_workers=workers)
    return found


def equal(found: Any, expected: Any) -> bool:
    """Whether two batches are of the same types and values, all the way down."""
    if type(found) is not type(expected):
        return False
    if isinstance(found, torch.Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected)
    if isinstance(found, np.ndarray):
        return found.dtype == expected.dtype and bool((found == expected).all())
    if isinstance(found, Mapping):
        return list(found) == list(expected) and all(equal(found[key], expected[key]) for key in found)
    if isinstance(found, (list, tuple, UserList, deque)):
        return len(found) == len(expected) and all(map(equal, found, expected))
    return bool(found == expected)


ints = torch.tensor([1, 2])

COLLATED: dict[str, tuple[list[Any], Any]] = {
    "tensors": ([torch.tensor([1.0]), torch.tensor([2.0])], torch.tensor([[1.0], [2.0]])),
    "a tensor of floats, then one of ints": ([torch.tensor(1.5), torch.tensor(2)], torch.tensor([1.5, 2.0])),
    "arrays": ([np.array([1, 2]), np.array([3, 4])], torch.tensor([[1, 2], [3, 4]])),
    "an array and a tensor": ([np.array([1, 2]), torch.tensor([3, 4])], torch.tensor([[1, 2], [3, 4]])),
    "scalars of NumPy": ([np.float32(1), np.float32(2)], torch.tensor([1.0, 2.0], dtype=torch.float32)),
    "bools of NumPy": ([np.bool_(True), np.bool_(False)], torch.tensor([True, False])),
    "floats": ([1.5, 2.5], torch.tensor([1.5, 2.5], dtype=torch.float64)),
    "a float and an int": ([1.5, 2], torch.tensor([1.5, 2.0], dtype=torch.float64)),
    "ints": ([1, 2], ints),
    "bools": ([True, False], torch.tensor([True, False])),
    "an int and a float": ([1, 2.5], torch.tensor([1.0, 2.5], dtype=torch.float32)),
    "texts": (["a", "b"], ["a", "b"]),
    "bytes": ([b"a", b"b"], [b"a", b"b"]),
    "texts of NumPy": ([np.str_("a"), np.str_("b")], [np.str_("a"), np.str_("b")]),
    "dicts": ([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], {"a": ints, "b": ["x", "y"]}),
    "dicts of which later ones have more": ([{"a": 1}, {"b": 3, "a": 2}], {"a": ints}),
    "ordered dicts": ([OrderedDict(b=1, a=1), OrderedDict(b=2, a=2)], OrderedDict(b=ints, a=ints)),
    "default dicts": ([defaultdict(int, a=1), defaultdict(int, a=2)], defaultdict(int, a=ints)),
    "user dicts": ([UserDict(a=1), UserDict(a=2)], UserDict(a=ints)),
    "named tuples": ([Pair(1, "x"), Pair(2, "y")], Pair(ints, ("x", "y"))),
    "tuples": ([(1, "x"), (2, "y")], [ints, ("x", "y")]),
    "lists": ([[1, "x"], [2, "y"]], [ints, ("x", "y")]),
    "user lists": ([UserList([1]), UserList([2])], UserList([ints])),
    "ranges": ([range(2), range(2)], [torch.tensor([0, 0]), torch.tensor([1, 1])]),
    "tuples in dicts in lists": ([[{"a": (1, 1)}], [{"a": (2, 2)}]], [{"a": [ints, ints]}]),
    "empty containers": ([{"a": [], "b": ()}] * 2, {"a": [], "b": []}),
}


@pytest.mark.parametrize("name", list(COLLATED))
def test_default_collate_makes_of_samples(kind: Any, workers: int, name: str) -> None:
    samples, expected = COLLATED[name]
    found = collated(kind, samples, workers)
    assert equal(found, expected), found


def test_tensors_of_ints_before_tensors_of_floats_are_promoted_without_workers_and_refused_in_a_worker(
    kind: Any, workers: int
) -> None:
    samples = [torch.tensor(1), torch.tensor(2.5)]
    if workers:
        with pytest.raises(TypeError, match="can't be cast to the desired output type Long"):
            collated(kind, samples, workers)
    else:
        assert equal(collated(kind, samples, workers), torch.tensor([1.0, 2.5]))


def test_default_collate_keeps_mappings_and_lists_of_ones_own_with_their_attributes(kind: Any, workers: int) -> None:
    found = collated(kind, [tagged([1, "x"]), tagged([2, "y"])], workers)
    assert (type(found), found.tag) == (Tagged, "kept")
    assert equal(list(found), [ints, ("x", "y")])
    frozen = collated(kind, [Frozen({"a": 1}), Frozen({"a": 2})], workers)
    assert equal(frozen, Frozen({"a": ints}))
    assert equal(collated(kind, [Stubborn(a=1), Stubborn(a=2)], workers), {"a": ints})


class Thing:
    pass


def sparse() -> torch.Tensor:
    """Made when it is asked for: torch warns of it."""
    return torch.eye(2).to_sparse_csr()


UNFITTING: dict[str, tuple[list[Any], type[Exception], str]] = {
    "none": ([None], TypeError, UNFIT.format("<class 'NoneType'>")),
    "an object": ([Thing()], TypeError, UNFIT.format("<class 'test_collate_convert.Thing'>")),
    "a complex number": ([1j], TypeError, UNFIT.format("<class 'complex'>")),
    "a set": ([{1}], TypeError, UNFIT.format("<class 'set'>")),
    "a date of NumPy": ([np.datetime64("2026-01-01")], TypeError, UNFIT.format("<class 'numpy.datetime64'>")),
    "a date": ([dt.date(2026, 1, 1)], TypeError, UNFIT.format("<class 'datetime.date'>")),
    "an array of texts": ([np.array(["a"])], TypeError, UNFIT.format("<U1")),
    "an array of objects": ([np.array([None])], TypeError, UNFIT.format("object")),
    "tensors of different shapes": ([torch.ones(2), torch.ones(3)], RuntimeError, "stack expects each tensor"),
    "lists of different lengths": ([[1], [1, 2]], RuntimeError, "each element in list of batch should be of equal"),
    "tuples of different lengths": ([(1,), (1, 2)], RuntimeError, "each element in list of batch should be of equal"),
    "a missing key": ([{"a": 1}, {}], KeyError, "a"),
    "a large int": ([2**70], ValueError, "Overflow when unpacking long"),
    "a nested tensor": (
        [torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged)],
        RuntimeError,
        "Batches of nested tensors are not currently supported by the default collate_fn",
    ),
    "a sparse tensor": (
        [torch.eye(2).to_sparse()],
        RuntimeError,
        "Batches of sparse tensors are not currently supported by the default collate_fn",
    ),
    "a compressed sparse tensor": (
        [sparse],
        RuntimeError,
        "Batches of sparse tensors are not currently supported by the default collate_fn",
    ),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("name", list(UNFITTING))
def test_default_collate_refuses(kind: Any, workers: int, name: str) -> None:
    samples, error, text = UNFITTING[name]
    samples = [sample() if sample is sparse else sample for sample in samples]
    with pytest.raises(error) as refused:
        collated(kind, samples, workers)
    assert text in str(refused.value)


def test_default_collate_refuses_an_empty_batch(kind: Any, workers: int) -> None:
    with pytest.raises(IndexError):
        list(kind([1], batch_sampler=[[]], num_workers=workers))


CONVERTED: dict[str, tuple[Any, Any]] = {
    "a tensor": (torch.tensor([1]), torch.tensor([1])),
    "an array": (np.array([1, 2]), ints),
    "a scalar of NumPy": (np.float32(2), torch.tensor(2, dtype=torch.float32)),
    "an array of texts": (np.array(["a"]), np.array(["a"])),
    "an array of objects": (np.array([None, 1]), np.array([None, 1])),
    "a text of NumPy": (np.str_("a"), np.str_("a")),
    "an int": (3, 3),
    "a float": (2.5, 2.5),
    "a text": ("a", "a"),
    "none": (None, None),
    "a set": ({1}, {1}),
    "a dict": ({"a": np.array([1, 2]), "b": 1}, {"a": ints, "b": 1}),
    "a named tuple": (Pair(np.array([1, 2]), "x"), Pair(ints, "x")),
    "a tuple": ((np.array([1, 2]), 1), [ints, 1]),
    "a list": ([np.array([1, 2]), [1]], [ints, [1]]),
    "a user list": (UserList([np.array([1, 2])]), UserList([ints])),
    "a range": (range(2), [0, 1]),
    "a deque": (deque([1, 2]), deque([1, 2])),
}


@pytest.mark.parametrize("name", list(CONVERTED))
def test_without_batches_default_convert_makes_of(kind: Any, workers: int, name: str) -> None:
    sample, expected = CONVERTED[name]
    found = converted(kind, sample, workers)
    assert equal(found, expected), found


def test_default_convert_and_default_collate_can_be_given_and_called(kind: Any, workers: int) -> None:
    (found,) = kind([np.array([1, 2])], batch_size=None, collate_fn=default_convert, num_workers=workers)
    assert equal(found, ints)
    (found,) = kind([1, 2], batch_size=2, collate_fn=default_collate, num_workers=workers)
    assert equal(found, ints)
    (found,) = kind([1, 2], batch_size=2, collate_fn=lambda some: {"x": default_collate(some)}, num_workers=workers)
    assert equal(found, {"x": ints})


# -- The registry


def _total(batch: Any, *, collate_fn_map: Any = None) -> int:
    return sum(batch)


class Mine:
    def __init__(self, number: int) -> None:
        self.number = number


class MineToo(Mine):
    pass


def _numbers(batch: list[Mine], *, collate_fn_map: Any) -> Any:
    return torch_collate.collate([one.number for one in batch], collate_fn_map=collate_fn_map)


def test_a_function_put_into_the_registry_collates_its_type_and_subclasses(
    kind: Any, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(torch_collate.default_collate_fn_map, Mine, _numbers)
    assert equal(collated(kind, [Mine(1), Mine(2)], workers), ints)
    assert equal(collated(kind, [{"a": MineToo(1)}, {"a": MineToo(2)}], workers), {"a": ints})
    assert torch_collate.default_collate_fn_map[Mine] is _numbers


def test_a_function_of_the_registry_can_be_replaced(kind: Any, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(torch_collate.default_collate_fn_map, int, _total)
    assert collated(kind, [1, 2, 3], workers) == 6
    assert collated(kind, [(1, 1.5), (2, 1.5)], workers)[0] == 3


def _stack_twice(batch: Any, *, collate_fn_map: Any = None) -> Any:
    return torch.stack([*batch, *batch])


@pytest.mark.parametrize("key", [torch.Tensor, np.ndarray])
def test_the_functions_for_tensors_and_arrays_can_be_replaced(
    kind: Any, workers: int, monkeypatch: pytest.MonkeyPatch, key: Any
) -> None:
    monkeypatch.setitem(torch_collate.default_collate_fn_map, torch.Tensor, _stack_twice)
    sample = torch.tensor(3) if key is torch.Tensor else np.array(3)
    assert equal(collated(kind, [sample], workers), torch.tensor([3, 3]))


def _learn(_: int) -> None:
    torch_collate.default_collate_fn_map[int] = _total


def test_a_function_that_a_worker_registers_counts_in_that_worker(kind: Any, workers: int) -> None:
    if workers:
        (batch,) = kind([1, 2, 3], batch_size=3, num_workers=1, worker_init_fn=_learn)
        assert batch == 6
    assert torch_collate.default_collate_fn_map[int] is torch_collate.collate_int_fn


def test_a_registry_of_ones_own_can_be_used_by_a_collate_fn(kind: Any, workers: int) -> None:
    def collate(batch: Any) -> Any:
        return torch_collate.collate(batch, collate_fn_map={int: _total})

    (batch,) = kind([(1, 2), (3, 4)], batch_size=2, collate_fn=collate, num_workers=workers)
    assert batch == [4, 6]


# -- Memory


@differs(
    "batches travel in Forebay's own memory; a tensor that is sent on to another process is copied once",
    torch="tensors from workers are in torch's shared memory: `is_shared()` is True",
    ours="`is_shared()` is False",
)
def test_where_the_tensors_of_a_worker_are(kind: Any, stock: bool, workers: int) -> None:
    batch = collated(kind, [torch.ones(3000), torch.ones(3000)], workers)
    assert batch.is_shared() == (stock and workers > 0)
    assert batch.share_memory_().is_shared()


def test_in_whatever_is_a_worker_default_collate_allocates_shared_memory(
    kind: Any, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    del kind
    if workers:
        monkeypatch.setattr(torch_worker, "_worker_info", "anything")
        assert get_worker_info() == "anything"
    assert default_collate([torch.ones(2)]).is_shared() == bool(workers)
    assert default_collate([{"a": np.ones(2)}])["a"].is_shared() == bool(workers)
