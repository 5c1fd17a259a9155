"""What only the loader can know about an error is told with it: which attribute, index, sample, file or call."""

import asyncio
import functools
import multiprocessing
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import forebay
import forebay.torch
from forebay import _culprit, _differences
from forebay.errors import EpochCutShortWarning, UnpicklableError, WorkerDied
from support import START_METHODS, Front, Numbers, Program, descriptor_count, flat, identity, until


def notes_of(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


def failure(loader: Any, kind: type[Exception] = Exception) -> Exception:
    error = until(kind, loader)[1]
    # Tracebacks hold iterators. One of torch's own must not be left to the garbage collector, which would close its
    # queues' pipes under the threads that use them.
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__context__
    return error


class Faulty(Numbers):
    """Index 3 is what a function returns or raises."""

    def __init__(self, fault: Callable[[], Any], count: int = 6) -> None:
        super().__init__(count)
        self.fault = fault

    def __getitem__(self, index: int) -> Any:
        return self.fault() if index == 3 else super().__getitem__(index)


# -- What cannot be pickled: to start a worker


class Holder:
    """A dataset with something in it."""

    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return index


class Slotted:
    __slots__ = ("lock",)


class InItsOwnWay:
    def __init__(self) -> None:
        self.part = threading.Lock()

    def __reduce__(self) -> Any:
        return InItsOwnWay, (), {"part": self.part}


class RefusesToBeLookedAt:
    def __reduce__(self) -> Any:
        raise RuntimeError("go away")

    def __getstate__(self) -> Any:
        raise RuntimeError("go away")


def local_class() -> Any:
    class Local:
        pass

    return Local


def _slotted() -> Slotted:
    made = Slotted()
    made.lock = threading.Lock()
    return made


CULPRITS: dict[str, tuple[Callable[[], Any], str]] = {
    "a lambda in a list": (lambda: Holder(steps=[len, lambda: 0]), r"^dataset\.steps\[1\] is a lambda \(.*test_advice"),
    "a lock in a dict": (lambda: {"a": {"b": threading.Lock()}}, r"^dataset\['a'\]\['b'\] is a _thread\.lock$"),
    "a slot": (lambda: [_slotted()], r"^dataset\[0\]\.lock is a _thread\.lock$"),
    "an own reduce": (lambda: Holder(own=InItsOwnWay()), r"^dataset\.own\.part is a _thread\.lock$"),
    "a refusal": (lambda: (RefusesToBeLookedAt(),), r"^dataset\[0\] is a .*RefusesToBeLookedAt$"),
    "a local class": (
        lambda: Holder(item=local_class()()),
        r"^dataset\.item is an instance of the local class .*Local",
    ),
    "a bound method": (lambda: Holder(x=lambda: 0).__len__, r"^dataset\.__self__\.x is a lambda"),
    "a partial": (lambda: functools.partial(print, {7: lambda: 0}), r"^dataset\.args\[0\]\[7\] is a lambda"),
    "an element of a set": (lambda: {threading.Lock()}, r"^dataset \(an element of it\) is a _thread\.lock$"),
    "a generator": (lambda: [(number for number in range(3))], r"^dataset\[0\] is a generator$"),
    "itself": (lambda: lambda: 0, "^dataset is a lambda"),
    "a tensor in a graph": (
        lambda: Holder(w=torch.ones(2, requires_grad=True) * 2),
        r"^dataset\.w is a torch\.Tensor$",
    ),
}


@pytest.mark.parametrize("name", CULPRITS)
def test_the_path_to_what_cannot_be_pickled_is_told(name: str) -> None:
    make, expected = CULPRITS[name]
    told = _culprit.in_luggage({"collate_fn": len, "dataset": make()})
    assert told is not None
    assert re.search(expected, told), told


def test_what_may_be_pickled_only_to_start_a_process_is_not_accused() -> None:
    context = multiprocessing.get_context("spawn")
    parts = {"lock": context.Lock(), "array": context.Array("i", 3), "queue": context.Queue(), "pipe": context.Pipe()}
    assert _culprit.in_luggage({"dataset": Holder(**parts)}) is None
    told = _culprit.in_luggage({"dataset": Holder(**parts, fault=threading.Lock())})
    assert told == "dataset.fault is a _thread.lock"


def test_a_search_for_what_cannot_be_pickled_ends_and_never_raises() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert _culprit.in_luggage({"dataset": endless}) is None
    deep: Any = threading.Lock()
    for _ in range(100_000):
        deep = [deep]
    assert _culprit.in_luggage({"dataset": deep}) is None
    many = [list(range(300_000)), threading.Lock()]
    assert _culprit.in_luggage({"dataset": many}) == "dataset[1] is a _thread.lock"
    far = [[object() for _ in range(300_000)], [[threading.Lock()]]]
    assert _culprit.in_luggage({"dataset": far}) == "dataset holds a _thread.lock"


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_cannot_be_sent_to_a_worker_is_named_in_a_note(front: Front, method: str) -> None:
    dataset = Holder(transforms=[len, Holder(fn=lambda: 0)])
    loader = front.DataLoader(dataset, num_workers=2, multiprocessing_context=method)
    with pytest.raises((AttributeError, TypeError, Exception)) as caught:  # pickle's own, which vary with versions
        iter(loader)
    assert "dataset.transforms[1].fn is a lambda" in notes_of(caught.value)
    assert repr(method) in notes_of(caught.value)


@pytest.mark.parametrize("option", ["collate_fn", "worker_init_fn"])
def test_a_function_that_cannot_be_sent_to_a_worker_is_named_too(front: Front, option: str) -> None:
    loader = front.DataLoader([1, 2], num_workers=1, multiprocessing_context="spawn", **{option: lambda _: 0})
    with pytest.raises(Exception, match="lambda") as caught:
        iter(loader)
    assert f"{option} is a lambda" in notes_of(caught.value)


def test_under_fork_nothing_is_pickled(front: Front) -> None:
    dataset = Holder(fn=lambda: 0, lock=threading.Lock())
    assert flat(front.DataLoader(dataset, num_workers=1, multiprocessing_context="fork")) == [0, 1]


# -- What cannot be pickled: in a batch


@pytest.mark.parametrize("batch_size", [2, None])
def test_the_path_in_a_sample_to_what_cannot_be_pickled_is_told(front: Front, batch_size: int | None) -> None:
    dataset = Faulty(lambda: {"image": 1, "meta": [0, Holder(lock=threading.Lock())]})
    error = failure(front.DataLoader(dataset, batch_size=batch_size, num_workers=2, collate_fn=identity))
    assert isinstance(error, TypeError)
    assert "the sample of index 3 holds a _thread.lock at ['meta'][1].lock" in str(error)
    assert "sample index 3" in notes_of(error)


def _with_a_lambda(samples: list[Any]) -> Any:
    return {"samples": samples, "later": [lambda: 0]}


def test_what_collate_fn_made_unpicklable_is_told_by_its_path_in_the_batch(front: Front) -> None:
    error = failure(front.DataLoader(Numbers(2), num_workers=1, collate_fn=_with_a_lambda))
    assert "what is to be sent holds a lambda" in str(error)
    assert "at ['later'][0]" in str(error)


def test_an_error_of_a_batch_that_cannot_be_pickled_can_itself_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(UnpicklableError("text", culprit=threading.Lock())))
    assert (str(error), error.culprit) == ("text", None)


# -- Descriptors


class KeepsFilesOpen(Numbers):
    """Opens two files per sample, and closes none."""

    def __init__(self, count: int, path: Path) -> None:
        super().__init__(count)
        self.path = path

    def __getitem__(self, index: int) -> Any:
        for _ in range(2):
            os.open(self.path, os.O_RDONLY)
        return super().__getitem__(index)


class WrappedInAnotherError(KeepsFilesOpen):
    def __getitem__(self, index: int) -> Any:
        try:
            return super().__getitem__(index)
        except OSError as error:
            raise KeyError("no such sample") from error


def _exhaust(_: Any) -> None:
    while True:
        os.dup(2)


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """A limit that this process, with what pytest has open, comes near to."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor_count() + 60, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("kind", [KeepsFilesOpen, WrappedInAnotherError])
def test_a_dataset_that_exhausts_descriptors_is_told_how_many_which_and_what_to_do(
    front: Front, kind: Any, few_descriptors: None, tmp_path: Path
) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(b"x")
    error = failure(front.DataLoader(kind(80, path), num_workers=1), (OSError, KeyError))  # type: ignore[arg-type]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert f"worker 0 has {limit} descriptors open (its limit is {limit}, " in notes_of(error)
    assert f"x {path}" in notes_of(error)
    assert "ulimit -n" in notes_of(error)


@pytest.mark.parametrize("option", ["collate_fn", "worker_init_fn"])
def test_functions_that_exhaust_descriptors_are_told_so_too(front: Front, option: str, few_descriptors: None) -> None:
    error = failure(front.DataLoader(Numbers(2), num_workers=1, **{option: _exhaust}), OSError)
    assert "worker 0 has" in notes_of(error)


def test_an_exhausted_trainer_is_told_so_and_works_again_when_the_limit_is_raised(tmp_path: Path) -> None:
    text = """
        import gc, resource
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        before = len(os.listdir("/proc/self/fd"))
        seen = set()
        for limit in range(before + 1, before + 36):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                list(DataLoader(range(4), num_workers=8))
            except (OSError, RuntimeError) as error:
                seen.add(any("the trainer has" in note and "lower num_workers" in note for note in error.__notes__))
            gc.collect()
            assert len(os.listdir("/proc/self/fd")) == before, limit
        assert seen == {True}, seen
        assert not __import__("multiprocessing").active_children()
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + 60, hard))
        print([batch.tolist() for batch in DataLoader(range(2), num_workers=8)])
    """
    with Program(tmp_path, text) as program:
        code, stdout, stderr = program.end()
    assert (code, stdout.strip()) == (0, "[[0], [1]]"), stderr  # a worker may lack a descriptor, too, and say so


@pytest.mark.parametrize("collate_fn", [None, identity])
def test_500_kept_batches_of_8_workers_need_no_more_than_64_descriptors(front: Front, collate_fn: Any) -> None:
    # In a process of its own: this one may have more than 64 open.
    code = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
sys.path[:0] = {sys.path!r}
from support import Numbers, front_named, identity
import numpy
loader = front_named({front.name!r}).DataLoader(Numbers(500, 2000), num_workers=8, collate_fn={
        "None" if collate_fn is None else "identity"
    })
kept = list(loader)
assert all(numpy.array_equal(numpy.asarray(batch[0]), Numbers(500, 2000)[i]) for i, batch in enumerate(kept))
print(len(kept))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "500", "")


def test_no_shared_memory_file_system_is_needed(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text("""
import os, forebay, forebay.torch
if __name__ == "__main__":
    assert os.listdir("/dev/shm") == [] and not os.access("/dev/shm", os.W_OK)
    for method in ("fork", "spawn", "forkserver"):
        for kind in (forebay.DataLoader, forebay.torch.DataLoader):
            loader = kind(range(4), batch_size=2, num_workers=2, multiprocessing_context=method)
            assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]
    print("served")
""")
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    without = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o ro none /dev/shm && exec "$0" "$@"']
    if subprocess.run([*without, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount")
    done = subprocess.run([*without, sys.executable, "-W", "ignore", str(script)], capture_output=True, check=False)
    assert (done.stdout, done.returncode) == (b"served\n", 0), done.stderr


# -- Samples that differ


GOOD: dict[str, Any] = {"image": np.zeros((3, 4)), "box": [1, 2], "name": "x"}

DIFFERENT: dict[str, tuple[Any, str, str]] = {
    "shape": ({**GOOD, "image": np.zeros((3, 5))}, " at ['image']", "has shape (3, 5)"),
    "length": ({**GOOD, "box": [1]}, " at ['box']", "has length 1"),
    "none": ({**GOOD, "image": None}, " at ['image']", "holds None"),
    "object": ({**GOOD, "image": object()}, " at ['image']", "holds an instance of object"),
    "key": ({"name": "x", "box": [1, 2]}, "", "lacks 'image'"),
    "kind": (7, "", "holds a number"),
}


class Samples(Numbers):
    """Good samples, but for index 3."""

    def __init__(self, other: Any) -> None:
        super().__init__(6)
        self.other = other

    def __getitem__(self, index: int) -> Any:
        return self.other if index == 3 else GOOD


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("difference", DIFFERENT)
def test_samples_that_cannot_be_collated_are_told_by_place_index_and_what_they_have(
    front: Front, difference: str, workers: int
) -> None:
    if front.name == "torch" and workers == 0:
        pytest.skip("torch's own iterator serves")
    other, place, said = DIFFERENT[difference]
    error = failure(front.DataLoader(Samples(other), batch_size=2, num_workers=workers))
    assert f"[forebay] samples differ{place}: index 2 h" in notes_of(error)
    assert f"index 3 {said}" in notes_of(error)


def test_torchs_type_and_text_stay_as_they_are_when_samples_differ() -> None:
    options: dict[str, Any] = {"batch_size": 2, "num_workers": 1}
    samples = Samples({**GOOD, "image": torch.zeros(3, 5)})
    theirs = failure(torch.utils.data.DataLoader(samples, **options))
    ours = failure(forebay.torch.DataLoader(samples, **options))
    assert type(ours) is type(theirs)
    assert str(ours).splitlines()[-1] == str(theirs).splitlines()[-1]
    assert "forebay]" not in str(ours)


def test_the_rarest_is_told_first_and_many_are_abridged() -> None:
    samples = [np.zeros(2)] * 9 + [np.zeros(3)]
    told = _differences.between(samples, range(10, 20))
    assert told == ("samples differ: index 19 has shape (3,), indices 10, 11, 12, 13 and 5 more have shape (2,)")
    ragged = _differences.between([np.zeros(n) for n in range(9)], None)
    assert ragged is not None
    assert ragged.startswith("samples differ: entry 0 has shape (0,), entry 1 has")
    assert ragged.endswith("and 5 more kinds")


def test_dtypes_that_differ_are_told_only_where_nothing_else_does() -> None:
    small, large = {"a": np.float32(1), "b": np.zeros(2, "f4")}, {"a": np.float32(1), "b": np.zeros(2, "f8")}
    told = _differences.between([small, large], [5, 6])
    assert told == "samples differ at ['b']: index 5 has dtype float32, index 6 has dtype float64"
    larger = {"a": np.float32(1), "b": np.zeros(3, "f8")}
    assert "shape" in str(_differences.between([small, larger], [5, 6]))


def test_what_no_sample_may_hold_is_told_by_its_place() -> None:
    told = _differences.between([{"a": [1, {2}]}, {"a": [1, {3}]}], [5, 6])
    assert told == "default_collate has no rule for what samples hold at ['a'][1]: indices 5, 6 hold an instance of set"


def test_equal_samples_and_those_that_contain_themselves_are_not_accused() -> None:
    assert _differences.between([GOOD, GOOD], [1, 2]) is None
    endless: list[Any] = []
    endless.append(endless)
    assert _differences.between([endless, endless], [1, 2]) is None


def _fails_by_itself(samples: list[Any]) -> None:
    raise ArithmeticError("of its own")


def test_an_error_of_somebodys_own_collate_fn_is_not_blamed_on_samples(front: Front) -> None:
    dataset = [np.zeros(1), np.zeros(2)]
    error = failure(front.DataLoader(dataset, batch_size=2, num_workers=1, collate_fn=_fails_by_itself))
    assert notes_of(error) == "[forebay] worker 0, batch 0"


# -- Indices


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ([1, 12], "the sampler gave 12, but the dataset has 10 samples"),
        ([-11], "the sampler gave -11, but the dataset has 10 samples"),
        (["a"], "the sampler gave 'a' of type str, which is not an integer"),
        ([1.0], "the sampler gave 1.0 of type float, which is not an integer"),
        ([None], "the sampler gave None of type NoneType, which is not an integer"),
    ],
)
def test_an_index_that_the_dataset_cannot_have_is_told(
    front: Front, sampler: list[Any], expected: str, workers: int
) -> None:
    if front.name == "torch" and workers == 0:
        pytest.skip("torch's own iterator serves")
    error = failure(front.DataLoader(list(range(10)), sampler=sampler, batch_size=2, num_workers=workers))
    assert isinstance(error, (IndexError, TypeError))
    assert f"sample index {sampler[-1]!r}" in notes_of(error)
    assert expected in notes_of(error)


def test_an_index_in_range_is_not_blamed(front: Front) -> None:
    def fault() -> None:
        raise IndexError("of something else")

    error = failure(front.DataLoader(Faulty(fault), num_workers=1))
    assert notes_of(error) == "[forebay] worker 0, batch 3, sample index 3"


class TakesAnyIndex(Numbers):
    def __getitem__(self, index: int) -> Any:
        return {index} if index > 3 else index


def test_an_index_beyond_the_length_is_not_blamed_when_the_dataset_takes_it(front: Front) -> None:
    error = failure(front.DataLoader(TakesAnyIndex(2), sampler=[1, 9], num_workers=1), TypeError)
    assert "default_collate has no rule" in notes_of(error)
    assert "the sampler gave" not in notes_of(error)


class InBulk(Numbers):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


def test_an_index_out_of_range_is_told_to_a_dataset_that_reads_in_bulk_too(front: Front) -> None:
    error = failure(front.DataLoader(InBulk(4), batch_sampler=[[0, 1], [2, 9]], num_workers=1))
    assert "the sampler gave 9, but the dataset has 4 samples" in notes_of(error)


def test_a_batch_sampler_that_gives_no_lists_is_told_so(front: Front) -> None:
    error = failure(front.DataLoader(Numbers(4), batch_sampler=[1, 2], num_workers=1), TypeError)
    assert "the batch sampler gave 1 of type int, where a list of indices belongs" in notes_of(error)
    assert "sample index" not in notes_of(error)


# -- The length


class OfLength:
    def __init__(self, length: Any) -> None:
        self.length = length

    def __len__(self) -> Any:
        if isinstance(self.length, Exception):
            raise self.length
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


class Without:
    def __getitem__(self, index: int) -> int:
        return index


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    "dataset", [OfLength(OSError("no index")), OfLength(-1), OfLength("4"), OfLength(4.0), Without()]
)
def test_a_length_that_cannot_be_had_is_the_same_error_as_in_torch(front: Front, dataset: Any, shuffle: bool) -> None:
    def outcome(kind: Any) -> tuple[type[BaseException], str]:
        try:
            list(kind(dataset, shuffle=shuffle, num_workers=1))
        except (OSError, ValueError, TypeError) as error:
            return type(error), str(error)
        raise AssertionError("no error came")

    assert outcome(front.DataLoader) == outcome(torch.utils.data.DataLoader)


def test_an_empty_dataset_cannot_be_shuffled_as_in_torch(front: Front) -> None:
    with pytest.raises(ValueError, match="num_samples should be a positive integer value, but got num_samples=0"):
        front.DataLoader([], shuffle=True, num_workers=1)


# -- Ends


def _raise(error: BaseException) -> Callable[[], Any]:
    def fault() -> None:
        raise error

    return fault


@pytest.mark.parametrize("batch_size", [1, None])
def test_a_stop_iteration_of_the_dataset_ends_the_loop_as_in_torch_with_a_warning(
    front: Front, batch_size: int | None
) -> None:
    dataset = Faulty(_raise(StopIteration()))
    with pytest.warns(EpochCutShortWarning, match=r"index 3, raised StopIteration \(worker 1, batch 3\)") as caught:
        assert len(list(front.DataLoader(dataset, batch_size=batch_size, num_workers=2))) == 3
    assert caught[0].filename == __file__
    assert len(list(torch.utils.data.DataLoader(dataset, batch_size=batch_size, num_workers=2))) == 3


def test_a_stop_iteration_without_workers_is_warned_of_too() -> None:
    with pytest.warns(EpochCutShortWarning, match=r"index 3, raised StopIteration: ") as caught:
        assert len(list(forebay.DataLoader(Faulty(_raise(StopIteration()))))) == 3
    assert caught[0].filename == __file__


def test_the_warning_of_a_stop_iteration_comes_once_per_iterator(front: Front) -> None:
    loader = front.DataLoader(Faulty(_raise(StopIteration())), num_workers=1, persistent_workers=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            assert len(list(loader)) == 3
    loader.close()
    assert [warning.category for warning in caught] == [EpochCutShortWarning]


ENDINGS: dict[str, tuple[Callable[[], BaseException], int, str]] = {
    "sys.exit(3)": (lambda: SystemExit(3), 3, r"sys\.exit\(3\) was called"),
    "sys.exit()": (lambda: SystemExit(), 0, r"sys\.exit\(\) was called"),
    "sys.exit('bye')": (lambda: SystemExit("bye"), 1, r"sys\.exit\('bye'\) was called"),
    "KeyboardInterrupt": (KeyboardInterrupt, 1, "KeyboardInterrupt was raised"),
    "GeneratorExit": (GeneratorExit, 1, "GeneratorExit was raised"),
    "CancelledError": (asyncio.CancelledError, 1, "CancelledError was raised"),
    "a base group": (lambda: BaseExceptionGroup("both", [KeyboardInterrupt()]), 1, "BaseExceptionGroup was raised"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_ends_a_process_ends_the_worker_which_tells_what_it_was_and_where(front: Front, ending: str) -> None:
    make, code, said = ENDINGS[ending]
    found, error = until(WorkerDied, front.DataLoader(Faulty(lambda: _raise(make())()), batch_size=2, num_workers=1))
    assert isinstance(error, WorkerDied)
    assert len(found) == 1
    assert (error.worker, error.exitcode, error.batches) == (0, code, [1])
    assert f"worker 0 exited with code {code} while it made batch 1 of indices [2, 3]" in str(error)
    assert re.search(said, str(error))
    assert "in fault" in str(error.__cause__)


def test_the_end_of_a_worker_by_its_last_batch_does_not_end_the_epoch(front: Front) -> None:
    loader = front.DataLoader(Faulty(lambda: sys.exit(0), count=4), num_workers=1)
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    for _ in range(3):
        with pytest.raises(WorkerDied, match=r"sys\.exit"):
            next(iterator)


def test_sys_exit_in_worker_init_fn_is_told(front: Front) -> None:
    with pytest.raises(WorkerDied, match=r"batch 0 \(in worker_init_fn\)\. Cause: sys\.exit\(\) was called"):
        list(front.DataLoader(Numbers(2), num_workers=1, worker_init_fn=lambda _: sys.exit()))


class WithMessage(Exception):
    message = "text"


class TakesMessage(Exception):
    message = "text"

    def __init__(self, message: str) -> None:
        super().__init__(message)


class NeedsMore(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(first)


class CannotBeShown(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class CannotBeReduced(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


KINDS: dict[str, BaseException] = {
    "several arguments": ValueError("a", 1),
    "a key error": KeyError("missing"),
    "a message attribute": WithMessage("x"),
    "a message argument": TakesMessage("x"),
    "a constructor that needs more": NeedsMore(1, 2),
    "a text that raises": CannotBeShown("x"),
    "a reduce that raises": CannotBeReduced("x"),
    "a group": ExceptionGroup("both", [ValueError(1), KeyError(2)]),
    "an error of the system": FileNotFoundError(2, "gone", "a.jpg"),
    "an error of Unicode": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why not"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_exception_is_the_one_that_torch_raises_with_the_workers_traceback(kind: str) -> None:
    dataset = Faulty(_raise(KINDS[kind]))
    theirs, ours = (
        failure(loader(dataset, num_workers=1)) for loader in (torch.utils.data.DataLoader, forebay.torch.DataLoader)
    )
    assert type(ours) is type(theirs)
    if kind != "a text that raises":
        assert str(ours).splitlines()[-1] == str(theirs).splitlines()[-1]
    assert "worker 0, batch 3, sample index 3" in notes_of(ours)
    shown: list[str] = []
    error: BaseException | None = ours
    while error is not None:
        if not isinstance(error, CannotBeShown):
            shown.append(str(error))
        error = error.__cause__
    assert "in fault" in "".join(shown)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_exception_is_itself_in_the_numpy_front_if_it_can_travel(kind: str) -> None:
    error = failure(forebay.DataLoader(Faulty(_raise(KINDS[kind])), num_workers=1))
    travels = kind not in {"a constructor that needs more", "a reduce that raises"}
    assert type(error) is (type(KINDS[kind]) if travels else forebay.errors.WorkerFailed)
    assert type(KINDS[kind]).__name__ in f"{type(error)}{'' if travels else error}"
    assert "in fault" in str(error.__cause__ if travels else error)


# -- Starting


PROGRAM_WITHOUT_MAIN = """
import forebay
list(forebay.DataLoader(range(2), num_workers=1, multiprocessing_context="spawn"))
"""


def test_a_program_that_spawned_workers_would_run_again_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM_WITHOUT_MAIN)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "belongs under if __name__ == '__main__'" in done.stderr.splitlines()[-1]


def test_workers_start_by_every_method_with_the_hook_of_uncaught_exceptions_as_it_was() -> None:
    for method in START_METHODS:
        loader = forebay.DataLoader([0], num_workers=1, collate_fn=_hook, multiprocessing_context=method)
        assert list(loader) == ["excepthook"]


def _hook(_: Any) -> str:
    return sys.excepthook.__name__
