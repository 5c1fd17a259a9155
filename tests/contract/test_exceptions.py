"""1.7 Exceptions of datasets, collate_fn and worker_init_fn: their place, type and text."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from laws import differs
from subjects import Calls, Failing, Squares, Stream
from torch.utils.data import get_worker_info

from support import Numbers, flat


def outcomes(iterator: Any) -> list[Any]:
    """Numbers, and exceptions in their places."""
    found: list[Any] = []
    while True:
        try:
            found.append(next(iterator).item())
        except StopIteration:
            return found
        except Exception as error:  # noqa: BLE001 - it is what is looked at
            found.append(error.with_traceback(None))


def raised(kind: Any, error: BaseException, **options: Any) -> BaseException:
    """What comes out of a loader whose worker raises `error`."""
    with pytest.raises(BaseException) as found:  # noqa: PT011 - the tests look at it
        list(kind(Failing(1, {0: error}), **{"num_workers": 1, **options}))
    return found.value.with_traceback(None)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_exception_stands_in_its_batchs_place_and_loading_goes_on(kind: Any, workers: int) -> None:
    dataset = Failing(5, {1: ValueError("bad"), 3: NotImplementedError("not yet")})
    found = outcomes(iter(kind(dataset, num_workers=workers)))
    assert [type(outcome) for outcome in found] == [int, ValueError, int, NotImplementedError, int]
    assert [found[place] for place in (0, 2, 4)] == [0, 4, 16]


def test_every_failing_batch_is_one_exception(kind: Any) -> None:
    errors = {index: KeyError(index) for index in range(6)}
    found = outcomes(iter(kind(Failing(6, errors), batch_size=2, num_workers=2)))
    assert [type(outcome) for outcome in found] == [KeyError] * 3


def test_without_workers_the_exception_is_the_original(kind: Any) -> None:
    original = ValueError("bad", 7)
    assert raised(kind, original, num_workers=0) is original


def test_a_workers_exception_keeps_its_type_and_tells_who_raised_it_and_where(kind: Any) -> None:
    error = raised(kind, NotImplementedError("not yet"))
    assert type(error) is NotImplementedError
    start = "Caught NotImplementedError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    text = str(error)
    assert text.startswith(start)
    assert re.search(r'File ".*subjects\.py", line \d+, in __getitem__', text)
    assert text.rstrip().endswith("NotImplementedError: not yet")


def test_the_number_of_the_worker_is_told(kind: Any) -> None:
    loader = kind(Failing(2, {1: ValueError("bad")}), num_workers=2)
    *_, error = outcomes(iter(loader))
    assert str(error).startswith("Caught ValueError in DataLoader worker process 1.\n")


def test_a_keyerror_shows_its_text_in_lines(kind: Any) -> None:
    error = raised(kind, KeyError("missing"))
    assert type(error) is KeyError
    assert str(error).startswith("Caught KeyError in DataLoader worker process 0.\nOriginal Traceback")
    assert "\\n" not in str(error)


class Messaged(Exception):
    message = ""

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message


def test_a_type_with_a_message_is_made_with_it(kind: Any) -> None:
    error = raised(kind, Messaged("bad"))
    assert type(error) is Messaged
    assert error.message.startswith("Caught Messaged in DataLoader worker process 0.")


class Demanding(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one, two)


def test_a_type_that_cannot_be_made_of_a_text_becomes_a_runtime_error(kind: Any) -> None:
    error = raised(kind, Demanding("a", "b"))
    assert type(error) is RuntimeError
    assert str(error).startswith("Caught Demanding in DataLoader worker process 0.")
    assert "Demanding: ('a', 'b')" in str(error)
    assert error.__suppress_context__


@differs(
    "arguments and attributes of the original, and where it happened, help to find the fault",
    torch="the text only",
    ours="the original is `__cause__`; notes name worker, batch and sample",
)
def test_what_is_left_of_the_original_exception(kind: Any, stock: bool) -> None:
    error = raised(kind, OSError(28, "No space left", "/data"))
    assert type(error) is OSError
    assert error.filename is None
    if stock:
        assert error.__cause__ is None
        assert not hasattr(error, "__notes__")
    else:
        assert (error.__cause__.errno, error.__cause__.filename) == (28, "/data")
        assert error.__notes__ == ["[forebay] worker 0, batch 0, sample index 0"]


def test_an_exception_of_collate_fn_stands_in_its_batchs_place(kind: Any) -> None:
    def collate(samples: list[int]) -> Any:
        if 1 in samples:
            raise ZeroDivisionError("one is too many")
        return torch.tensor(samples)

    found = outcomes(iter(kind(Squares(3), num_workers=2, collate_fn=collate)))
    assert [type(outcome) for outcome in found] == [int, ZeroDivisionError, int]


def test_an_exception_of_worker_init_fn_is_that_workers_first_batch(kind: Any) -> None:
    def init(worker: int) -> None:
        if worker == 1:
            raise OSError("no licence")

    iterator = iter(kind(Numbers(6), batch_size=None, num_workers=2, worker_init_fn=init))
    next(iterator)
    with pytest.raises(OSError, match=r"in DataLoader worker process 1\.[\s\S]*no licence"):
        next(iterator)
    assert next(iterator)[0] == Numbers(6)[2][0]


@differs(
    "a dataset that was never prepared gives no samples, only the same error again",
    torch="the next batch of that worker is an `UnboundLocalError` of torch's own",
    ours="the exception of `worker_init_fn` again, for every batch of that worker",
)
def test_after_an_exception_of_worker_init_fn_its_worker_gives_no_batch(kind: Any, stock: bool) -> None:
    def init(_: int) -> None:
        raise OSError("no licence")

    found = outcomes(iter(kind(Squares(3), num_workers=1, worker_init_fn=init)))
    assert [type(error) for error in found] == [OSError] + [UnboundLocalError if stock else OSError] * 2


class CannotBegin(Stream):
    def __iter__(self) -> Iterator[Any]:
        raise ConnectionError("no such server")


def test_an_exception_of_dunder_iter_is_that_workers_first_batch(kind: Any) -> None:
    iterator = iter(kind(CannotBegin(3), num_workers=1))
    with pytest.raises(ConnectionError, match=r"in DataLoader worker process 0\.[\s\S]*no such server"):
        next(iterator)


@pytest.mark.filterwarnings("ignore::forebay.errors.EpochCutShortWarning")
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_stopiteration_of_a_map_dataset_ends_the_loop(kind: Any, workers: int) -> None:
    dataset = Failing(5, {2: StopIteration()})
    assert flat(kind(dataset, num_workers=workers)) == [0, 1]


def test_an_exception_in_a_stream_stands_in_its_batchs_place_and_ends_a_generator(kind: Any) -> None:
    class Broken(Stream):
        def __iter__(self) -> Iterator[Any]:
            yield 0
            raise ValueError("bad line")

    for workers in (0, 1):
        found = outcomes(iter(kind(Broken(3), num_workers=workers)))
        assert [type(outcome) for outcome in found] == [int, ValueError]


@differs(
    "nobody should wait for ever; and the error names the worker, the sample and what in it cannot be pickled",
    torch="waits for ever (with a `timeout`: `RuntimeError` when it is over)",
    ours="`TypeError` in the batch's place, and loading goes on",
)
def test_a_batch_that_cannot_be_pickled_is_an_error(kind: Any, stock: bool, capfd: Any) -> None:
    dataset = Calls(2, lambda index: (lambda: 0) if index == 0 else index)
    iterator = iter(kind(dataset, num_workers=1, collate_fn=list, timeout=1 if stock else 0))
    if stock:
        with pytest.raises(RuntimeError, match="DataLoader timed out after 1 seconds"):
            next(iterator)
        return
    with pytest.raises(TypeError, match="cannot send its batch to the trainer"):
        next(iterator)
    assert next(iterator) == [1]


@differs(
    "nobody should wait for ever",
    torch="waits for ever (with a `timeout`: `RuntimeError` when it is over)",
    ours="`RuntimeError` with the exception's traceback as its text, in the batch's place",
)
def test_an_exception_of_a_class_that_cannot_be_pickled_is_an_error(kind: Any, stock: bool, capfd: Any) -> None:
    class Local(Exception):
        pass

    loader = kind(Failing(2, {0: Local("bad")}), num_workers=1, timeout=1 if stock else 0)
    iterator = iter(loader)
    with pytest.raises(RuntimeError) as failed:
        next(iterator)
    if stock:
        assert "DataLoader timed out after 1 seconds" in str(failed.value)
        return
    assert str(failed.value).rstrip().endswith("Local: bad")
    assert next(iterator).item() == 1


def test_an_error_of_one_worker_does_not_reach_another(kind: Any) -> None:
    def make(index: int) -> int:
        if get_worker_info().id == 1:
            raise ValueError("bad worker")
        return index

    found = outcomes(iter(kind(Calls(6, make), num_workers=2)))
    assert [type(outcome) for outcome in found] == [int, ValueError] * 3


@differs(
    "the batch was made: an error of the sampler takes its own turn",
    torch="at once, in the place of a batch that was ready and is lost",
    ours="after all batches that were sent before it",
)
def test_an_exception_of_the_sampler_is_raised_by_next(kind: Any, stock: bool) -> None:
    def sampler() -> Iterator[int]:
        yield from range(4)
        raise ConnectionError("the index server is gone")

    found = outcomes(iter(kind(Squares(9), sampler=sampler(), num_workers=1, prefetch_factor=2)))
    kinds = [type(outcome) for outcome in found]
    assert kinds == ([int, int, ConnectionError, int] if stock else [int, int, int, int, ConnectionError])
