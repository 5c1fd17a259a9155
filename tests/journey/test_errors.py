"""What goes wrong in a worker is told at the batch's place, with where it happened, and loading goes on."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import forebay
import forebay.torch
from forebay.errors import LoaderTimeout, WorkerFailed
from support import (
    Front,
    Gate,
    Numbers,
    SlowFirst,
    identity,
)

# -- Errors


class Failing(Numbers):
    """Raises what `faults` says for an index."""

    def __init__(self, count: int, faults: dict[int, Callable[[], BaseException]]) -> None:
        super().__init__(count)
        self.faults = faults

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        if index in self.faults:
            fault = self.faults[index]()
            raise fault
        return super().__getitem__(index)


def _failing(front: Front, fault: Callable[[], BaseException], **options: Any) -> tuple[Exception, Iterator[Any]]:
    """The exception in place of batch 1 (indices 2 and 3) of 4, and the iterator behind it."""
    iterator = iter(front.DataLoader(Failing(8, {3: fault}), batch_size=2, num_workers=2, **options))
    assert np.array_equal(next(iterator), Numbers(8).batch([0, 1]))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the callers look at it
        next(iterator)
    return caught.value, iterator


def test_after_an_error_at_its_place_loading_goes_on(front: Front) -> None:
    error, iterator = _failing(front, lambda: ValueError("bad sample"))
    assert isinstance(error, ValueError)
    assert [np.asarray(batch).tolist() for batch in iterator] == [
        Numbers(8).batch(indices).tolist() for indices in ([4, 5], [6, 7])
    ]


def test_an_error_names_worker_batch_and_sample_in_a_note(front: Front) -> None:
    error, _ = _failing(front, lambda: ValueError("bad sample"))
    assert error.__notes__ == ["[forebay] worker 1, batch 1, sample index 3"]


@pytest.mark.parametrize("persistent", [False, True])
def test_the_batch_of_an_error_is_counted_from_the_epochs_begin(front: Front, persistent: bool) -> None:
    loader = front.DataLoader(Failing(4, {2: lambda: ValueError("x")}), num_workers=1, persistent_workers=persistent)
    for _ in range(2):
        iterator = iter(loader)
        next(iterator), next(iterator)
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - its note is what counts
            next(iterator)
        assert caught.value.__notes__ == ["[forebay] worker 0, batch 2, sample index 2"]
        assert len(list(iterator)) == 1
    loader.close()


class Rich(Exception):
    """Has attributes, and a constructor that wants more than a text."""

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(code)
        self.code = code
        self.where = where

    def __reduce__(self) -> Any:
        return _rich, (self.code, self.where)


def _rich(code: int, where: str) -> Rich:
    return Rich(code, where=where)


def test_the_torch_front_raises_torchs_type_and_text_with_the_original_as_cause() -> None:
    front = Front("torch", forebay.torch.DataLoader, torch.utils.data.get_worker_info, torch.Tensor)
    error, _ = _failing(front, lambda: FileNotFoundError(2, "gone", "a.jpg"))
    text = str(error)
    assert type(error) is FileNotFoundError
    assert text.startswith("Caught FileNotFoundError in DataLoader worker process 1.\nOriginal Traceback (most recent")
    assert "raise fault" in text
    assert "[Errno 2] gone: 'a.jpg'" in text
    assert isinstance(error.__cause__, FileNotFoundError)
    assert error.__cause__.filename == "a.jpg"


def test_the_numpy_front_raises_the_original_with_the_workers_traceback_as_cause() -> None:
    front = Front("numpy", forebay.DataLoader, forebay.get_worker_info, np.ndarray)
    error, _ = _failing(front, lambda: Rich(7, where="there"))
    assert type(error) is Rich
    assert (error.code, error.where) == (7, "there")
    assert "raise fault" in str(error.__cause__)


def test_an_exception_torch_cannot_construct_is_torchs_runtime_error_with_the_original_as_cause() -> None:
    front = Front("torch", forebay.torch.DataLoader, torch.utils.data.get_worker_info, torch.Tensor)
    error, _ = _failing(front, lambda: Rich(7, where="there"))
    assert type(error) is RuntimeError
    assert "Caught Rich in DataLoader worker process 1." in str(error)
    assert isinstance(error.__cause__, Rich)
    assert error.__cause__.where == "there"


def test_a_key_error_shows_the_workers_traceback_in_lines(front: Front) -> None:
    error, _ = _failing(front, lambda: KeyError("missing"))
    assert type(error) is KeyError
    shown = str(error) if front.name == "torch" else str(error.__cause__)
    assert "\n" in shown
    assert "KeyError: 'missing'" in shown


def test_the_cause_and_notes_of_a_workers_exception_are_in_the_text(front: Front) -> None:
    class Chained(Numbers):
        def __getitem__(self, index: int) -> Any:
            try:
                [].pop()
            except IndexError as inner:
                inner.add_note("look under the sofa")
                raise ValueError("outer") from inner

    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is what counts
        list(front.DataLoader(Chained(1), num_workers=1))
    text = str(caught.value) + str(caught.value.__cause__)
    assert all(part in text for part in ("IndexError: pop from empty list", "look under the sofa", "outer"))


def test_an_exception_of_an_unpicklable_class_still_tells_its_text_at_its_place(front: Front) -> None:
    class Local(Exception):
        pass

    error, iterator = _failing(front, lambda: Local("from a local class"))
    assert isinstance(error, RuntimeError)
    assert "Local" in str(error)
    assert "from a local class" in str(error) + str(error.__cause__)
    assert len(list(iterator)) == 2


class ExplodesWhenUnpickled(Exception):
    def __reduce__(self) -> Any:
        return _explode, ()


def _explode() -> None:
    raise MemoryError("while unpickling")


class ReducesToNonsense(Exception):
    def __reduce__(self) -> Any:
        return len, ("not an exception",)


class HoldsALock(Exception):
    def __init__(self) -> None:
        super().__init__(os.scandir("/"))


class Vast(Exception):
    def __str__(self) -> str:
        return "vast " * 4_000_000  # more than the budget


class Told(Exception):
    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"code {code} in {where}")


def test_the_text_of_an_exception_that_cannot_travel_to_the_numpy_front_has_its_own_and_its_traceback() -> None:
    front = Front("numpy", forebay.DataLoader, forebay.get_worker_info, np.ndarray)
    error, _ = _failing(front, lambda: Told(7, where="there"))
    assert type(error) is WorkerFailed
    text = str(error)
    assert text.startswith("worker 1 raised Told, which cannot be pickled")
    assert "Original Traceback (most recent call last)" in text
    assert "raise fault" in text
    assert text.rstrip().endswith("Told: code 7 in there")
    assert error.__cause__ is None


@pytest.mark.parametrize("kind", [ExplodesWhenUnpickled, ReducesToNonsense, HoldsALock, Vast])
def test_an_exception_that_cannot_travel_is_an_error_at_its_place_all_the_same(front: Front, kind: Any) -> None:
    error, iterator = _failing(front, kind, memory_budget=8 << 20)
    assert kind.__name__ in f"{type(error)}{error}{error.__cause__}"
    assert error.__notes__
    assert len(list(iterator)) == 2


@pytest.mark.parametrize("batch_size", [2, None])
def test_a_sample_that_cannot_be_pickled_is_an_error_that_names_worker_batch_and_sample(
    front: Front, batch_size: int | None
) -> None:
    class Lambdas(Numbers):
        def __getitem__(self, index: int) -> Any:
            return (lambda: index) if index == 3 else super().__getitem__(index)

    iterator = iter(front.DataLoader(Lambdas(6), batch_size=batch_size, num_workers=2, collate_fn=identity))
    good = 1 if batch_size else 3
    for _ in range(good):
        next(iterator)
    with pytest.raises(TypeError, match=r"worker 1.*sample of index 3|worker 1.*index 3") as caught:
        next(iterator)
    assert caught.value.__notes__ == [f"[forebay] worker 1, batch {good}, sample index 3"]
    assert len(list(iterator)) == (1 if batch_size else 2)


def _lambda_of(samples: list[Any]) -> Any:
    return (lambda: 0) if any(np.array_equal(sample, Numbers(6)[2]) for sample in samples) else samples


def test_a_batch_that_only_collate_fn_makes_unpicklable_is_an_error_at_its_place(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(6), batch_size=2, num_workers=1, collate_fn=_lambda_of))
    next(iterator)
    with pytest.raises(TypeError, match="worker 0 cannot send its batch") as caught:
        next(iterator)
    assert caught.value.__notes__ == ["[forebay] worker 0, batch 1"]
    assert len(list(iterator)) == 1


def test_a_tensor_in_an_autograd_graph_is_an_error_at_its_place() -> None:
    class InGraph(Numbers):
        def __getitem__(self, index: int) -> Any:
            made = torch.arange(3.0)
            return made.requires_grad_() * 2 if index == 1 else made

    iterator = iter(forebay.torch.DataLoader(InGraph(3), num_workers=1, collate_fn=identity))
    next(iterator)
    with pytest.raises(TypeError, match="detach"):
        next(iterator)
    assert len(list(iterator)) == 1


def _refuse_odd(samples: list[Any]) -> Any:
    if samples[0][0] == Numbers(6)[2][0]:
        raise ArithmeticError("collate_fn refuses")
    return samples


def test_an_exception_of_collate_fn_is_an_error_at_its_place(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(6), batch_size=2, num_workers=2, collate_fn=_refuse_odd))
    next(iterator)
    with pytest.raises(ArithmeticError, match="collate_fn refuses"):
        next(iterator)
    assert len(list(iterator)) == 1


def test_default_collate_that_fails_is_an_error_at_its_place(front: Front) -> None:
    class Ragged(Numbers):
        def __getitem__(self, index: int) -> Any:
            return np.zeros(3 if index == 2 else 2)

    iterator = iter(front.DataLoader(Ragged(6), batch_size=2, num_workers=2))
    next(iterator)
    with pytest.raises((RuntimeError, ValueError), match="stack expects each"):
        next(iterator)
    assert len(list(iterator)) == 1


def test_every_failing_batch_is_one_error(front: Front) -> None:
    dataset = Failing(6, {index: lambda: ValueError("always") for index in range(6)})
    iterator = iter(front.DataLoader(dataset, num_workers=2))
    for _ in range(6):
        with pytest.raises(ValueError, match="always"):
            next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)


# -- Time


def test_a_batch_that_does_not_come_in_time_is_a_timeout_that_names_worker_and_batch(front: Front, gate: Gate) -> None:
    dataset = SlowFirst(6, front.get_worker_info, gate)
    iterator = iter(front.DataLoader(dataset, batch_size=2, num_workers=2, timeout=0.2))
    with pytest.raises(
        RuntimeError, match=r"DataLoader timed out after 0\.2 seconds; worker 0 .*batch 0 of indices \[0, 1\]"
    ):
        next(iterator)
    gate.open()


def test_a_batch_that_timed_out_once_can_still_be_had(front: Front, gate: Gate) -> None:
    iterator = iter(front.DataLoader(SlowFirst(4, front.get_worker_info, gate), num_workers=2, timeout=0.2))
    with pytest.raises(LoaderTimeout):
        next(iterator)
    gate.open()
    found: list[Any] = []
    while len(found) < 4:
        try:
            found.append(next(iterator)[0, 0].item())
        except LoaderTimeout:  # a busy machine
            continue
    assert found == [0, 1, 2, 3]
