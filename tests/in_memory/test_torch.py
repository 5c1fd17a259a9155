"""Datasets that are in memory as tensors or arrays: batches are gathered, and nobody can tell that from torch's."""

import copy
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data as stock
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import RandomSampler, StackDataset, Subset, SubsetRandomSampler, TensorDataset, default_collate
from torch.utils.data._utils import collate as torch_collate

import forebay.torch
from forebay.torch import _gather
from likeness import Failure, assert_same

# Torch warns of arrays that are not writable, of quantized tensors and others, in both loaders.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

COUNT = 12
TENSOR_DTYPES = tuple(_gather._DTYPES)
ARRAY_DTYPES = tuple("?bBhHiIlqefdFD")


def outcomes(batches: Any) -> list[Any]:
    """The batches of an epoch; an exception in the place of that which raised it."""
    found: list[Any] = []
    iterator = iter(batches)
    while True:
        try:
            found.append(next(iterator))
        except StopIteration:
            return found
        except Exception as error:  # noqa: BLE001 - whatever a dataset raises
            found.append(Failure(error))


def assert_as_torch(dataset: Any, batches: Sequence[Any], workers: int = 0) -> None:
    options: dict[str, Any] = {"batch_sampler": batches, "num_workers": workers}
    ours = outcomes(forebay.torch.DataLoader(dataset, **options))
    theirs = outcomes(stock.DataLoader(dataset, **options))
    assert_same(ours, theirs)
    assert [storage_bytes(batch) for batch in ours] == [storage_bytes(batch) for batch in theirs]


def storage_bytes(batch: Any) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.untyped_storage().nbytes()
    leaves = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list) else ()
    return [storage_bytes(leaf) for leaf in leaves]


def is_gathered(dataset: Any, indices: Any) -> bool:
    return _gather.Gather()(dataset, indices) is not None


# -- What there is: tensors and arrays of all kinds, and datasets made of them


def random_bytes(seed: int, count: int) -> bytearray:
    return bytearray(np.random.default_rng(seed).bytes(count))


def tensor_of(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Any bits: nans of all kinds, and zeros of either sign, are among them."""
    elements = int(np.prod(shape, dtype=int))
    if dtype is torch.bool:
        return torch.from_numpy(np.random.default_rng(seed).integers(0, 2, shape).astype(bool))
    size = torch.empty((), dtype=dtype).element_size()
    if elements == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(random_bytes(seed, elements * size), dtype=dtype).reshape(shape)


def array_of(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    elements = int(np.prod(shape, dtype=int))
    if dtype == "?":
        return np.random.default_rng(seed).integers(0, 2, shape).astype(bool)
    return np.frombuffer(random_bytes(seed, elements * np.dtype(dtype).itemsize), dtype).reshape(shape)


shapes = st.lists(st.integers(1, 3), max_size=4).map(tuple)
seeds = st.integers(0, 2**32 - 1)


def _rearranged(tensor: torch.Tensor, how: str) -> torch.Tensor:
    """The same number of samples, lying in memory in another way."""
    if how == "every other":
        return tensor.repeat_interleave(2, 0)[::2]
    if how == "all one":
        return tensor[:1].expand(tensor.shape)
    if how == "transposed" and tensor.dim() > 2:
        return tensor.transpose(1, -1)
    if how == "padded" and tensor.dim() > 1:
        return torch.cat([tensor, tensor], -1)[..., : tensor.shape[-1]]
    if how == "channels last" and tensor.dim() == 4:
        return tensor.to(memory_format=torch.channels_last)
    if how == "first axis last":
        return tensor.movedim(0, -1).contiguous().movedim(-1, 0)
    return tensor


@st.composite
def tensors(draw: Callable[..., Any]) -> torch.Tensor:
    tensor = tensor_of(draw(st.sampled_from(TENSOR_DTYPES)), (COUNT, *draw(shapes)), draw(seeds))
    ways = ("as it is", "every other", "all one", "transposed", "padded", "channels last", "first axis last")
    return _rearranged(tensor, draw(st.sampled_from(ways)))


@st.composite
def arrays(draw: Callable[..., Any]) -> np.ndarray[Any, Any]:
    array = array_of(draw(st.sampled_from(ARRAY_DTYPES)), (COUNT, *draw(shapes)), draw(seeds))
    turned = draw(st.sampled_from(("C", "F", "reversed", "swapped")))
    if turned == "reversed":
        return array[::-1]
    if turned == "swapped":
        return array.astype(array.dtype.newbyteorder())
    return np.asarray(array, order=turned)


places = st.integers(0, COUNT - 1)
any_index = st.one_of(places, st.integers(-COUNT, -1), st.integers(-COUNT - 2, COUNT + 1), places.map(np.int64))


def subsets(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    order = st.lists(places, min_size=COUNT, max_size=COUNT)
    kinds = st.sampled_from((list, tuple, np.array, torch.tensor, lambda _: range(COUNT)))
    return st.builds(lambda part, chosen, kind: Subset(part, kind(chosen)), parts, order, kinds)


leaves = tensors() | arrays() | st.lists(tensors(), min_size=1, max_size=3).map(lambda parts: TensorDataset(*parts))
datasets = st.recursive(
    leaves,
    lambda parts: (
        subsets(parts)
        | st.lists(parts, min_size=1, max_size=2).map(lambda some: StackDataset(*some))
        | st.dictionaries(st.sampled_from("abc"), parts, min_size=1, max_size=2).map(lambda some: StackDataset(**some))
    ),
    max_leaves=4,
)


# -- The laws


@given(dataset=datasets, batches=st.lists(st.lists(places, min_size=1, max_size=5), min_size=1, max_size=3))
def test_batches_are_torchs_bit_for_bit(dataset: Any, batches: list[list[int]]) -> None:
    assert_as_torch(dataset, batches)


@given(dataset=datasets, batches=st.lists(st.lists(any_index, max_size=4), min_size=1, max_size=3))
def test_whatever_the_indices_batches_and_errors_are_torchs(dataset: Any, batches: list[list[Any]]) -> None:
    assert_as_torch(dataset, batches)


PLAIN = {
    "tensor": lambda: torch.arange(24).reshape(12, 2),
    "tensor of numbers": lambda: torch.arange(12.0),
    "array": lambda: np.arange(24).reshape(12, 2),
    "array of numbers": lambda: np.arange(12, dtype=np.float32),
    "tensor dataset": lambda: TensorDataset(torch.rand(12, 3, 2), torch.arange(12)),
    "subset": lambda: Subset(TensorDataset(torch.rand(12, 3)), list(range(11, -1, -1))),
    "subset by an array": lambda: Subset(torch.rand(12, 3), np.arange(11, -1, -1)),
    "subset of a subset": lambda: Subset(Subset(torch.rand(12, 3), range(12)), tuple(range(12))),
    "tuples": lambda: StackDataset(torch.rand(12, 3), TensorDataset(torch.arange(12))),
    "dicts": lambda: StackDataset(image=np.ones((12, 3)), label=torch.arange(12)),
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_plain_datasets_are_gathered_with_any_number_of_workers(name: str, workers: int) -> None:
    dataset = PLAIN[name]()
    assert is_gathered(dataset, [3, 1, 3])
    assert_as_torch(dataset, [[3, 1, 3], [0], [11, -1], [5, 12], list(range(12))], workers)


def test_an_array_in_a_file_is_gathered(tmp_path: Path) -> None:
    np.arange(24, dtype=np.int16).reshape(12, 2).tofile(tmp_path / "numbers")
    for mode in ("r+", "c"):
        dataset = np.memmap(tmp_path / "numbers", np.int16, mode, shape=(12, 2))
        assert is_gathered(dataset, [3, 1])
        assert_as_torch(dataset, [[3, 1], [5]])


class Sevens(torch.Tensor):
    """Whatever is asked for, a sample is seven."""

    def __getitem__(self, index: Any) -> Any:
        return torch.tensor(7)


class Tens(TensorDataset):
    def __getitem__(self, index: Any) -> Any:
        return (torch.tensor(10),)


def _given_bulk(dataset: Any) -> Any:
    dataset.__getitems__ = lambda indices: [torch.tensor(len(indices))] * 2
    return dataset


UNUSUAL: dict[str, Callable[[], Any]] = {
    "a subclass of tensors": lambda: torch.arange(12).as_subclass(Sevens),
    "a subclass of arrays": lambda: np.ma.masked_array(np.arange(24).reshape(12, 2), mask=np.eye(12, 2)),
    "a subclass of a dataset": lambda: Tens(torch.arange(12)),
    "a tensor dataset of a subclass": lambda: TensorDataset(torch.arange(12).as_subclass(Sevens)),
    "a parameter": lambda: torch.nn.Parameter(torch.ones(12, 2)),
    "a tensor with a gradient": lambda: torch.ones(12, 2, requires_grad=True),
    "a part of a graph": lambda: torch.ones(12, 2, requires_grad=True) * 2,
    "a conjugate": lambda: torch.rand(12, 2, dtype=torch.complex64).conj(),
    "a negative": lambda: torch.rand(12, 2, dtype=torch.complex64).conj().imag,
    "a sparse tensor": lambda: torch.eye(12).to_sparse(),
    "a quantized tensor": lambda: torch.quantize_per_tensor(torch.rand(12, 2), 0.1, 0, torch.quint8),
    "a single number": lambda: torch.tensor(7),
    "samples without elements": lambda: torch.empty(12, 0),
    "no samples": lambda: torch.empty(0, 2),
    "dates": lambda: np.arange(12).astype("M8[D]"),
    "texts": lambda: np.array(["a"] * 12),
    "objects": lambda: np.array([None] * 12),
    "records": lambda: np.zeros((12, 2), [("a", int)]),
    "wide floats": lambda: np.zeros((12, 2), np.longdouble),
    "a list in a stack": lambda: StackDataset([1.5] * 12, torch.arange(12)),
    "a bulk method of a dataset's own": lambda: _given_bulk(TensorDataset(torch.arange(12))),
    "a bulk method of a tensor's own": lambda: _given_bulk(torch.arange(12)),
    "a subset of what has one": lambda: Subset(_given_bulk(TensorDataset(torch.arange(12))), range(12)),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_not_plain_goes_the_ordinary_way(name: str) -> None:
    dataset = UNUSUAL[name]()
    assert not is_gathered(dataset, [3, 1])
    assert_as_torch(dataset, [[3, 1], [0, 2]])


INDICES: dict[str, Any] = {
    "truths": [True, False],
    "NumPy's integers": [np.int64(1), np.int64(2)],
    "tensors": [torch.tensor(1), torch.tensor(2)],
    "slices": [slice(0, 2), slice(2, 4)],
    "lists": [[0, 1], [2, 3]],
    "numbers beyond 64 bits": [0, 2**70],
    "fractions": [0, 1.5],
    "None": [None, None],
    "nothing": [],
    "a tuple": (1, 2),
    "a tensor": torch.tensor([1, 2]),
    "an array": np.array([1, 2]),
    "a text": "12",
}


@pytest.mark.parametrize("kind", INDICES)
@pytest.mark.parametrize("name", ["tensor", "array", "tensor dataset", "subset", "subset by an array", "dicts"])
def test_indices_other_than_lists_of_plain_integers_go_the_ordinary_way(kind: str, name: str) -> None:
    dataset = PLAIN[name]()
    assert not is_gathered(dataset, INDICES[kind])
    assert_as_torch(dataset, [INDICES[kind], [0, 1]])


def test_a_tensor_on_another_device_stays_there() -> None:
    (batch,) = forebay.torch.DataLoader(torch.empty(4, 2, device="meta"), batch_size=4)
    assert batch.device.type == "meta"


def test_what_a_program_does_to_its_data_shows_in_the_next_batch() -> None:
    def changes(dataset: TensorDataset) -> Iterator[None]:
        data = dataset.tensors[0]
        data.add_(1)
        yield
        dataset.tensors = (data, data)
        yield
        data.resize_(4, 2)
        yield
        data.requires_grad_()
        yield
        dataset.tensors = (torch.ones(4, 3), torch.zeros(1))
        yield
        dataset.tensors = ()
        yield
        dataset.__dict__["__getitems__"] = lambda indices: [torch.tensor(7) for _ in indices]
        yield

    found = []
    for kind in (forebay.torch.DataLoader, stock.DataLoader):
        dataset = TensorDataset(torch.arange(24.0).reshape(12, 2))
        iterator = iter(kind(dataset, batch_sampler=[[0, 1]] * 8))
        batches: list[Any] = [next(iterator)]
        for _ in changes(dataset):
            batches += outcomes(itertools.islice(iterator, 1))
        found.append(batches)
    assert len(found[0]) == 8
    assert_same(*found)


def test_a_change_of_the_registry_shows_in_the_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    iterator = iter(forebay.torch.DataLoader(torch.arange(4), batch_size=2))
    assert torch.equal(next(iterator), torch.tensor([0, 1]))
    monkeypatch.setitem(torch_collate.default_collate_fn_map, torch.Tensor, lambda batch, collate_fn_map: len(batch))
    assert next(iterator) == 2


def test_a_replaced_method_of_a_class_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    iterator = iter(forebay.torch.DataLoader(TensorDataset(torch.arange(6)), batch_size=2))
    next(iterator)
    monkeypatch.setattr(TensorDataset, "__getitem__", lambda _, index: -index)
    assert torch.equal(next(iterator), torch.tensor([-2, -3]))
    monkeypatch.setattr(TensorDataset, "__getitems__", lambda _, indices: [sum(indices)], raising=False)
    assert torch.equal(next(iterator), torch.tensor([9]))


def test_a_collate_fn_of_the_users_own_is_called_with_samples() -> None:
    batches = list(forebay.torch.DataLoader(torch.arange(4), batch_size=2, collate_fn=list))
    assert [type(batch) for batch in batches] == [list, list]
    again = list(forebay.torch.DataLoader(torch.arange(4), batch_size=2, collate_fn=lambda some: default_collate(some)))
    assert torch.equal(again[1], torch.tensor([2, 3]))


@pytest.mark.parametrize("name", PLAIN)
def test_a_sample_without_automatic_batching_is_torchs(name: str) -> None:
    dataset = PLAIN[name]()
    for sampler, collate_fn in itertools.product(([3, 1], [[3, 1], [2]]), (None, default_collate)):
        options: dict[str, Any] = {"batch_size": None, "sampler": sampler, "collate_fn": collate_fn}
        ours = outcomes(forebay.torch.DataLoader(dataset, **options))
        assert_same(ours, outcomes(stock.DataLoader(dataset, **options)))


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("indices", [[0], [0, 1, 2], list(range(12))])
def test_a_batch_never_stands_on_the_datasets_memory(name: str, indices: list[int]) -> None:
    dataset = PLAIN[name]()
    before = copy.deepcopy(default_collate([dataset[index] for index in indices]))
    (batch,) = forebay.torch.DataLoader(dataset, batch_sampler=[indices])
    _fill(batch)
    assert_same(default_collate([dataset[index] for index in indices]), before)


def _fill(batch: Any) -> None:
    if isinstance(batch, torch.Tensor):
        batch.fill_(99)
        return
    for leaf in batch.values() if isinstance(batch, dict) else batch:
        _fill(leaf)


@pytest.mark.parametrize("dataset", [np.ones((4, 2)), torch.ones(4, 2)])
def test_a_default_device_has_its_say(dataset: Any) -> None:
    iterators = [iter(kind(dataset, batch_size=4)) for kind in (forebay.torch.DataLoader, stock.DataLoader)]
    with torch.device("meta"):
        ours, theirs = map(next, iterators)
    assert ours.device == theirs.device
    assert (ours.device.type == "meta") == isinstance(dataset, np.ndarray)


def test_inside_a_worker_batches_are_made_as_torch_makes_them_there(monkeypatch: pytest.MonkeyPatch) -> None:
    (batch,) = forebay.torch.DataLoader(torch.arange(4), batch_size=4)
    assert not batch.is_shared()
    monkeypatch.setattr(stock._utils.worker, "_worker_info", object())
    (batch,) = forebay.torch.DataLoader(torch.arange(4), batch_size=4)
    assert batch.is_shared()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_index_out_of_range_in_a_worker_is_named(workers: int) -> None:
    found = outcomes(
        forebay.torch.DataLoader(TensorDataset(torch.arange(4)), batch_sampler=[[0], [1, 9]], num_workers=workers)
    )
    assert isinstance(found[1], Failure)
    notes = " ".join(found[1].error.__notes__)
    assert "batch 1, sample index 9" in notes
    assert "the sampler gave 9, but the dataset has 4 samples" in notes


def test_large_samples_are_not_copied_twice_in_workers() -> None:
    from forebay.torch._front import _MOST_GATHERED_ROW_BYTES

    gather = _gather.Gather(_MOST_GATHERED_ROW_BYTES)
    assert gather(torch.zeros(4, _MOST_GATHERED_ROW_BYTES, dtype=torch.uint8), [0]) is not None
    assert gather(torch.zeros(4, _MOST_GATHERED_ROW_BYTES + 1, dtype=torch.uint8), [0]) is None


# -- The iterator


def test_without_a_profiler_nothing_is_recorded_and_with_one_the_name_is_torchs() -> None:
    names = []
    for kind in (forebay.torch.DataLoader, stock.DataLoader):
        iterator = iter(kind(torch.arange(4), batch_size=2))
        next(iterator)
        with torch.autograd.profiler.profile() as profile:
            next(iterator)
        names.append({event.name for event in profile.function_events if "DataLoader" in event.name})
    assert names[0] == names[1] != set()


@dataclass
class Counting:
    """A sampler that tells how far it was read."""

    drawn: int = 0

    def __iter__(self) -> Iterator[int]:
        for index in range(6):
            self.drawn += 1
            yield index


def test_indices_are_drawn_when_a_batch_is_asked_for() -> None:
    sampler = Counting()
    iterator = iter(forebay.torch.DataLoader(torch.arange(6), batch_size=2, sampler=sampler))
    assert sampler.drawn == 0
    for number in (1, 2, 3):
        next(iterator)
        assert sampler.drawn == 2 * number
        assert iterator._num_yielded == number


def watched_epochs(kind: Any, generator: torch.Generator | None, **options: Any) -> list[Any]:
    """Two epochs: every batch, and where each random stream stands after it."""
    loader = kind(TensorDataset(torch.arange(options.pop("count"))), generator=generator, **options)
    found: list[Any] = []
    for _ in range(2):
        iterator = iter(loader)
        for batch in itertools.chain(iterator, [None]):
            streams = [torch.get_rng_state(), generator and generator.get_state()]
            found.append((batch, streams))
    return found


@given(
    count=st.integers(1, 30),
    batch_size=st.integers(1, 12),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    own=st.booleans(),
)
def test_an_epochs_batches_and_all_random_streams_are_torchs_at_every_batch(
    count: int, batch_size: int, drop_last: bool, shuffle: bool, own: bool
) -> None:
    found = []
    for kind in (forebay.torch.DataLoader, stock.DataLoader):
        torch.manual_seed(count)
        generator = torch.Generator().manual_seed(batch_size) if own else None
        options = {"batch_size": batch_size, "drop_last": drop_last, "shuffle": shuffle}
        found.append(watched_epochs(kind, generator, count=count, **options))
    assert_same(*found)


class Backwards(RandomSampler):
    """Draws nothing."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source) - 1, -1, -1))


@pytest.mark.parametrize(
    "sampler",
    [
        Backwards(range(9)),
        RandomSampler(range(9), replacement=True, generator=torch.Generator()),
        RandomSampler(range(9), num_samples=20, generator=torch.Generator()),
        RandomSampler(range(9), num_samples=4, generator=torch.Generator()),
        SubsetRandomSampler([3, 1, 2], generator=torch.Generator()),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_samplers_that_give_no_plain_permutation_are_asked_themselves(sampler: Any) -> None:
    found = []
    for kind in (forebay.torch.DataLoader, stock.DataLoader):
        if hasattr(sampler, "generator"):
            (sampler.generator or torch.default_generator).manual_seed(0)
        found.append(list(kind(torch.arange(9), batch_size=2, sampler=sampler)))
    assert_same(*found)


def test_a_sampler_whose_class_was_changed_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RandomSampler, "__iter__", lambda _self: iter([2, 0, 1]))
    loader = forebay.torch.DataLoader(torch.arange(3), batch_size=3, shuffle=True)
    assert [batch.tolist() for batch in loader] == [[2, 0, 1]]


def test_what_looks_at_an_iterators_indices_sees_lists() -> None:
    iterator = iter(forebay.torch.DataLoader(torch.arange(5), batch_size=2))
    assert iterator._next_index() == [0, 1]
    assert next(iterator).tolist() == [2, 3]


def test_a_dataset_within_is_asked_by_numbers_where_batches_cannot_be_gathered() -> None:
    class Typed:
        def __getitem__(self, index: Any) -> str:
            return type(index).__name__

        def __len__(self) -> int:
            return 4

    loader = forebay.torch.DataLoader(Subset(Typed(), range(4)), batch_size=4, shuffle=True)  # type: ignore[arg-type]
    assert list(loader) == [["int"] * 4]


class Endless(stock.IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(5))

    def __len__(self) -> int:
        return 3


def test_a_stream_that_gives_more_than_its_length_is_warned_of_as_by_torch() -> None:
    texts = []
    for kind in (forebay.torch.DataLoader, stock.DataLoader):
        loader = kind(Endless(), batch_size=None)
        assert len(loader) == 3
        with pytest.warns(UserWarning, match="samples have been fetched") as record:
            assert list(loader) == [0, 1, 2, 3, 4]
        texts.append([str(each.message).replace(repr(loader.dataset), "") for each in record])
    assert texts[0] == texts[1]
    assert len(texts[0]) == 2


def test_a_saved_batch_takes_no_more_than_its_bytes() -> None:
    (batch,) = forebay.torch.DataLoader(torch.zeros(1000, 1000, dtype=torch.uint8), batch_sampler=[[1]])
    file = io.BytesIO()
    torch.save(batch, file)
    assert file.tell() < 10_000
