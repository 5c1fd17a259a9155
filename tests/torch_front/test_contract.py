"""What programs written for torch's loader rely on: attributes, arguments, copies, classes, and the fallback."""

import copy
import inspect
import os
import pickle
import re
import warnings
from typing import Any

import pytest
import torch
from torch.utils.data import dataloader as torch_dataloader

import forebay
import forebay.torch
from forebay.errors import ConfigError, FallbackWarning
from support import (
    Front,
    Numbers,
    WhoAmI,
    Wire,
    flat,
    front_named,
    generator,
    identity,
    journey_of,
    values,
)

# -- The loader as an object


def test_what_other_attributes_were_derived_from_cannot_be_set(front: Front) -> None:
    loader = front.DataLoader([1, 2], num_workers=1)
    for name in ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"):
        with pytest.raises(ValueError, match=f"{name} attribute should not be set after DataLoader is initialized"):
            setattr(loader, name, getattr(loader, name))


def test_all_other_attributes_take_effect_at_the_next_iteration(front: Front, wire: Wire) -> None:
    loader = front.DataLoader(WhoAmI(6, front.get_worker_info), num_workers=1)
    next(iter(loader))
    loader.num_workers = 3
    loader.prefetch_factor = 1
    loader.collate_fn = identity
    loader.worker_init_fn = wire.send
    loader.timeout = 100
    loader.multiprocessing_context = "fork"
    loader.generator = generator(front, 3)
    batches = list(loader)
    assert [batch[0][1] for batch in batches] == [0, 1, 2] * 2
    assert sorted(wire.drain()) == [0, 1, 2]
    before = loader.collate_fn
    assert before is identity


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("num_workers", -1, ValueError),
        ("num_workers", 1.5, TypeError),
        ("num_workers", "2", TypeError),
        ("num_workers", None, TypeError),
        ("prefetch_factor", 0, ValueError),
        ("prefetch_factor", -1, ValueError),
        ("prefetch_factor", "2", TypeError),
        ("timeout", "5", TypeError),
        ("collate_fn", 5, TypeError),
        ("worker_init_fn", 5, TypeError),
        ("memory_budget", -1, ValueError),
        ("memory_budget", "1G", TypeError),
    ],
)
def test_nonsense_set_after_construction_is_refused_by_name_when_workers_would_start(
    front: Front, name: str, value: Any, error: type[Exception]
) -> None:
    loader = front.DataLoader([1, 2], num_workers=1)
    before = getattr(loader, name)
    setattr(loader, name, value)
    with pytest.raises(error, match=f"{name} option should be"):
        iter(loader)
    setattr(loader, name, before)
    assert flat(loader) == [1, 2]


def test_a_loader_has_exactly_torchs_public_attributes_and_memory_budget() -> None:
    def public(loader: Any) -> set[str]:
        return {name for name in vars(loader) if not name.startswith("_")}

    theirs = public(torch.utils.data.DataLoader([1]))
    loader = forebay.torch.DataLoader([1])
    assert public(loader) == theirs | {"memory_budget"}
    list(loader)
    assert public(loader) == theirs | {"memory_budget"}


def test_every_public_attribute_is_a_constructor_argument_and_the_reverse(front: Front) -> None:
    arguments = set(inspect.signature(front.DataLoader).parameters)
    attributes = {name for name in vars(front.DataLoader([1], seed=0)) if not name.startswith("_")}
    assert attributes <= arguments
    assert arguments - attributes <= {"shuffle", "multiprocessing_context"}
    assert isinstance(inspect.getattr_static(front.DataLoader, "multiprocessing_context"), property)


def test_the_torch_fronts_arguments_are_torchs_in_torchs_order_and_then_forebays_own() -> None:
    def arguments(kind: Any) -> list[tuple[str, Any, Any]]:
        parameters = inspect.signature(kind).parameters.values()
        return [(parameter.name, parameter.kind, parameter.default) for parameter in parameters]

    theirs, all_of_ours = arguments(torch.utils.data.DataLoader), arguments(forebay.torch.DataLoader)
    assert all_of_ours[: len(theirs)] == theirs
    named = {"memory_budget": None, "seed": None, "rank": None, "world": None, "uneven": "keep"}
    own = [(name, inspect.Parameter.KEYWORD_ONLY, default) for name, default in named.items()]
    assert all_of_ours[len(theirs) :] == own


class Mine(forebay.torch.DataLoader):  # type: ignore[type-arg]
    """A subclass as frameworks have them."""


def test_a_loader_can_be_made_again_from_its_own_attributes() -> None:
    loader = Mine(list(range(6)), batch_size=2, num_workers=1, memory_budget=1 << 20)
    names = {name: value for name, value in vars(loader).items() if not name.startswith("_")}
    del names["batch_size"], names["sampler"], names["drop_last"]
    again = type(loader)(**names, multiprocessing_context=loader.multiprocessing_context)
    assert values(again) == values(loader) == [[0, 1], [2, 3], [4, 5]]
    assert again.memory_budget == 1 << 20


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda loader: pickle.loads(pickle.dumps(loader))])
@pytest.mark.parametrize(("name", "persistent"), [("numpy", False), ("numpy", True), ("torch", False)])
def test_a_loader_can_be_pickled_and_copied_with_workers_of_its_own(name: str, persistent: bool, copied: Any) -> None:
    front = front_named(name)
    loader = front.DataLoader(list(range(6)), batch_size=2, num_workers=1, persistent_workers=persistent)
    iterator = iter(loader)
    next(iterator)
    with copied(loader) as twin:
        assert values(twin) == [[0, 1], [2, 3], [4, 5]]
    assert values(iterator) == [[2, 3], [4, 5]]
    loader.close()


class Wrapper:
    """Hands every name that it does not have on to a loader, as Accelerate's loaders do."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        if name == "loader":
            raise AttributeError
        return getattr(self.loader, name)


def test_a_wrapper_that_hands_names_on_to_a_loader_can_be_pickled() -> None:
    copied = pickle.loads(pickle.dumps(Wrapper(forebay.torch.DataLoader([1, 2, 3]))))
    assert type(copied.loader) is forebay.torch.DataLoader
    assert flat(copied.loader) == [1, 2, 3]


def test_a_torch_loader_can_be_pickled_before_it_has_persistent_workers() -> None:
    loader = forebay.torch.DataLoader(list(range(4)), num_workers=1, persistent_workers=True)
    with pickle.loads(pickle.dumps(loader)) as twin:
        assert flat(twin) == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy, copy.copy])
def test_an_iterator_says_that_it_cannot_be_pickled_nor_copied(front: Front, workers: int, copied: Any) -> None:
    iterator = iter(front.DataLoader([1, 2], num_workers=workers))
    with pytest.raises(NotImplementedError, match="cannot be pickled"):
        copied(iterator)
    assert len(list(iterator)) == 2


def test_iterators_are_instances_of_torchs_classes() -> None:
    loader = forebay.torch.DataLoader([1, 2], num_workers=1)
    assert isinstance(loader, torch.utils.data.DataLoader)
    iterator = iter(loader)
    assert isinstance(iterator, torch_dataloader._MultiProcessingDataLoaderIter)
    assert isinstance(iterator, torch_dataloader._BaseDataLoaderIter)
    assert isinstance(iter(forebay.torch.DataLoader([1])), torch_dataloader._SingleProcessDataLoaderIter)


def test_the_private_names_that_others_use_are_there() -> None:
    class Asking(Numbers):
        def __getitem__(self, index: int) -> Any:
            return os.getpid()

    loader = forebay.torch.DataLoader(Asking(4), num_workers=2, persistent_workers=True)
    assert loader._auto_collation
    assert loader._iterator is None
    pids = flat(loader)
    iterator = loader._iterator
    assert [worker.pid for worker in iterator._workers] == pids[:2]
    assert all(worker.is_alive() for worker in iterator._workers)
    iterator._shutdown_workers()
    assert [worker.exitcode for worker in iterator._workers] == [0, 0]


def test_the_profiler_sees_next_under_torchs_name() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        assert flat(forebay.torch.DataLoader([1, 2], num_workers=1)) == [1, 2]
    names = [event.key for event in profile.key_averages()]
    assert [name for name in names if re.fullmatch(r"enumerate\(DataLoader\)#.*\.__next__", name)]


def test_a_loader_subscripts_as_a_generic() -> None:
    assert forebay.torch.DataLoader[int].__origin__ is forebay.torch.DataLoader


def test_len_is_the_number_of_batches_for_loaders_and_iterators(front: Front) -> None:
    for options, length in [
        ({"batch_size": 3}, 4),
        ({"batch_size": 3, "drop_last": True}, 3),
        ({"batch_size": None}, 10),
    ]:
        loader = front.DataLoader(Numbers(10), num_workers=1, **options)
        assert len(loader) == len(iter(loader)) == len(list(loader)) == length


@pytest.mark.parametrize("budget", [0, -1])
def test_a_memory_budget_that_is_not_positive_is_refused(front: Front, budget: int) -> None:
    with pytest.raises(ConfigError, match=f"memory_budget={budget}"):
        front.DataLoader([1], memory_budget=budget)


def test_a_memory_budget_too_small_for_the_batches_ahead_is_refused_with_numbers(front: Front) -> None:
    with pytest.raises(ValueError, match=r"at least \d+ bytes for 4 batches ahead, but is 1000"):
        iter(front.DataLoader([1], num_workers=2, memory_budget=1000))


def test_prefetch_factor_0_is_refused(front: Front) -> None:
    with pytest.raises(ValueError, match="prefetch_factor"):
        front.DataLoader([1], num_workers=1, prefetch_factor=0)


def test_more_workers_than_cpus_are_warned_of_at_construction_and_at_every_start(front: Front) -> None:
    workers = len(os.sched_getaffinity(0)) + 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loader = front.DataLoader([1], num_workers=workers)
        list(loader)
    texts = [str(warning.message) for warning in caught]
    assert [f"will create {workers} worker processes" in text for text in texts] == [True, True]


# -- What the engine does not serve yet


def test_pin_memory_without_an_accelerator_changes_nothing_and_is_served() -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is an accelerator")
    iterator = iter(forebay.torch.DataLoader([1, 2], num_workers=1, pin_memory=True))
    assert journey_of(iterator)
    assert flat(iterator) == [1, 2]


def test_a_datapipe_goes_to_torchs_own_iterator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay._fallback._said", set())
    pipe = torch.utils.data.datapipes.map.SequenceWrapper([1, 2, 3])
    loader = forebay.torch.DataLoader(pipe, num_workers=1)
    with pytest.warns(FallbackWarning, match="datapipes"):
        assert flat(loader) == [1, 2, 3]


@pytest.mark.parametrize("version", ["2.9.1", "2.16.0", "3.0.0a0+git"])
def test_a_torch_outside_of_the_known_range_serves_itself(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay._fallback._said", set())
    monkeypatch.setattr(torch, "__version__", version)
    loader = forebay.torch.DataLoader([1, 2, 3], num_workers=1)
    with pytest.warns(FallbackWarning, match=re.escape(f"torch {version}")):
        assert flat(loader) == [1, 2, 3]
