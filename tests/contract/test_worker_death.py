"""1.8 Death of a worker: what is raised, and what comes after it."""

import gc
import os
import pickle
import re
import resource
import signal
import sys
import warnings
from typing import Any

import pytest
import torch
from laws import differs
from subjects import Calls, Squares
from torch.utils.data import get_worker_info
from torch.utils.data._utils import signal_handling

from support import Gate, SlowFirst, descriptor_count, eventually, flat, in_child, wait_for_ends, watch

WORDS = r"DataLoader worker \(pid(\(s\))? \d+\)"


def dying(kind: Any, how: Any, at: int = 2, count: int = 6, **options: Any) -> Any:
    """A loader one of whose samples ends the process that makes it.

    Without tensors: those that a dead worker of torch's has made cannot be opened any more.
    """
    dataset = Calls(count, lambda index: how() if index == at else index)
    return kind(dataset, collate_fn=list, **{"num_workers": 1, **options})


def kill(number: int = signal.SIGKILL) -> Any:
    return lambda: os.kill(os.getpid(), number)


def outcomes(iterator: Any) -> list[Any]:
    """Batches and errors; at most 20 of them. That a busy machine takes long to start a worker is no error."""
    found: list[Any] = []
    while len(found) < 20:
        try:
            found.append(next(iterator))
        except StopIteration:
            break
        except RuntimeError as error:
            if "timed out" not in str(error):
                found.append(error.with_traceback(None))
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_a_runtime_error(kind: Any, workers: int) -> None:
    with pytest.raises(RuntimeError, match=WORDS):
        list(dying(kind, kill(), num_workers=workers))


def test_a_worker_that_exits_with_a_code_is_a_runtime_error(kind: Any) -> None:
    with pytest.raises(RuntimeError, match=f"{WORDS} exited unexpectedly"):
        list(dying(kind, lambda: os._exit(7)))


def test_sys_exit_in_a_dataset_ends_its_worker_and_is_a_runtime_error(kind: Any, capfd: Any) -> None:
    with pytest.raises(RuntimeError, match=f"{WORDS} exited unexpectedly"):
        list(dying(kind, lambda: sys.exit(3)))


@differs(
    "who looks for the cause needs the sample, too",
    torch="the worker's process, and how it died in the exception's context",
    ours="worker, process, how it died, over which batch and indices, and the likely cause, in one text",
)
def test_the_text_tells_who_died_and_how(kind: Any, stock: bool) -> None:
    iterator = iter(dying(kind, lambda: os._exit(7), at=0))
    pid = iterator._workers[0].pid
    with pytest.raises(RuntimeError) as failed:
        next(iterator)
    told = f"{failed.value} {failed.value.__cause__}"
    assert str(pid) in told
    if not stock:
        assert "exited with code 7 while it made batch 0 of indices [0]" in told


@differs(
    "nothing has to be waited for: the end of the process is what `next()` waits for, beside batches",
    torch="noticed at the next look, after 5 s or `timeout`",
    ours="noticed at once",
)
def test_a_worker_that_exits_with_0_in_the_middle_of_its_work_is_a_runtime_error(kind: Any, stock: bool) -> None:
    found = outcomes(iter(dying(kind, lambda: os._exit(0), timeout=1 if stock else 0)))
    (first, *_) = [outcome for outcome in found if isinstance(outcome, RuntimeError)]
    assert re.match(f"{WORDS} exited unexpectedly", str(first))


@differs(
    "an epoch that lost batches must not look complete",
    torch="after the error, sooner or later, `StopIteration`, as if the epoch were over",
    ours="every further `next()` raises the same error",
)
def test_after_a_death_the_iterator_gives_no_more_batches(kind: Any, stock: bool) -> None:
    found = outcomes(iter(dying(kind, kill(), timeout=1 if stock else 0)))
    errors = [outcome for outcome in found if isinstance(outcome, RuntimeError)]
    assert found[-len(errors) :] == errors
    if stock:
        assert 1 <= len(errors) < 10
    else:
        assert len(errors) == 18
        assert len(set(map(id, errors))) == 1


def test_after_a_death_a_new_iterator_has_new_workers(kind: Any) -> None:
    loader = dying(kind, kill())
    assert any(isinstance(outcome, RuntimeError) for outcome in outcomes(iter(loader)))
    loader.dataset.make = int
    assert list(loader) == [[0], [1], [2], [3], [4], [5]]


@differs(
    "one dead worker should not be the end of a training",
    torch="`RuntimeError` at every further `iter()`: the dead worker is asked again",
    ours="all workers are replaced at the next `iter()`",
)
def test_a_persistent_loader_after_the_death_of_a_worker(kind: Any, stock: bool) -> None:
    loader = dying(kind, kill(), persistent_workers=True, timeout=1 if stock else 0)
    outcomes(iter(loader))
    dead = loader._iterator
    loader.dataset.make = int
    if stock:
        with pytest.raises(RuntimeError):
            list(loader)
        assert loader._iterator is dead
    else:
        assert list(loader) == [[0], [1], [2], [3], [4], [5]]
        assert loader._iterator is not dead


def test_no_worker_is_left_when_the_iterator_of_a_dead_one_is_gone(kind: Any) -> None:
    iterator = iter(dying(kind, kill(), at=0, count=20, num_workers=3))
    ends = watch(worker.pid for worker in iterator._workers)
    with pytest.raises(RuntimeError):
        list(iterator)
    del iterator
    gc.collect()
    wait_for_ends(ends)


def test_a_worker_killed_from_outside_is_a_runtime_error(kind: Any, gate: Gate) -> None:
    iterator = iter(kind(SlowFirst(4, get_worker_info, gate), num_workers=1, collate_fn=list))
    ends = watch([iterator._workers[0].pid])
    os.kill(iterator._workers[0].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=WORDS):
        next(iterator)
    wait_for_ends(ends)


def test_a_programs_own_handler_of_sigchld_is_still_called(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, _: called.append(number))
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    try:
        assert flat(kind(Squares(2), num_workers=1)) == [0, 1]
        eventually(lambda: called)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert set(called) == {signal.SIGCHLD}


@differs(
    "the exception is the one place to look at",
    torch="the error of pickling, and a `UserWarning` that speaks of start methods",
    ours="the error of pickling, with a note that names what cannot be pickled and what to do",
)
def test_what_cannot_be_sent_to_a_worker_is_an_error_of_iter(kind: Any, stock: bool) -> None:
    loader = kind(Squares(2), num_workers=1, collate_fn=lambda batch: batch, multiprocessing_context="spawn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises((AttributeError, TypeError, pickle.PicklingError)) as failed:
            iter(loader)
    warned = [str(warning.message)[:58] for warning in caught if warning.category is UserWarning]
    notes = getattr(failed.value, "__notes__", [])
    assert warned == (["Got pickle error when attempting to start a worker Process"] if stock else [])
    assert any("collate_fn" in note for note in notes) != stock


@differs(
    "descriptors do not grow with the batches that are kept",
    torch="one descriptor for each tensor: `RuntimeError` with advice, or `OSError`, when 200 kept batches need more",
    ours="all batches come",
)
def test_a_program_that_keeps_batches_under_a_low_limit_of_descriptors(kind: Any, stock: bool, capfd: Any) -> None:
    dataset = Calls(200, lambda index: torch.full((2000,), index))

    def keep() -> None:
        limit = descriptor_count() + 60
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        kept = list(kind(dataset, num_workers=1))
        assert [int(batch[0, 0]) for batch in kept] == list(range(200))

    code = in_child(keep)
    assert code == (1 if stock else 0)
    assert not stock or re.search("Too many open files|received 0 items of ancdata", capfd.readouterr().err)
