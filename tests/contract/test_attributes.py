"""1.1 Attributes: which there are, which are frozen, and when the others take effect."""

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch
from laws import differs
from subjects import Squares, as_is, asking, column

from support import Wire, flat, values

FROZEN = ["batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"]


def public(loader: Any) -> set[str]:
    return {name for name in vars(loader) if not name.startswith("_")}


@differs(
    "options of Forebay's own are attributes, too: frameworks make a loader again from its attributes",
    torch="15 names",
    ours="the same and Forebay's own options, each an argument of the constructor",
)
def test_every_public_attribute_is_an_argument_of_the_constructor(kind: Any, stock: bool) -> None:
    names = {"batch_sampler", "batch_size", "collate_fn", "dataset", "drop_last", "generator", "in_order"}
    names |= {"num_workers", "persistent_workers", "pin_memory", "pin_memory_device", "prefetch_factor", "sampler"}
    names |= {"timeout", "worker_init_fn"}
    loader = kind([1, 2], num_workers=1, persistent_workers=True)
    before = public(loader)
    assert names <= before <= set(inspect.signature(kind).parameters)
    assert before == names or not stock
    list(loader)
    assert public(loader) == before


def test_there_is_no_attribute_shuffle(kind: Any) -> None:
    assert not hasattr(kind([1], shuffle=True), "shuffle")


def test_private_attributes_have_torchs_names(kind: Any) -> None:
    names = {"_DataLoader__initialized", "_DataLoader__multiprocessing_context", "_IterableDataset_len_called"}
    assert names | {"_dataset_kind", "_iterator"} <= set(vars(kind([1])))


@pytest.mark.parametrize("name", FROZEN)
def test_what_other_attributes_follow_from_is_frozen(kind: Any, name: str) -> None:
    class Named(kind):
        pass

    for loader, said in ((kind([1], num_workers=1), "DataLoader"), (Named([1], num_workers=1), "Named")):
        with pytest.raises(ValueError, match=f"^{name} attribute should not be set after {said} is initialized$"):
            setattr(loader, name, getattr(loader, name))


def test_all_other_attributes_take_effect_at_the_next_iteration(kind: Any, wire: Wire) -> None:
    loader = kind(asking(6), num_workers=1)
    assert column(loader, 1) == [0] * 6
    loader.num_workers = 3
    loader.prefetch_factor = 1
    loader.worker_init_fn = wire.send
    loader.generator = torch.Generator().manual_seed(3)
    base_seed = torch.empty((), dtype=torch.int64).random_(generator=torch.Generator().manual_seed(3)).item()
    batches = list(loader)
    assert column(batches, 1) == [0, 1, 2] * 2
    assert column(batches, 5) == [base_seed, base_seed + 1, base_seed + 2] * 2
    assert sorted(wire.drain()) == [0, 1, 2]
    loader.collate_fn = as_is
    assert [len(batch) for batch in loader] == [1] * 6
    assert type(next(iter(loader))) is list


def test_a_running_iterator_does_not_see_later_changes(kind: Any) -> None:
    loader = kind(asking(6), num_workers=1)
    iterator = iter(loader)
    first = next(iterator)
    loader.num_workers = 3
    loader.collate_fn = as_is
    assert column([first, *iterator], 1) == [0] * 6


def test_workers_may_be_taken_away(kind: Any) -> None:
    loader = kind(Squares(4), num_workers=2)
    loader.num_workers = 0
    assert flat(loader) == [0, 1, 4, 9]


@differs(
    "the constructor's default is meant",
    torch="`TypeError` at `iter()`, because `prefetch_factor` is None",
    ours="2 batches ahead for each worker, as if they had been asked for at construction",
)
def test_workers_may_be_added(kind: Any, stock: bool) -> None:
    loader = kind(Squares(4))
    loader.num_workers = 2
    if stock:
        loader.prefetch_factor = 2
    assert flat(loader) == [0, 1, 4, 9]


def test_the_context_is_validated_whenever_it_is_set(kind: Any) -> None:
    loader = kind([1, 2], num_workers=1)
    with pytest.raises(ValueError, match="should specify a valid start method"):
        loader.multiprocessing_context = "bad"
    with pytest.raises(TypeError, match="should be a valid context object"):
        loader.multiprocessing_context = 5
    loader.multiprocessing_context = "fork"
    assert loader.multiprocessing_context.get_start_method() == "fork"
    assert isinstance(inspect.getattr_static(kind, "multiprocessing_context"), property)
    assert flat(loader) == [1, 2]


def test_a_program_may_give_a_loader_attributes_of_its_own(kind: Any) -> None:
    loader = kind([1])
    loader.epoch = 7
    assert loader.epoch == 7


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda loader: pickle.loads(pickle.dumps(loader))])
def test_a_loader_that_has_not_been_iterated_can_be_copied_and_pickled(kind: Any, copied: Any) -> None:
    loader = kind(Squares(5), batch_size=2, num_workers=1, persistent_workers=True, timeout=60)
    twin = copied(loader)
    assert type(twin) is kind
    assert public(twin) == public(loader)
    assert values(twin) == [[0, 1], [4, 9], [16]]
    assert loader._iterator is None


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iterator_refuses_to_be_pickled(kind: Any, workers: int) -> None:
    iterator = iter(kind([1], num_workers=workers))
    with pytest.raises(NotImplementedError, match="cannot be pickled"):
        pickle.dumps(iterator)
