"""Batches equal torch's, bit for bit, and so does what loading them does to the program's random streams."""

import copyreg
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st
from samples import LEAVES, RETURNS, Pair

from forebay.torch import DataLoader
from likeness import Failure, assert_same
from support import Grown

# Read-only arrays, nested tensors and others make torch warn, in both loaders; that is not what is compared here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# Every example starts processes: a failing one is shown as it was found.
loading = settings(max_examples=100, phases=[Phase.explicit, Phase.generate])


class Made(Grown):
    leaves = LEAVES


class MadeAtOnce(Made):
    def __getitems__(self, indices: list[Any]) -> list[Any]:
        return [self[index] for index in indices]


class OneOfEach:
    """The sample of index `(name, i)` is `LEAVES[name](i)`."""

    def __getitem__(self, index: tuple[str, int]) -> Any:
        name, number = index
        return LEAVES[name](number)


class Names:
    """The sample of index `name` is the name."""

    def __getitem__(self, name: str) -> str:
        return name


def returned(samples: list[str]) -> Any:
    return RETURNS[samples[0]]()


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def outcomes(iterator: Iterator[Any], limit: int | None = None) -> list[Any]:
    """What an epoch gives, exceptions in their batches' places; at most `limit` of it."""
    found: list[Any] = []
    while limit is None or len(found) < limit:
        try:
            found.append(next(iterator))
        except StopIteration:
            break
        except Exception as error:  # noqa: BLE001 - it is what is compared
            # Without its frames, which would keep the iterator, and torch's workers take seconds to end by themselves.
            found.append(Failure(error.with_traceback(None)))
    return found


def end(iterator: Any) -> None:
    """Ends an iterator's workers now."""
    if hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()


def both(dataset: Any, **options: Any) -> tuple[list[Any], list[Any]]:
    """One epoch by each loader."""
    found = []
    for kind in (DataLoader, torch.utils.data.DataLoader):
        seed_all(1)
        iterator = iter(kind(dataset, **options))
        found.append(outcomes(iterator))
        end(iterator)
    ours, theirs = found
    assert len(ours) == len(theirs)
    return ours, theirs


@pytest.fixture(scope="module", params=[1, 2], ids="{} workers".format)
def collated(request: pytest.FixtureRequest) -> dict[str, tuple[Any, Any]]:
    """Every leaf collated by both loaders: all in one epoch, since processes cost more than batches."""
    names = [name for name in LEAVES if name != "stop iteration"]
    batches = [[(name, index) for index in range(5)] for name in names]
    ours, theirs = both(OneOfEach(), batch_sampler=batches, num_workers=request.param)
    return {name: pair for name, *pair in zip(names, ours, theirs, strict=True)}


def _wrapping(samples: list[Any]) -> Any:
    return torch.utils.data.default_collate(samples), len(samples)


@pytest.fixture(scope="module")
def wrapped() -> dict[str, tuple[Any, Any]]:
    """Every leaf collated by a collate_fn that calls torch's own."""
    names = [name for name in LEAVES if name != "stop iteration"]
    batches = [[(name, index) for index in range(5)] for name in names]
    ours, theirs = both(OneOfEach(), batch_sampler=batches, collate_fn=_wrapping, num_workers=1)
    return {name: pair for name, *pair in zip(names, ours, theirs, strict=True)}


@pytest.fixture(scope="module")
def travelled() -> dict[str, tuple[Any, Any]]:
    """Everything a collate_fn may return, by both loaders."""
    batches = [[name] for name in RETURNS]
    ours, theirs = both(Names(), batch_sampler=batches, collate_fn=returned, num_workers=1)
    return {name: pair for name, *pair in zip(RETURNS, ours, theirs, strict=True)}


@pytest.fixture(scope="module")
def unbatched() -> dict[str, tuple[Any, Any]]:
    """Every leaf without a batch around it, by both loaders."""
    names = [name for name in LEAVES if name not in {"stop iteration", "tensor in a graph"}]
    sampler = [(name, 3) for name in names]
    ours, theirs = both(OneOfEach(), batch_size=None, sampler=sampler, num_workers=1)
    return {name: pair for name, *pair in zip(names, ours, theirs, strict=True)}


@pytest.mark.parametrize("name", [name for name in LEAVES if name != "stop iteration"])
def test_default_collate_in_a_worker_makes_what_torch_makes(name: str, collated: Any) -> None:
    assert_same(*collated[name])


@pytest.mark.parametrize("name", [name for name in LEAVES if name != "stop iteration"])
def test_default_collate_called_by_a_custom_collate_fn_makes_what_it_makes_under_torch(name: str, wrapped: Any) -> None:
    assert_same(*wrapped[name])


@pytest.mark.parametrize("name", list(RETURNS))
def test_whatever_a_collate_fn_returns_arrives_as_it_does_in_torch(name: str, travelled: Any) -> None:
    assert_same(*travelled[name])


@pytest.mark.parametrize("name", [name for name in LEAVES if name not in {"stop iteration", "tensor in a graph"}])
def test_a_sample_without_a_batch_arrives_as_it_does_in_torch(name: str, unbatched: Any) -> None:
    assert_same(*unbatched[name])


@pytest.mark.parametrize("workers", [0, 2])
def test_stop_iteration_in_a_dataset_ends_the_epoch_as_in_torch(workers: int) -> None:
    ours, theirs = both(Made("stop iteration", 4), num_workers=workers)
    assert ours == theirs == []


leaves = st.sampled_from([name for name in LEAVES if name not in {"stop iteration", "nested tensor"}])
trees = st.recursive(
    leaves,
    lambda branches: st.one_of(
        st.lists(branches, max_size=3),
        st.lists(branches, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["a", "b", 3, None]), branches, max_size=3),
        st.builds(Pair, branches, branches),
    ),
    max_leaves=5,
)


@dataclass(frozen=True)
class Plan:
    """How a dataset is read. The arguments are made anew for each loader, from equal seeds."""

    workers: int
    arguments: Callable[[int], dict[str, Any]]
    shown: str
    limits: list[int | None]
    seed: int

    def __repr__(self) -> str:
        return f"{self.workers} workers, {self.shown}, epochs cut at {self.limits}, seed {self.seed}"


def _generator(seed: int | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator().manual_seed(seed)


class Zigzag:
    """A sampler of no class of torch's, which gives NumPy's integers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        for place in range(self.count):
            yield np.int64(place // 2 if place % 2 else self.count - 1 - place // 2)


def orders(count: int, seed: int | None) -> dict[str, Callable[[], dict[str, Any]]]:
    data = torch.utils.data
    return {
        "sequential": dict,
        "shuffled": lambda: {"shuffle": True, "generator": _generator(seed)},
        "with replacement": lambda: {
            "sampler": data.RandomSampler(
                range(count), replacement=True, num_samples=count + 3, generator=_generator(seed)
            )
        },
        "weighted": lambda: {
            "sampler": data.WeightedRandomSampler(torch.arange(1.0, count + 1), count, generator=_generator(seed))
        },
        "subset": lambda: {"sampler": data.SubsetRandomSampler(range(0, count, 2), generator=_generator(seed))},
        "a list": lambda: {"sampler": list(range(count))[::-1]},
        "a custom sampler": lambda: {"sampler": Zigzag(count)},
    }


@st.composite
def plans(draw: Any, count: int) -> Plan:
    workers = draw(st.integers(0, 3))
    generator_seed = draw(st.sampled_from([None, 5]))
    order = draw(st.sampled_from(sorted(orders(count, None))))
    batching = draw(st.sampled_from(["batches", "batches", "dropped last", "batch sampler", "no batches"]))
    batch_size = draw(st.integers(1, 4))
    options: dict[str, Any] = {}
    if workers:
        options["prefetch_factor"] = draw(st.sampled_from([None, 1, 3]))
        options["persistent_workers"] = draw(st.booleans())
    limits = draw(st.lists(st.sampled_from([None, None, 0, 1, 3]), min_size=1, max_size=3))

    def arguments(seed: int) -> dict[str, Any]:
        reading = orders(count, generator_seed)[order]()
        if batching == "batch sampler":
            generator = reading.pop("generator", None)
            sampler = reading.pop("sampler", torch.utils.data.SequentialSampler(range(count)))
            if reading.pop("shuffle", False):
                sampler = torch.utils.data.RandomSampler(range(count), generator=generator)
            reading["batch_sampler"] = torch.utils.data.BatchSampler(sampler, batch_size, False)
        elif batching == "no batches":
            reading["batch_size"] = None
        else:
            reading.update(batch_size=batch_size, drop_last=batching == "dropped last")
        return {**reading, **options, "num_workers": workers}

    shown = f"{order} (generator {generator_seed}), {batching} of {batch_size}, {options}"
    return Plan(workers, arguments, shown, limits, draw(st.integers(0, 2**32 - 1)))


def follow(kind: Any, dataset: Any, plan: Plan) -> tuple[list[list[Any]], dict[str, Any]]:
    """What a loader gives in all epochs of a plan, and the program's random streams afterwards."""
    seed_all(plan.seed)
    arguments = plan.arguments(plan.seed)
    loader = kind(dataset, **arguments)
    epochs = []
    for limit in plan.limits:
        iterator = iter(loader)
        epochs.append(outcomes(iterator, limit))
        if not loader.persistent_workers:
            end(iterator)
    end(iterator)
    generators = [getattr(held, "generator", None) for held in (loader, loader.sampler)]
    streams = {
        "python": random.getstate(),
        "numpy": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "torch": torch.get_rng_state().tolist(),
        "generators": [generator and generator.get_state().tolist() for generator in generators],
    }
    return epochs, streams


def compare(dataset: Any, plan: Plan) -> None:
    note(f"{plan}")
    theirs, their_streams = follow(torch.utils.data.DataLoader, dataset, plan)
    ours, our_streams = follow(DataLoader, dataset, plan)
    assert [len(epoch) for epoch in ours] == [len(epoch) for epoch in theirs]
    for mine, yours in zip(ours, theirs, strict=True):
        for pair in zip(mine, yours, strict=True):
            assert_same(*pair)
    assert our_streams == their_streams


@given(st.data(), trees, st.integers(1, 12), st.booleans())
@loading
def test_batches_equal_torchs_bit_for_bit(data: Any, tree: Any, count: int, at_once: bool) -> None:
    plan = data.draw(plans(count))
    compare((MadeAtOnce if at_once else Made)(tree, count), plan)


random_trees = st.sampled_from(
    ["all random", ["torch's random", "numpy's random"], {"a": "python's random", "b": "int"}]
)


@given(st.data(), random_trees, st.integers(1, 12))
@loading
def test_random_augmentations_draw_the_numbers_they_draw_under_torch(data: Any, tree: Any, count: int) -> None:
    compare(Made(tree, count), data.draw(plans(count)))


class Pieces:
    """Datasets of torch's own classes."""

    def __init__(self) -> None:
        data = torch.utils.data
        tensors = data.TensorDataset(torch.arange(20.0).reshape(10, 2), torch.arange(10))
        self.kinds = {
            "tensors": tensors,
            "subset": data.Subset(tensors, [3, 1, 4, 1, 5]),
            "concatenation": data.ConcatDataset([tensors, tensors]),
            "stack": data.StackDataset(a=tensors, b=list(range(10))),
            "random split": data.random_split(tensors, [7, 3], torch.Generator().manual_seed(1))[0],
            "list": [{"x": number} for number in range(7)],
            "tensor": torch.arange(12.0).reshape(6, 2),
            "array": np.arange(12.0).reshape(6, 2),
        }


@pytest.mark.parametrize("name", list(Pieces().kinds))
def test_torchs_own_datasets_and_plain_collections_load_as_in_torch(name: str) -> None:
    ours, theirs = both(Pieces().kinds[name], batch_size=3, num_workers=2)
    assert_same(ours, theirs)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=12), st.integers(1, 3), st.sampled_from([1, 2, 3]))
@settings(loading, max_examples=15)
def test_ragged_samples_in_a_list_equal_torchs(lengths: list[int], batch_size: int, workers: int) -> None:
    dataset = [torch.arange(length * 1500.0) for length in lengths]
    options = {"batch_size": batch_size, "collate_fn": list, "num_workers": workers}
    ours, theirs = both(dataset, **options)
    assert_same(ours, theirs)


def _upper(batch: Any, *, collate_fn_map: Any = None) -> list[str]:
    return [text.upper() for text in batch]


@pytest.mark.parametrize("tree", ["str", ("str", "int"), {"a": ["str"]}])
def test_a_function_that_users_add_to_torchs_registry_is_used_in_workers(
    tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = torch.utils.data._utils.collate.default_collate_fn_map
    monkeypatch.setitem(registry, str, _upper)
    ours, theirs = both(Made(tree, 4), batch_size=2, num_workers=1)
    assert "NÄME" in repr(ours)
    assert_same(ours, theirs)


def _learn_upper(worker_id: int) -> None:
    torch.utils.data._utils.collate.default_collate_fn_map[str] = _upper


def test_a_function_that_worker_init_fn_adds_to_torchs_registry_is_used() -> None:
    ours, theirs = both(Made("str", 4), batch_size=2, num_workers=1, worker_init_fn=_learn_upper)
    assert "NÄME" in repr(ours)
    assert_same(ours, theirs)
    assert torch.utils.data._utils.collate.default_collate_fn_map[str] is not _upper


class Registered:
    """Pickled by what is registered for it only."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        raise TypeError("register a reducer for me")


def _reduce_registered(registered: Registered) -> Any:
    return Registered, (("reduced", registered.value),)


@pytest.mark.parametrize("registry", ["multiprocessing", "copyreg"])
def test_reducers_that_users_registered_are_used(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = ForkingPickler._extra_reducers if registry == "multiprocessing" else copyreg.dispatch_table
    monkeypatch.setitem(table, Registered, _reduce_registered)
    ours, theirs = both([Registered(torch.arange(2000))], collate_fn=list, num_workers=1)
    assert ours[0][0].value[0] == "reduced"
    assert_same(ours, theirs)


class Views:
    """Tensors whose elements are not what their memory says."""

    numbers = torch.tensor([1 + 2j, 3 - 1j, 0.5 + 1j])

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return [self.numbers.conj(), torch._neg_view(self.numbers)][index]


# torch's own loader refuses to collate these, and forgets the sign of the second.
@pytest.mark.parametrize("index", [0, 1], ids=["conjugated", "negated"])
@pytest.mark.parametrize("collate_fn", [list, tuple, torch.stack], ids=["list", "tuple", "stack"])
def test_a_conjugated_or_negated_tensor_arrives_with_its_values(index: int, collate_fn: Any) -> None:
    (batch,) = DataLoader(Views(), batch_sampler=[[index]], collate_fn=collate_fn, num_workers=1)
    assert batch[0].tolist() == Views()[index].tolist()


@pytest.mark.parametrize("index", [0, 1], ids=["conjugated", "negated"])
def test_a_conjugated_or_negated_sample_arrives_with_its_values(index: int) -> None:
    (sample,) = DataLoader(Views(), batch_size=None, sampler=[index], num_workers=1)
    assert sample.tolist() == Views()[index].tolist()


def test_default_collate_in_a_worker_never_changes_the_values_of_conjugated_tensors() -> None:
    (batch,) = outcomes(iter(DataLoader(Views(), batch_sampler=[[0, 0]], num_workers=1)))
    # torch's own loader refuses; that would do as well.
    assert isinstance(batch, Failure) or batch[1].tolist() == Views()[0].tolist()


class Swapped:
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> np.ndarray:
        return np.arange(3000).astype(">i8")


def test_an_array_of_the_other_byte_order_keeps_it() -> None:
    # torch's own loader, which pickles it as NumPy does by default, changes the order to this machine's.
    (batch,) = DataLoader(Swapped(), collate_fn=list, num_workers=1)
    assert batch[0].dtype == np.dtype(">i8")
    assert np.array_equal(batch[0], np.arange(3000))
