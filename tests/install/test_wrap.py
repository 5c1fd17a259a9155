"""`forebay.torch.wrap`: an existing loader, served by Forebay."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import forebay.torch
from forebay.torch import wrap
from forebay.torch._inline import InlineIterator
from forebay.torch._iterator import WorkersIterator
from support import values


class Endless(DataLoader):
    """As libraries derive from it: keeps one iterator, and counts what it has given."""

    def __init__(self, *arguments: Any, name: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.name = name
        self.begun = 0

    def __iter__(self) -> Any:
        self.begun += 1
        return super().__iter__()

    def _get_iterator(self) -> Any:
        return super()._get_iterator()

    def __len__(self) -> int:
        return 1000


class Meta(type):
    pass


class WithMeta(DataLoader, metaclass=Meta):
    pass


def test_a_wrapped_loader_is_served_with_all_its_attributes_and_the_original_is_left_alone() -> None:
    generator = torch.Generator().manual_seed(3)
    original = DataLoader(
        range(6), batch_size=4, shuffle=True, num_workers=1, persistent_workers=True, generator=generator, timeout=100
    )
    before = dict(vars(original))
    plain = values(original)
    state = {**before, "_iterator": original._iterator}
    wrapped = wrap(original)
    assert type(wrapped) is forebay.torch.DataLoader
    assert vars(wrapped) == {**before, "_iterator": None, "memory_budget": None}
    generator.manual_seed(3)
    assert values(wrapped) == plain
    assert isinstance(wrapped._iterator, WorkersIterator)
    wrapped.num_workers = 7
    wrapped.close()
    assert vars(original) == state
    assert type(original) is not type(wrapped)


@pytest.mark.parametrize(("num_workers", "iterator"), [(0, InlineIterator), (1, WorkersIterator)])
def test_a_derived_class_keeps_its_methods(num_workers: int, iterator: type) -> None:
    original = Endless(range(3), num_workers=num_workers, name="mine")
    wrapped = wrap(original)
    assert type(iter(wrapped)) is iterator
    assert values(wrapped) == [[0], [1], [2]]
    assert (wrapped.name, wrapped.begun, original.begun, len(wrapped)) == ("mine", 2, 0, 1000)
    assert isinstance(wrapped, Endless)
    assert isinstance(wrapped, forebay.torch.DataLoader)
    assert type(wrapped).__qualname__ == "Endless"
    with pytest.raises(ValueError, match="batch_size attribute should not be set after Endless is initialized"):
        wrapped.batch_size = 2


@pytest.mark.parametrize("kind", [DataLoader, lambda *given: Endless(*given, name="x"), WithMeta])
def test_a_wrapped_loader_can_be_pickled_and_copied(kind: Any) -> None:
    wrapped = wrap(kind(range(3)))
    for other in (pickle.loads(pickle.dumps(wrapped)), copy.copy(wrapped), copy.deepcopy(wrapped)):
        assert type(other) is type(wrapped)
        assert type(iter(other)) is InlineIterator
        assert values(other) == [[0], [1], [2]]


def test_a_loader_of_forebays_is_returned_as_it_is() -> None:
    for loader in (forebay.torch.DataLoader([1]), wrap(Endless([1], name="x"))):
        assert wrap(loader) is loader


@pytest.mark.parametrize("value", [[1, 2], None, DataLoader, forebay.DataLoader([1])], ids=repr)
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"wrap\(\) takes a torch.utils.data.DataLoader, but got .*; make a "):
        wrap(value)
