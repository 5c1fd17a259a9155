"""Who learns the number of the epoch, and when; and what else in a worker is a function of the seed."""

import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import FEATURES, Drawing, drawn

import forebay
from forebay.errors import ConfigError, LoaderTimeout
from support import Front, front_named, until

SEED = 7


def of(front: Front, dataset: Any, **options: Any) -> Any:
    return front.DataLoader(dataset, **{"seed": SEED, **options})


def rows(batches: Any) -> list[list[float]]:
    return [row.tolist() for batch in batches for row in np.asarray(batch)]


KINDS = [
    {"num_workers": 0},
    {"num_workers": 2},
    {"num_workers": 2, "persistent_workers": True},
]
kinds = pytest.mark.parametrize("kind", KINDS, ids=["inline", "new-workers", "persistent"])


class Told(Drawing):
    """Samples tell every number that their dataset was told, the latest first."""

    def __init__(self) -> None:
        super().__init__(8)
        self.told = -1

    def set_epoch(self, epoch: int) -> None:
        self.told = epoch

    def __getitem__(self, index: int) -> Any:
        infos = [forebay.get_worker_info(), torch.utils.data.get_worker_info()]
        return np.array([self.told, *(self.told if info is None else info.epoch for info in infos)])


@kinds
def test_dataset_and_worker_info_have_the_epochs_number_before_its_first_sample(
    front: Front, kind: dict[str, Any]
) -> None:
    with of(front, Told(), **kind) as loader:
        for epoch in (0, 1, 2):
            assert rows(loader) == [[epoch] * 3] * 8
        for epoch in (7, 7, 0, 2**40):
            loader.set_epoch(epoch)
            assert loader.dataset.told == epoch
            assert rows(loader) == [[epoch] * 3] * 8


def test_the_trainers_dataset_is_told_too(front: Front) -> None:
    dataset = Told()
    with of(front, dataset, num_workers=1) as loader:
        for epoch in range(3):
            iter(loader)
            assert dataset.told == epoch


class Reordering(Drawing):
    """Draws in set_epoch, as a dataset does that mixes its samples anew for every epoch."""

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.drawn = [random.random(), np.random.random(), torch.rand((), dtype=torch.float64).item()]

    def __getitem__(self, index: int) -> Any:
        return np.array([self.epoch, *self.drawn])


@kinds
def test_what_set_epoch_draws_is_the_same_in_every_process(front: Front, kind: dict[str, Any]) -> None:
    expected = [[list(row) for row in rows(epoch)] for epoch in two_epochs(of(front, Reordering(), batch_size=4))]
    random.seed(99)
    with of(front, Reordering(), batch_size=4, **kind) as loader:
        assert [rows(epoch) for epoch in two_epochs(loader)] == expected
    assert expected[0][0][1:] != expected[1][0][1:]


def two_epochs(loader: Any) -> list[Any]:
    return [list(loader), list(loader)]


class Failing(Told):
    """Cannot begin epoch 1; if `in_workers`, only there."""

    in_workers = False

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        if epoch == 1 and not (self.in_workers and forebay.get_worker_info() is None):
            raise ValueError("no such epoch")


class FailingThere(Failing):
    in_workers = True


@kinds
def test_an_exception_of_set_epoch_in_the_trainer_comes_from_iter(front: Front, kind: dict[str, Any]) -> None:
    with of(front, Failing(), **kind) as loader:
        list(loader)
        with pytest.raises(ValueError, match="no such epoch"):
            iter(loader)
        loader.set_epoch(2)
        assert rows(loader) == [[2] * 3] * 8


def test_an_exception_of_set_epoch_in_a_worker_comes_in_the_place_of_its_batches(front: Front) -> None:
    with of(front, FailingThere(), batch_size=4, num_workers=2, persistent_workers=True) as loader:
        assert rows(loader) == [[0] * 3] * 8
        batches = iter(loader)
        for batch in range(2):
            with pytest.raises(ValueError, match="no such epoch") as caught:
                next(batches)
            assert any(note.endswith(f", batch {batch}") for note in caught.value.__notes__)
        assert list(batches) == []
        assert rows(loader) == [[2] * 3] * 8


class FailingStream(torch.utils.data.IterableDataset[Any]):
    def set_epoch(self, epoch: int) -> None:
        if epoch == 1 and forebay.get_worker_info() is not None:
            raise ValueError("no such epoch")

    def __iter__(self) -> Any:
        return iter([np.zeros(1)] * 3)


def test_a_stream_whose_epoch_cannot_begin_has_the_exception_once_and_then_the_next_epoch(front: Front) -> None:
    with of(front, FailingStream(), num_workers=1, persistent_workers=True) as loader:
        assert len(list(loader)) == 3
        found, _ = until(ValueError, loader)
        assert found == []
        assert len(list(loader)) == 3


def test_without_a_seed_persistent_workers_datasets_are_left_alone(front: Front) -> None:
    with front.DataLoader(ToldAlone(), num_workers=1, persistent_workers=True) as loader:
        assert [rows(loader), rows(loader)] == [[[-1]] * 8] * 2


class ToldAlone(Told):
    def __getitem__(self, index: int) -> Any:
        return np.array([self.told])


@pytest.mark.parametrize("epoch", [-1, 2**64, 1.5, None, "1"])
def test_an_epoch_that_is_no_number_is_refused_and_changes_nothing(front: Front, epoch: Any) -> None:
    loader = of(front, Told())
    with pytest.raises(ConfigError, match="epoch should be an integer from 0 to"):
        loader.set_epoch(epoch)
    assert rows(loader) == [[0] * 3] * 8


# -- Seeds of workers


class OfWorker(Drawing):
    """Samples tell their worker's number, its seed, and what its worker_init_fn drew."""

    drawn_first = 0.0

    def __getitem__(self, index: int) -> Any:
        info = forebay.get_worker_info()
        assert info is not None
        return np.array([info.id, info.seed % 2**32, info.seed >> 32, self.drawn_first])

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Whole batches, so that each worker makes some."""
        return [self[index] for index in indices]


def draw_first(_: int) -> None:
    info: Any = forebay.get_worker_info()
    info.dataset.drawn_first = random.random() + np.random.random() + torch.rand((), dtype=torch.float64).item()


def of_workers(front: Front, **options: Any) -> list[set[tuple[float, ...]]]:
    """What the workers of two epochs told."""
    loader = of(front, OfWorker(), num_workers=2, worker_init_fn=draw_first, **options)
    with loader:
        return [set(map(tuple, rows(loader))) for _ in range(2)]


def test_seeds_of_workers_and_what_worker_init_fn_draws_are_functions_of_seed_and_epoch(front: Front) -> None:
    random.seed(1)
    torch.manual_seed(1)
    first = of_workers(front)
    random.seed(2)
    torch.manual_seed(2)
    assert of_workers(front, batch_size=5, prefetch_factor=1) == first
    assert len({worker[-1] for epoch in first for worker in epoch}) == 4
    assert not first[0] & of_workers(front, seed=8)[0]


def test_seeds_of_workers_are_the_same_in_both_fronts() -> None:
    some, other = (of_workers(front_named(name)) for name in ("numpy", "torch"))
    assert some == other


def test_persistent_workers_keep_the_seed_that_they_began_with(front: Front) -> None:
    persistent, fresh = of_workers(front, persistent_workers=True), of_workers(front)
    assert persistent == [fresh[0], fresh[0]]


def test_what_worker_init_fn_draws_does_not_show_in_samples(front: Front) -> None:
    def much(_: int) -> None:
        np.random.random(1000)
        random.random()

    plain = rows(of(front, Drawing(9)))
    with of(front, Drawing(9), num_workers=2, worker_init_fn=much) as loader:
        assert rows(loader) == plain


def test_drawing_has_a_draw_of_each_generator() -> None:
    assert len(drawn(0)) == FEATURES
    assert (drawn(0)[1:] != 0).all()


class Waiting(Drawing):
    """In epoch 0, the last sample waits for a file."""

    def __init__(self, gate: Path) -> None:
        super().__init__(8)
        self.gate = gate

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> Any:
        while self.epoch == 0 and index == 7 and not self.gate.exists():
            time.sleep(0.01)
        return np.array([self.epoch, index])


def test_an_epoch_that_could_not_begin_in_time_is_begun_by_the_next_call(front: Front, tmp_path: Path) -> None:
    dataset = Waiting(tmp_path / "gate")
    with of(front, dataset, num_workers=2, persistent_workers=True, timeout=0.1) as loader:
        abandoned = iter(loader)
        next(abandoned)
        for _ in range(2):
            with pytest.raises(LoaderTimeout):
                iter(loader)
        dataset.gate.touch()
        assert list(abandoned) == [], "what was being made of it is not wanted any more"
        assert rows(loader) == [[1, index] for index in range(8)]


def test_an_epoch_whose_workers_could_not_start_is_begun_by_the_next_call(front: Front) -> None:
    dataset: Any = Told()
    first = of(front, Told(), batch_size=4)
    next(iter(first))
    states: list[Any] = [{}, first.state_dict()]
    for state in states:
        loader = of(front, dataset, batch_size=4, num_workers=1, multiprocessing_context="spawn")
        loader.load_state_dict(state)
        dataset.lock = threading.Lock()
        with pytest.raises(TypeError, match="cannot pickle"):
            iter(loader)
        del dataset.lock
        with loader:
            assert rows(loader) == [[0, 0, 0]] * (4 if state else 8)


@pytest.mark.parametrize("workers", [0, 1])
def test_epochs_that_begin_together_have_the_orders_that_they_have_in_turn(front: Front, workers: int) -> None:
    def loader() -> Any:
        sampler = torch.utils.data.DistributedSampler(range(8), 1, 0)  # type: ignore[arg-type, var-annotated]
        return of(front, range(8), sampler=sampler, num_workers=workers)

    in_turn, together = loader(), loader()
    first, second = ([batch.item() for batch in in_turn] for _ in range(2))
    assert first != second
    assert [(one.item(), other.item()) for one, other in zip(together, together, strict=True)] == [
        *zip(first, second, strict=True)
    ]


@pytest.mark.parametrize("number", [int, np.int64])
def test_an_epoch_that_a_sampler_was_told_is_the_loaders_whatever_kind_of_integer_it_is(
    front: Front, number: Any
) -> None:
    sampler = torch.utils.data.DistributedSampler(range(8), 1, 0)  # type: ignore[arg-type, var-annotated]
    loader = of(front, Told(), sampler=sampler)
    assert rows(loader)[0][0] == 0
    for epoch in (5, 3):
        sampler.set_epoch(number(epoch))
        assert rows(loader)[0][0] == epoch


@pytest.mark.parametrize("name", ["seed", "rank", "world", "uneven"])
def test_what_the_stream_was_made_of_does_not_change_after_construction(front: Front, name: str) -> None:
    loader = of(front, Told())
    with pytest.raises(ValueError, match=f"{name} attribute should not be set after DataLoader is initialized"):
        setattr(loader, name, 1)
