"""Torch's random orders, drawn by the engine: the same indices, and generators that end where torch leaves them."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, RandomSampler
from torch.utils.data import DataLoader as StockDataLoader

from forebay._engine import TorchPermutation, skip_words
from forebay.torch import DataLoader, _permutation

COUNT = 1000
DATA = range(COUNT)


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=60)
@given(
    count=st.one_of(st.integers(0, 3000), st.integers(60_000, 200_000)),
    seed=st.integers(0, 2**64 - 1),
    cut=st.floats(0, 1),
    drawn_before=st.integers(0, 1300),
)
def test_any_rest_of_a_permutation_is_that_of_torch(count: int, seed: int, cut: float, drawn_before: int) -> None:
    theirs = torch.Generator()
    theirs.manual_seed(seed - 2**64 if seed >= 2**63 else seed)
    torch.empty(drawn_before, dtype=torch.int32).random_(generator=theirs)
    state, start = theirs.get_state(), int(count * cut)
    indices = np.empty(count - start, dtype=np.int64)
    TorchPermutation(count, state.numpy(), start).fill(indices)
    assert np.array_equal(indices, torch.randperm(count, generator=theirs)[start:].numpy())
    skip_words(state.numpy(), max(0, count - 1))
    assert torch.equal(state, theirs.get_state())


def test_what_is_no_state_of_a_generator_is_refused() -> None:
    state = seeded().get_state().numpy()
    broken = state.copy()
    broken[8:12] = 255
    for each in (state[:-1], np.zeros_like(state), broken):
        with pytest.raises(ValueError, match="generator has"):
            TorchPermutation(5, each)
        with pytest.raises(ValueError, match="generator has"):
            skip_words(each.copy(), 1)


def test_more_places_than_there_are_and_memory_that_cannot_be_written_are_refused() -> None:
    state = seeded().get_state().numpy()
    with pytest.raises(ValueError, match="from place 6"):
        TorchPermutation(5, state, 6)
    with pytest.raises(ValueError, match="no permutation"):
        TorchPermutation(TorchPermutation.MOST + 1, state)
    permutation, places = TorchPermutation(5, state), np.empty(6, dtype=np.int64)
    with pytest.raises(IndexError, match="6 places of 5 left"):
        permutation.fill(places)
    with pytest.raises(BufferError, match="contiguous, writable"):
        permutation.fill(places[::2])
    places.setflags(write=False)
    with pytest.raises(BufferError, match="contiguous, writable"):
        permutation.fill(places[:5])


SAMPLERS: dict[str, dict[str, Any]] = {
    "all": {},
    "fewer": {"num_samples": 37},
    "more": {"num_samples": 2 * COUNT + 37},
    "twice": {"num_samples": 2 * COUNT},
    "own generator": {"generator": True},
    "fewer, own generator": {"num_samples": 37, "generator": True},
    "more, own generator": {"num_samples": 2 * COUNT + 37, "generator": True},
}

LOADERS: dict[str, dict[str, Any]] = {
    "batches": {"batch_size": 64},
    "whole batches": {"batch_size": 64, "drop_last": True},
    "no batches": {"batch_size": None},
    "less than a batch": {"batch_size": 3 * COUNT},
    "no whole batch": {"batch_size": 3 * COUNT, "drop_last": True},
}


def loader_of(kind: Any, of_sampler: dict[str, Any], of_loader: dict[str, Any], data: Any = DATA, **more: Any) -> Any:
    options = dict(of_sampler)
    if options.pop("generator", False):
        options["generator"] = seeded()
    return kind(data, sampler=RandomSampler(data, **options), **of_loader, **more)


def states_after(loader: Any) -> Iterator[tuple[Any, list[int], list[int]]]:
    """Each batch, and where the generators stand when it is there; the last without a batch."""
    generator = loader.sampler.generator or torch.default_generator
    for _ in range(2):
        for batch in loader:
            yield batch.tolist() if hasattr(batch, "tolist") else batch, *streams(generator)
        yield None, *streams(generator)


def streams(generator: torch.Generator) -> tuple[list[int], list[int]]:
    return torch.get_rng_state().tolist(), generator.get_state().tolist()


@pytest.mark.parametrize("data", [DATA, torch.arange(COUNT)], ids=["any", "in-memory"])
@pytest.mark.parametrize("of_loader", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("of_sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_batches_and_generators_are_torchs_at_every_batch(
    of_sampler: dict[str, Any], of_loader: dict[str, Any], data: Any
) -> None:
    found = []
    for kind in (DataLoader, StockDataLoader):
        torch.manual_seed(11)
        found.append(list(states_after(loader_of(kind, of_sampler, of_loader, data))))
    assert found[0] == found[1]


@pytest.mark.parametrize("of_sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_batches_of_workers_and_generators_after_an_epoch_are_torchs(of_sampler: dict[str, Any]) -> None:
    found = []
    for kind in (DataLoader, StockDataLoader):
        torch.manual_seed(11)
        loader = loader_of(kind, of_sampler, {"batch_size": 64}, num_workers=2)
        found.append(([batch.tolist() for batch in loader], streams(loader.sampler.generator or seeded())))
    assert found[0] == found[1]


@pytest.fixture
def no_randperm(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(count: int, **_: Any) -> Any:
        raise AssertionError(f"torch was asked for a permutation of {count} samples")

    assert _permutation._draws_as_torch()  # asked once
    monkeypatch.setattr(torch, "randperm", refuse)


@pytest.mark.usefixtures("no_randperm")
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("of_sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_torch_is_not_asked_for_a_permutation(of_sampler: dict[str, Any], num_workers: int) -> None:
    loader = loader_of(DataLoader, of_sampler, {"batch_size": 64}, num_workers=num_workers)
    assert sum(map(len, loader)) == loader.sampler.num_samples


@pytest.mark.usefixtures("no_randperm")
def test_an_epoch_goes_on_without_torchs_permutation() -> None:
    torch.manual_seed(11)
    loader = loader_of(DataLoader, {}, {"batch_size": 64})
    epoch = iter(loader)
    next(epoch)
    state = loader.state_dict()
    rest = [batch.tolist() for batch in epoch]
    again = loader_of(DataLoader, {}, {"batch_size": 64})
    again.load_state_dict(state)
    assert [batch.tolist() for batch in again] == rest


def test_where_torch_draws_otherwise_it_draws_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(*_: Any) -> Any:
        raise AssertionError("drawn by the engine")

    expected = list(StockDataLoader(DATA, 64, sampler=RandomSampler(DATA, generator=seeded())))
    monkeypatch.setattr(_permutation, "_drawn", drawn)
    cases = (
        ("_draws_as_torch", lambda: False),
        ("is_watched", lambda: True),
        ("TorchPermutation", SimpleNamespace(MOST=COUNT - 1)),
    )
    for name, value in cases:
        with monkeypatch.context() as patched:
            patched.setattr(_permutation, name, value)
            batches = list(DataLoader(DATA, 64, sampler=RandomSampler(DATA, generator=seeded())))
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(batches, expected, strict=True)), name


def test_another_torch_is_noticed_by_its_order_or_its_states(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = _permutation._draws_as_torch.__wrapped__
    assert ask()
    with monkeypatch.context() as patched:
        patched.setattr(torch, "randperm", lambda count, **_: torch.arange(count))
        assert not ask()
    with monkeypatch.context() as patched:
        patched.setattr(_permutation, "skip_words", lambda *_: None)
        assert not ask()


def test_a_batch_size_that_is_changed_in_an_epoch_counts_as_in_torch() -> None:
    found = []
    for kind in (DataLoader, StockDataLoader):
        sampler = BatchSampler(RandomSampler(DATA, generator=seeded()), 3, False)
        epoch = iter(kind(DATA, batch_sampler=sampler))
        batches = [next(epoch).tolist()]
        sampler.batch_size = 500
        found.append(batches + [batch.tolist() for batch in epoch])
    assert found[0] == found[1]


def test_an_empty_dataset_is_the_error_that_it_is_in_torch() -> None:
    data = list(DATA)
    for kind in (DataLoader, StockDataLoader):
        loader = kind(data, sampler=RandomSampler(data))
        kept = data.copy()
        data.clear()
        with pytest.raises(ZeroDivisionError):
            next(iter(loader))
        data.extend(kept)
