"""What workers and the trainer share, and what they do not: `multiprocessing`'s objects, tensors, attributes."""

import importlib
import multiprocessing
import os
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from support import Front, Numbers, flat, identity

# Every start of a worker that imports torch costs seconds: torch's front is tried where it could make a difference.
EVERYWHERE = pytest.mark.parametrize(
    ("front", "method"),
    [("numpy", "fork"), ("numpy", "forkserver"), ("numpy", "spawn"), ("torch", "fork"), ("torch", "spawn")],
    indirect=["front"],
)
WITHOUT_TORCH_IN_WORKERS = pytest.mark.parametrize(
    ("front", "method"),
    [("numpy", "fork"), ("numpy", "forkserver"), ("numpy", "spawn"), ("torch", "fork")],
    indirect=["front"],
)


class Counter(Numbers):
    """Counts its samples in shared memory, in two steps that a lock makes one; and in an attribute."""

    def __init__(self, count: int, context: BaseContext) -> None:
        super().__init__(count)
        self.lock = context.Lock()
        self.total = context.Value("q", 0, lock=False)
        self.uses = context.Array("q", count)
        self.bonus = context.Value("q", 0)
        self.made = 0

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        with self.lock:
            before = self.total.value
            os.sched_yield()
            self.total.value = before + 1
        self.uses[index] += 1
        self.made += 1
        return np.array([index, self.bonus.value, self.made])


@EVERYWHERE
def test_arrays_values_and_locks_of_multiprocessing_are_shared_epoch_after_epoch(front: Front, method: str) -> None:
    dataset = Counter(40, multiprocessing.get_context(method))
    with front.DataLoader(
        dataset,
        batch_size=5,
        num_workers=2,
        multiprocessing_context=method,
        persistent_workers=front.name == "torch",  # else new workers, and another pickling, in every epoch
    ) as loader:
        for epoch in (1, 2):
            assert len(list(loader)) == 8
            assert dataset.total.value == 40 * epoch
            assert dataset.uses[:] == [epoch] * 40


@WITHOUT_TORCH_IN_WORKERS
def test_what_the_trainer_sets_in_a_value_persistent_workers_see(front: Front, method: str) -> None:
    dataset = Counter(4, multiprocessing.get_context(method))
    with front.DataLoader(dataset, num_workers=2, persistent_workers=True, multiprocessing_context=method) as loader:
        for bonus in (0, 7):
            dataset.bonus.value = bonus
            assert [sample[1] for sample in flat(loader)] == [bonus] * 4


@WITHOUT_TORCH_IN_WORKERS
def test_an_attribute_that_one_worker_changes_is_its_own(front: Front, method: str) -> None:
    dataset = Counter(6, multiprocessing.get_context(method))
    loader = front.DataLoader(dataset, num_workers=2, multiprocessing_context=method)
    assert [sample[2] for sample in flat(loader)] == [1, 1, 2, 2, 3, 3]
    assert dataset.made == 0


def test_a_new_epoch_begins_with_the_trainers_dataset_and_persistent_workers_go_on_with_theirs(front: Front) -> None:
    for persistent, second in ((False, [11, 11, 12, 12]), (True, [3, 3, 4, 4])):
        dataset = Counter(4, multiprocessing.get_context("fork"))
        with front.DataLoader(
            dataset, num_workers=2, persistent_workers=persistent, multiprocessing_context="fork"
        ) as loader:
            assert [sample[2] for sample in flat(loader)] == [1, 1, 2, 2]
            dataset.made = 10
            assert [sample[2] for sample in flat(loader)] == second


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_lock_of_another_start_method_is_multiprocessings_error_and_leaves_no_process(
    front: Front, method: str
) -> None:
    list(front.DataLoader(Numbers(2), num_workers=1, multiprocessing_context=method))  # the server of forkserver is up
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    dataset = Counter(4, multiprocessing.get_context("fork"))
    with pytest.raises(RuntimeError, match="SemLock created in a fork context"):
        iter(front.DataLoader(dataset, num_workers=2, multiprocessing_context=method))
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


class Tensors(Numbers):
    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.uses = importlib.import_module("torch").zeros(count).share_memory_()

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        self.uses[index] += 1
        return super().__getitem__(index)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_a_worker_writes_into_a_shared_tensor_the_trainer_sees(front: Front, method: str) -> None:
    dataset = Tensors(6)
    list(front.DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context=method))
    assert dataset.uses.tolist() == [1] * 6


class Mapped(Numbers):
    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(6)
        self.path = path
        self.mode = mode
        self.rows: Any = None

    def __getitem__(self, index: int) -> Any:
        if self.rows is None:
            self.rows = np.memmap(self.path, np.int64, self.mode, shape=(6, 2))
        if self.mode == "r+":
            self.rows[index] += 100
        return self.rows[index]


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
@WITHOUT_TORCH_IN_WORKERS
def test_rows_of_a_memmap_are_copied_out_of_the_file(front: Front, method: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    np.arange(12).tofile(path)
    (batch,) = front.DataLoader(Mapped(path, mode), batch_size=6, num_workers=1, multiprocessing_context=method)
    seen = np.asarray(batch).copy()
    batch += 1_000_000  # the user's alone
    written = np.fromfile(path, np.int64).reshape(6, 2)
    assert seen.tolist() == written.tolist()
    assert written.tolist() == (np.arange(12).reshape(6, 2) + (100 if mode == "r+" else 0)).tolist()


def test_a_row_of_a_memmap_that_is_handed_on_uncollated_is_the_users_alone(front: Front, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    np.arange(12).tofile(path)
    (*_, last) = front.DataLoader(Mapped(path, "r+"), batch_size=None, collate_fn=identity, num_workers=1)
    last += 1_000_000
    assert np.fromfile(path, np.int64).max() == 111
