"""1.9 Timeout, pinning, persistence and shutdown.

Pinning is shown without an accelerator: on things that pin themselves, with an accelerator that is pretended.
"""

import contextlib
import gc
import os
import sys
from collections import OrderedDict, UserDict, UserList
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, NamedTuple

import psutil
import pytest
import torch
from laws import differs
from subjects import Calls, Halves, Squares, Stream, as_is, asking, column
from torch.utils.data import get_worker_info

from support import Gate, SlowFirst, Wire, flat, wait_for_ends, watch

NO_ACCELERATOR = (
    "'pin_memory' argument is set as true but no accelerator is found, then device pinned memory won't be used."
)

# -- Timeout


def test_a_batch_that_does_not_come_in_time_is_a_runtime_error_and_can_still_be_had(kind: Any, gate: Gate) -> None:
    iterator = iter(kind(SlowFirst(3, get_worker_info, gate), num_workers=1, timeout=0.2))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"^DataLoader timed out after 0\.2 seconds"):
            next(iterator)
    gate.open()
    assert column([patiently(iterator) for _ in range(3)], 0) == [0, 1, 2]


def patiently(iterator: Any) -> Any:
    """The next batch, however long a busy machine takes."""
    while True:
        with contextlib.suppress(RuntimeError):
            return next(iterator)


def test_a_timeout_counts_for_each_batch(kind: Any) -> None:
    loader = kind(Squares(30), num_workers=1, timeout=100)
    assert flat(loader) == [number * number for number in range(30)]


def test_a_timeout_counts_while_the_rest_of_an_epoch_is_waited_for(kind: Any, gate: Gate) -> None:
    def make(index: int) -> int:
        if index == 1:
            gate.wait()
        return index

    loader = kind(Calls(9, make), num_workers=1, timeout=0.2, persistent_workers=True)
    assert patiently(iter(loader)).item() == 0
    with pytest.raises(RuntimeError, match=r"DataLoader timed out after 0\.2 seconds"):
        iter(loader)
    gate.open()


# -- Pinning


@pytest.mark.parametrize("workers", [0, 1])
def test_pin_memory_without_an_accelerator_warns_and_changes_nothing(kind: Any, workers: int) -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is an accelerator")
    loader = kind(Squares(3), num_workers=workers, pin_memory=True)
    with pytest.warns(UserWarning, match=NO_ACCELERATOR):
        iterator = iter(loader)
    batches = list(iterator)
    assert flat(batches) == [0, 1, 4]
    assert not any(batch.is_pinned() for batch in batches)
    assert not hasattr(iterator, "_pin_memory_thread")


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
@pytest.mark.parametrize("workers", [0, 1])
def test_pin_memory_device_is_warned_of_when_there_is_pin_memory(kind: Any, workers: int) -> None:
    text = (
        "pin_memory_device is deprecated, the current accelerator will be used as the device,"
        "ignore pin_memory_device='cuda'."
    )
    with pytest.warns(UserWarning, match=text):
        iter(kind(Squares(3), num_workers=workers, pin_memory=True, pin_memory_device="cuda"))
    assert flat(kind(Squares(3), num_workers=workers, pin_memory_device="cuda")) == [0, 1, 4]


class Pinning:
    """Can be pinned, as batches of one's own class can, and remembers that it was."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pinned = False

    def pin_memory(self) -> "Pinning":
        self.pinned = True
        return self


class Two(NamedTuple):
    left: Any
    right: Any


class Fixed(tuple):
    """A tuple of one's own."""


CONTAINERS: dict[str, Any] = {
    "alone": Pinning(0),
    "text": "text",
    "bytes": b"bytes",
    "number": 3,
    "none": None,
    "dict": {"a": Pinning(1), "b": [Pinning(2), "text"]},
    "ordered dict": OrderedDict(b=Pinning(1), a=Pinning(2)),
    "user dict": UserDict(a=Pinning(1)),
    "named tuple": Two(Pinning(1), {"a": Pinning(2)}),
    "tuple": (Pinning(1), (Pinning(2), b"bytes")),
    "own tuple": Fixed([Pinning(1)]),
    "list": [Pinning(1), [Pinning(2)]],
    "user list": UserList([Pinning(1)]),
    "range": range(3),
    "set": {1, 2},
}


def _leaves(batch: Any) -> Iterator[bool]:
    if isinstance(batch, Pinning):
        yield batch.pinned
    elif isinstance(batch, (dict, UserDict, MappingProxyType)):
        for part in batch.values():
            yield from _leaves(part)
    elif isinstance(batch, (list, tuple, UserList)):
        for part in batch:
            yield from _leaves(part)


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator, as far as pinning asks for one."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda *_, **__: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_, **__: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda _: None)


@pytest.mark.filterwarnings("ignore::forebay.errors.FallbackWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_everything_that_can_be_pinned_is_pinned_in_containers_of_all_kinds(
    kind: Any, workers: int, accelerator: None
) -> None:
    names = list(CONTAINERS)
    dataset = Calls(len(names), lambda index: CONTAINERS[names[index]])
    loader = kind(dataset, batch_size=None, collate_fn=as_is, pin_memory=True, num_workers=workers)
    found = dict(zip(names, loader, strict=True))
    for name, batch in found.items():
        expected = list if name == "range" else type(CONTAINERS[name])
        assert type(batch) is expected, name
        assert all(_leaves(batch)), name
    assert (found["text"], found["bytes"], found["number"], found["none"]) == ("text", b"bytes", 3, None)
    assert (found["range"], found["set"]) == ([0, 1, 2], {1, 2})
    assert list(found["ordered dict"]) == ["b", "a"]
    assert found["dict"]["b"][1] == "text"


@pytest.mark.filterwarnings("ignore::forebay.errors.FallbackWarning")
def test_an_exception_while_pinning_stands_in_its_batchs_place(kind: Any, accelerator: None) -> None:
    class Sticky(Pinning):
        def pin_memory(self) -> Any:
            raise ValueError("cannot be pinned")

    dataset = [Sticky(0), Pinning(1)]
    iterator = iter(kind(dataset, batch_size=None, collate_fn=as_is, pin_memory=True))
    with pytest.raises(ValueError, match="cannot be pinned"):
        next(iterator)
    assert next(iterator).pinned


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="there is no accelerator")
@pytest.mark.filterwarnings("ignore::forebay.errors.FallbackWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_pinned_with_an_accelerator(kind: Any, workers: int) -> None:
    dataset = [{"x": torch.full((3,), number), "y": [torch.tensor(number), "text"]} for number in range(6)]
    for batch in kind(dataset, batch_size=2, num_workers=workers, pin_memory=True):
        assert batch["x"].is_pinned()
        assert batch["y"][0].is_pinned()
        assert batch["y"][1] == ["text", "text"]


# -- Persistence


def test_iter_of_a_persistent_loader_is_one_iterator(kind: Any) -> None:
    loader = kind(asking(4), num_workers=2, persistent_workers=True)
    assert loader._iterator is None
    iterator = iter(loader)
    assert iter(loader) is iterator
    assert loader._iterator is iterator
    assert column(iterator, 0) == [0, 1, 2, 3]


def test_persistent_workers_keep_their_processes_and_run_worker_init_fn_once(kind: Any, wire: Wire) -> None:
    loader = kind(asking(4), num_workers=2, persistent_workers=True, worker_init_fn=wire.send)
    processes = [column(loader, 2) for _ in range(3)]
    assert processes[0] == processes[1] == processes[2]
    assert sorted(wire.drain()) == [0, 1]


def test_persistent_workers_keep_their_copy_of_the_dataset_and_never_see_the_trainers_again(kind: Any) -> None:
    dataset = asking(4)
    loader = kind(dataset, num_workers=2, persistent_workers=True)
    assert column(loader, 3) == [1, 1, 2, 2]
    dataset.mark = 7
    batches = list(loader)
    assert (column(batches, 3), column(batches, 4)) == ([3, 3, 4, 4], [0] * 4)


def test_workers_that_are_not_persistent_are_new_in_each_epoch_and_so_is_the_dataset(kind: Any) -> None:
    dataset = asking(4)
    loader = kind(dataset, num_workers=2)
    first = list(loader)
    dataset.mark = 7
    second = list(loader)
    assert not set(column(first, 2)) & set(column(second, 2))
    assert (column(second, 3), column(second, 4)) == ([1, 1, 2, 2], [7] * 4)


def test_nested_loops_over_a_persistent_loader_share_one_iterator(kind: Any) -> None:
    loader = kind(Squares(3), num_workers=1, persistent_workers=True)
    assert [(int(one), int(two)) for one in loader for two in loader] == [(0, 0), (0, 1), (0, 4)]


def test_an_epoch_of_persistent_workers_that_was_left_early_is_followed_by_a_whole_one(kind: Any) -> None:
    loader = kind(asking(10), num_workers=2, persistent_workers=True)
    assert next(iter(loader))[0, 0] == 0
    batches = list(loader)
    assert column(batches, 0) == list(range(10))
    assert column(batches, 1) == [0, 1] * 5


def test_a_stream_begins_anew_in_each_epoch_of_persistent_workers(kind: Any) -> None:
    for early in (0, 1):
        loader = kind(Halves(10), num_workers=2, persistent_workers=True, collate_fn=as_is)
        for _, _ in zip(loader, range(early), strict=False):
            pass
        for _ in range(2):
            assert [batch[0][0] for batch in loader] == [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]


# -- Shutdown


def test_workers_end_with_their_epoch_unless_they_are_persistent(kind: Any) -> None:
    iterator = iter(kind(Squares(3), num_workers=2))
    list(iterator)
    assert [worker.exitcode for worker in iterator._workers] == [0, 0]
    loader = kind(Squares(3), num_workers=2, persistent_workers=True)
    list(loader)
    assert all(worker.is_alive() for worker in loader._iterator._workers)


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_end_when_nobody_has_their_iterator_any_more(kind: Any, persistent: bool) -> None:
    loader = kind(Squares(30), num_workers=2, persistent_workers=persistent)
    iterator = iter(loader)
    next(iterator)
    ends = watch(worker.pid for worker in iterator._workers)
    del iterator, loader
    gc.collect()
    wait_for_ends(ends)


@pytest.mark.parametrize("read", [0, 1, 3])
def test_shutting_down_ends_all_workers_and_may_be_repeated(kind: Any, read: int) -> None:
    iterator = iter(kind(Squares(3), num_workers=2, persistent_workers=True))
    for _ in range(read):
        next(iterator)
    for _ in range(2):
        iterator._shutdown_workers()
        assert not any(worker.is_alive() for worker in iterator._workers)


@differs(
    "an epoch with holes is worse than none",
    torch="the batches that happen to have arrived, without those between them",
    ours="no more batches",
)
def test_an_iterator_whose_workers_were_shut_down(kind: Any, stock: bool) -> None:
    iterator = iter(kind(Squares(9), num_workers=2))
    next(iterator)
    iterator._shutdown_workers()
    rest = flat(iterator)
    assert len(rest) < 5 if stock else rest == []


@differs(
    "a loader that was closed can be used again",
    torch="`RuntimeError` or an error of a closed queue",
    ours="new workers",
)
def test_a_persistent_loader_whose_workers_were_shut_down(kind: Any, stock: bool) -> None:
    loader = kind(Squares(3), num_workers=1, persistent_workers=True)
    list(loader)
    loader._iterator._shutdown_workers()
    if stock:
        with pytest.raises((RuntimeError, ValueError, AssertionError)):
            iter(loader)
    else:
        assert flat(loader) == [0, 1, 4]


def test_leaving_an_epoch_early_lets_workers_end_after_the_batch_they_are_at(kind: Any) -> None:
    class Endless(Stream):
        def __iter__(self) -> Iterator[int]:
            number = 0
            while True:
                yield number
                number += 1

    iterator = iter(kind(Endless(0), num_workers=1))
    assert next(iterator).item() == 0
    (worker,) = iterator._workers
    ends = watch([worker.pid])
    del iterator
    gc.collect()
    wait_for_ends(ends)
    assert worker.exitcode == 0


@differs(
    "an error that a program caught should not be followed by noise",
    torch="an ignored `AttributeError` is shown when it dies",
    ours="nothing is shown",
)
def test_an_iterator_that_could_not_be_built(kind: Any, stock: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreadable:
        def __iter__(self) -> Any:
            raise LookupError("nothing to read")

    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: ignored.append(unraisable.exc_type))
    with pytest.raises(LookupError) as failed:
        iter(kind(Squares(3), num_workers=1, batch_size=None, sampler=Unreadable()))
    failed.value.with_traceback(None)
    del failed
    gc.collect()
    assert ignored == [AttributeError] * stock


def test_nothing_happens_before_iter(kind: Any) -> None:
    before = _children()
    loader = kind(Squares(3), num_workers=2, persistent_workers=True)
    assert _children() == before
    assert flat(loader) == [0, 1, 4]


def test_nothing_is_prefetched_for_the_next_epoch(kind: Any, wire: Wire) -> None:
    def make(index: int) -> int:
        wire.send(index)
        return index

    loader = kind(Calls(4, make), num_workers=2, persistent_workers=True)
    list(loader)
    assert sorted(wire.drain()) == [0, 1, 2, 3]
    iterator = iter(loader)
    list(iterator)
    assert sorted(wire.drain()) == [0, 1, 2, 3]


def _children() -> set[int]:
    return {child.pid for child in psutil.Process(os.getpid()).children()}
