"""The constructor's arguments: refused in torch's order and words, or completed by torch's defaults."""

import linecache
import multiprocessing
import os
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay._arguments import check, check_multiprocessing_context, warn_of_too_many_workers
from forebay.collate import default_collate, default_convert
from forebay.dataset import IterableDataset
from forebay.sampler import BatchSampler, RandomSampler, SequentialSampler


@pytest.fixture(scope="module")
def torch_data() -> ModuleType:
    return pytest.importorskip("torch.utils.data")


options = st.fixed_dictionaries(
    {"dataset": st.sampled_from([[], [1, 2, 3]])},
    optional={
        "batch_size": st.sampled_from([None, 1, 2, 0, -1, True, 2.0]),
        "shuffle": st.sampled_from([None, False, True, 3]),
        "sampler": st.sampled_from([None, (2, 1)]),
        "batch_sampler": st.sampled_from([None, ((2,), (1,))]),
        "num_workers": st.sampled_from([0, 1, -1]),
        "drop_last": st.sampled_from([False, True, 1]),
        "timeout": st.sampled_from([0, 1.5, -1]),
        "multiprocessing_context": st.sampled_from([None, "fork", "no such method", 3]),
        "prefetch_factor": st.sampled_from([None, 3, -1]),
        "persistent_workers": st.booleans(),
        "in_order": st.booleans(),
    },
)


def outcome(construct: Any, arguments: dict[str, Any]) -> Any:
    """What a loader holds of its arguments, or the type and text of its refusal."""
    try:
        loader = construct(**arguments)
    except (ValueError, TypeError) as refusal:
        return type(refusal), str(refusal)
    names = ("batch_size", "drop_last", "num_workers", "prefetch_factor", "persistent_workers", "timeout")
    context = loader.multiprocessing_context
    return (
        [getattr(loader, name) for name in (*names, "in_order")],
        type(loader.sampler).__name__,
        type(loader.batch_sampler).__name__,
        loader.collate_fn.__name__,
        context and context.get_start_method(),
    )


@given(arguments=options)
def test_arguments_meet_the_same_outcome_as_in_torch(torch_data: ModuleType, arguments: Any) -> None:
    assert outcome(check, arguments) == outcome(torch_data.DataLoader, arguments)


@pytest.mark.parametrize("dataset_class", ["forebay", "torch"])
@pytest.mark.parametrize(
    "arguments",
    [{"shuffle": True}, {"shuffle": 3, "sampler": (1,)}, {"sampler": (1,)}, {"batch_sampler": ((1,),)}],
)
def test_iterable_datasets_refuse_an_order_in_torchs_words(
    torch_data: ModuleType, dataset_class: str, arguments: dict[str, Any]
) -> None:
    class Stream(torch_data.IterableDataset):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Iterator[int]:
            return iter([1])

    theirs = Stream()
    ours = IterableDataset[int]() if dataset_class == "forebay" else theirs
    expected = outcome(torch_data.DataLoader, {"dataset": theirs, **arguments})
    assert expected[0] is ValueError
    assert outcome(check, {"dataset": ours, **arguments}) == expected


def test_a_prefetch_factor_of_zero_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"prefetch_factor option should be positive.*prefetch_factor=0"):
        check([1], num_workers=1, prefetch_factor=0)


def test_the_defaults_read_samples_in_order_one_per_batch() -> None:
    checked = check([5, 6])
    assert isinstance(checked.sampler, SequentialSampler)
    assert isinstance(checked.batch_sampler, BatchSampler)
    assert list(checked.batch_sampler) == [[0], [1]]
    assert checked.batch_sampler.sampler is checked.sampler
    assert checked.generator is None
    assert checked.worker_init_fn is None


@pytest.mark.parametrize(
    ("arguments", "collate_fn"),
    [
        ({}, default_collate),
        ({"batch_sampler": [[0]]}, default_collate),
        ({"batch_size": None}, default_convert),
        ({"batch_size": None, "collate_fn": list}, list),
    ],
)
def test_without_batches_samples_are_converted_instead_of_collated(
    arguments: dict[str, Any], collate_fn: object
) -> None:
    assert check([1], **arguments).collate_fn is collate_fn


@given(seed=st.integers(0, 2**40))
def test_the_generator_of_a_loader_is_that_of_its_random_sampler(seed: int) -> None:
    checked = check(range(20), shuffle=True, generator=seed)
    assert isinstance(checked.sampler, RandomSampler)
    assert checked.sampler.generator is checked.generator
    assert list(checked.sampler) == list(RandomSampler(range(20), generator=seed))


def test_a_torch_generator_is_refused_with_advice() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"torch\S*\.Generator.*default_rng\(seed\)"):
        check([1], generator=torch.Generator())


def test_given_samplers_are_kept_and_not_started() -> None:
    sampler, batch_sampler = iter([0]), iter([[0]])
    assert check([1], sampler=sampler).sampler is sampler
    checked = check([1], batch_sampler=batch_sampler)
    assert checked.batch_sampler is batch_sampler
    assert (checked.batch_size, checked.drop_last) == (None, False)
    assert (list(sampler), list(batch_sampler)) == ([0], [[0]])


def test_a_dataset_without_a_length_serves_with_a_sampler() -> None:
    class Endless:
        def __getitem__(self, index: int) -> int:
            return index

    assert check(Endless(), sampler=[1]).sampler == [1]
    assert isinstance(check(Endless()).sampler, SequentialSampler)
    with pytest.raises(TypeError, match="has no len"):
        check(Endless(), shuffle=True)


def test_a_context_object_is_kept() -> None:
    context = multiprocessing.get_context("spawn")
    assert check([1], num_workers=1, multiprocessing_context=context).multiprocessing_context is context
    assert check_multiprocessing_context(context, 1) is context


def warned(construct: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        construct()
    return [f"{entry.category.__name__}: {entry.message}" for entry in caught]


def test_more_workers_than_usable_cpus_are_warned_of_in_torchs_words(
    torch_data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    ours = warned(lambda: check([1], num_workers=3))
    assert len(ours) == 1
    assert ours == warned(lambda: torch_data.DataLoader([1], num_workers=3))
    assert warned(lambda: check([1], num_workers=2)) == []


@pytest.mark.parametrize("cpus", [None, 1])
def test_without_knowledge_of_affinity_the_warning_says_so(
    torch_data: ModuleType, monkeypatch: pytest.MonkeyPatch, cpus: int | None
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    ours = warned(lambda: check([1], num_workers=3))
    assert len(ours) == 1
    assert ours == warned(lambda: torch_data.DataLoader([1], num_workers=3))
    assert warned(lambda: check([1])) == []


def test_warnings_point_at_the_caller_of_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loader:
        def __init__(self, num_workers: int) -> None:
            check([1], num_workers=num_workers)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with pytest.warns(UserWarning, match="will create 2 worker processes") as caught:
        Loader(2)
    assert linecache.getline(caught[0].filename, caught[0].lineno).strip() == "Loader(2)"
    with pytest.warns(UserWarning, match="will create 3 worker processes") as caught:
        warn_of_too_many_workers(3)
    assert caught[0].filename == __file__


def test_arguments_are_frozen() -> None:
    with pytest.raises(AttributeError):
        check([1]).batch_size = 3  # type: ignore[misc]


def test_a_numpy_array_is_a_dataset() -> None:
    checked = check(np.arange(4), batch_size=3, drop_last=True)
    assert checked.batch_sampler is not None
    assert list(checked.batch_sampler) == [[0, 1, 2]]
