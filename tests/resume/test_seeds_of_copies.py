"""What carries a loader's seed on, and what is not taken for one."""

import copy
import pickle
from typing import Any

import pytest
import torch

import forebay.torch
from forebay.torch import DataLoader
from support import Front, values

DATA = range(11)


def test_copies_of_a_loader_keep_its_seed_and_their_own_epochs(front: Front) -> None:
    loader = front.DataLoader(DATA, batch_size=4, shuffle=True, seed=7)
    first, second = values(loader), values(loader)
    for copied in (copy.copy(loader), copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))):
        copied.set_epoch(0)
        assert [values(copied), values(copied)] == [first, second]
    loader.set_epoch(1)
    assert values(loader) == second


class WithAnAttribute(DataLoader[Any]):
    """A class of the user's, whose `seed` is something else."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.seed = 3


def test_a_seed_attribute_of_somebody_elses_is_not_taken_for_one() -> None:
    def drawn(kind: Any) -> list[Any]:
        torch.manual_seed(5)
        return values(kind(DATA, batch_size=4, shuffle=True))

    loader = WithAnAttribute(DATA, batch_size=4)
    assert not hasattr(loader, "set_epoch")
    assert drawn(WithAnAttribute) == drawn(torch.utils.data.DataLoader)


def test_without_a_seed_a_loader_has_nothing_new() -> None:
    stock, ours = torch.utils.data.DataLoader([1]), DataLoader([1])  # type: ignore[arg-type, var-annotated]
    public = {name for name in vars(ours) if not name.startswith("_")}
    assert public - {name for name in vars(stock) if not name.startswith("_")} == {"memory_budget"}
    assert not hasattr(ours, "set_epoch")


def test_wrapping_a_loader_of_torchs_adds_no_seed_and_one_of_ours_loses_none() -> None:
    stock = torch.utils.data.DataLoader(DATA, batch_size=4)  # type: ignore[arg-type, var-annotated]
    assert not hasattr(forebay.torch.wrap(stock), "set_epoch")
    seeded = DataLoader(DATA, batch_size=4, shuffle=True, seed=7)  # type: ignore[arg-type, var-annotated]
    whole = values(seeded)
    wrapped = forebay.torch.wrap(seeded)
    wrapped.set_epoch(0)
    assert values(wrapped) == whole


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_the_smallest_and_the_largest_seed_are_seeds(front: Front, seed: int) -> None:
    loader = front.DataLoader(DATA, shuffle=True, seed=seed)
    assert sorted(values(loader)) == [[number] for number in DATA]


def test_a_program_can_give_a_loader_a_set_epoch_of_its_own_as_torchs() -> None:
    told: list[int] = []
    kind: Any = DataLoader
    for seed in (None, 7):
        loader = kind(DATA, seed=seed)
        loader.set_epoch = told.append
        loader.set_epoch(3)
    assert told == [3, 3]
