"""Laws about what must not get lost or changed when something unusual happens between two batches."""

import os
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forebay.errors import ForkedChildError, MemoryBudgetWarning, UnpicklableError
from support import Front, Interruption, eventually, flat, pids_of, values


class Filled:
    """Sample i is `size` bytes of the value i (from `grows_at` on, thirty times as many)."""

    def __init__(self, count: int, size: int, grows_at: int | None = None) -> None:
        self.count, self.size, self.grows_at = count, size, grows_at

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        grown = self.grows_at is not None and index >= self.grows_at
        return np.full(self.size * (30 if grown else 1), index, np.uint8)


class Treacherous:
    """Pickles, but cannot be unpickled where its number says so."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self.number,)


def _arrive(number: int) -> int:
    if 1 <= number <= 4:
        raise ValueError(f"cannot load {number}")
    return number


class Treacheries:
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Treacherous:
        return Treacherous(index)


class SomeIndicesCannotBePickled:
    def __iter__(self) -> Iterator[list[Any]]:
        for index in range(8):
            yield [index] if index != 5 else [lambda: 0]


def everything(iterator: Iterator[Any]) -> list[Any]:
    """Batches, and the texts of the errors that came in the places of others."""
    got = []
    while True:
        try:
            got.append(next(iterator))
        except StopIteration:
            return got
        except Exception as error:  # noqa: BLE001 - whatever it is, its place is looked at
            got.append(f"{type(error).__name__}: {error}")


def first_values(batches: list[Any]) -> list[int]:
    return [int(batch.max()) for batch in batches]


def test_batches_that_cannot_be_unpickled_are_errors_in_their_places_and_end_no_epoch(front: Front) -> None:
    got = everything(iter(front.DataLoader(Treacheries(), batch_size=None, num_workers=1)))
    assert got == [0, *(f"ValueError: cannot load {number}" for number in range(1, 5)), *range(5, 12)]


def test_indices_that_cannot_be_pickled_are_an_error_after_the_batches_before(front: Front) -> None:
    got = everything(iter(front.DataLoader(range(8), batch_sampler=SomeIndicesCannotBePickled(), num_workers=1)))
    assert [batch.tolist() for batch in got[:-1]] == [[0], [1], [2], [3], [4]]
    assert "lambda" in got[-1]


def test_a_warning_that_is_an_error_loses_no_batch(front: Front) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", MemoryBudgetWarning)
        got = everything(iter(front.DataLoader(Filled(30, 1 << 20), num_workers=1, memory_budget=10 << 20)))
    batches = [entry for entry in got if not isinstance(entry, str)]
    assert first_values(batches) == list(range(30))
    assert len(got) == 31


class InterruptedOnce:
    """A sampler of 8 batches that Ctrl-C hits when it is asked for number 4."""

    def __init__(self) -> None:
        self.asked = 0
        self.armed = True

    def __iter__(self) -> Iterator[list[int]]:
        return self

    def __next__(self) -> list[int]:
        if self.asked == 4 and self.armed:
            self.armed = False
            raise KeyboardInterrupt
        self.asked += 1
        if self.asked > 8:
            raise StopIteration
        return [self.asked - 1]


def test_an_interrupted_sampler_loses_no_batch(front: Front) -> None:
    sampler = InterruptedOnce()
    epoch = iter(front.DataLoader(range(8), batch_sampler=sampler, num_workers=1))
    got = []
    while sampler.armed:
        try:
            got.append(next(epoch).tolist())
        except KeyboardInterrupt:
            break
    assert [*got, *values(epoch)] == [[number] for number in range(8)]


def test_an_interruption_anywhere_costs_one_batch_at_most_and_ends_no_epoch(front: Front) -> None:
    count, lines = 200, 80
    epoch = iter(front.DataLoader(range(count), batch_sampler=[[number] for number in range(count)], num_workers=1))
    got: list[int] = []
    interruptions = 0
    for line in range(1, lines):
        with Interruption(line) as interruption:
            got.append(next(epoch).item())
        interruptions += interruption.came
    got += flat(epoch)
    assert got == sorted(set(got))
    assert got[-1] == count - 1
    assert 0 < interruptions < lines - 1, "every line had its turn"
    assert len(got) >= count - interruptions


def test_keeping_batches_does_not_stop_a_loader_whose_batches_grow(front: Front) -> None:
    loader = front.DataLoader(Filled(60, 100_000, grows_at=45), num_workers=2, memory_budget=16_000_000)
    with pytest.warns(MemoryBudgetWarning):
        assert first_values(list(loader)) == list(range(60))


def test_a_forked_child_that_begins_an_epoch_changes_nothing_in_the_trainer(front: Front) -> None:
    loader = front.DataLoader(Filled(100, 1 << 20), num_workers=1, persistent_workers=True)
    iterator = iter(loader)
    kept = [next(iterator) for _ in range(12)]
    kept.clear()  # many slots are free when it forks
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reading, 1)
        try:
            iterator._journey.begin(iter([[0]]))
        except ForkedChildError:
            os._exit(0)
        os._exit(1)
    kept = [next(iterator) for _ in range(10)]
    before = first_values(kept)
    os.write(writing, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert first_values(kept) == before
    assert all(int(batch.min()) == int(batch.max()) for batch in kept)
    os.close(reading)
    os.close(writing)
    loader.close()


def test_epochs_do_not_collect_descriptors_while_the_loop_variable_lives(front: Front) -> None:
    loader = front.DataLoader(Filled(4, 1 << 16), num_workers=2)
    counts = []
    for _ in range(6):
        for batch in loader:
            assert batch is not None
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert max(counts[2:]) <= counts[1]


def test_a_batch_of_an_unpicklable_class_names_worker_and_sample_on_the_default_way_too(front: Front) -> None:
    class Local(dict):  # type: ignore[type-arg]
        pass

    dataset = [{"a": 0}, {"a": 1}, Local(a=2)]
    with pytest.raises((UnpicklableError, TypeError), match=r"worker 0 .* sample of index 2"):
        list(front.DataLoader(dataset, num_workers=1, multiprocessing_context="fork"))


def test_nesting_beyond_what_the_engine_describes_works(front: Front) -> None:
    sample: Any = 1
    for _ in range(40):
        sample = {"in": sample}
    (batch,) = front.DataLoader([sample], num_workers=1, multiprocessing_context="fork")
    for _ in range(40):
        batch = batch["in"]
    assert batch.tolist() == [1]


SIGTERM_HANDLER = """
    import signal
    from forebay import DataLoader

    signal.signal(signal.SIGTERM, lambda *_: None)
    loader = DataLoader(range(4), num_workers=1, persistent_workers=True, multiprocessing_context="fork")
    print(len(list(loader)))
"""


def test_a_program_with_a_sigterm_handler_of_its_own_ends() -> None:
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(SIGTERM_HANDLER)], capture_output=True, check=True)
    assert ended.stdout == b"4\n"


def test_a_worker_is_terminated_although_the_trainer_handles_sigterm(front: Front) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        iterator = iter(front.DataLoader(range(4), num_workers=1, multiprocessing_context="fork"))
        next(iterator)
        (pid,) = pids_of(iterator)
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not iterator._journey.processes[0].is_alive())
        iterator.close()
    finally:
        signal.signal(signal.SIGTERM, before)


REGISTERED_FIRST = """
    import torch
    from torch.utils.data import default_collate  # noqa: F401
    from torch.utils.data._utils.collate import default_collate_fn_map

    default_collate_fn_map[torch.Tensor] = lambda batch, *, collate_fn_map=None: torch.stack(batch) * 100
    from forebay.torch import DataLoader

    loader = DataLoader(torch.ones(2, 2), batch_size=2, num_workers=1, multiprocessing_context="fork")
    print(next(iter(loader)).tolist())
"""


def test_what_users_register_before_the_first_epoch_collates() -> None:
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(REGISTERED_FIRST)], capture_output=True, check=True)
    assert ended.stdout == b"[[100.0, 100.0], [100.0, 100.0]]\n"
