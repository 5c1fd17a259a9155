"""What goes wrong in workers: exceptions of every kind, deaths, and shortages."""

import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from observing import PYTORCH, Face, Input, Missed, Section, Unobservable, epoch, error_words
from rows_data import NAMED, stream
from running import limit_descriptors

# -- Exceptions


class Faulty:
    """Three samples; the middle one is not made, but what `fault` does happens."""

    def __init__(self, fault: Callable[[], object]) -> None:
        self.fault = fault

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        if index == 1:
            self.fault()
        return index


class Rich(Exception):
    """Wants more than a text, and has attributes."""

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(code)
        self.where = where

    def __str__(self) -> str:
        return f"code {self.args[0]} in {self.where}"


class TwoParts(Exception):
    """Cannot be unpickled: its constructor wants two arguments, and `args` has one."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


class Message(Exception):
    """Has an attribute `message`, as torch's rules for exceptions ask for."""

    message = ""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class HoldsALock(Exception):
    def __init__(self, text: str = "it holds a lock") -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text today")


class Rude(BaseException):
    pass


def raising(make: Callable[[], BaseException], **options: Any) -> Callable[[Face], Any]:
    def fault() -> None:
        raise make()

    return lambda face: face(Faulty(fault), **options)


def _raises(title: str, make: Callable[[], BaseException], **more: Any) -> Input:
    options = more.pop("options", {})
    return Input(title, raising(make, **options), **more)


def _local() -> BaseException:
    class Local(Exception):
        pass

    return Local("from a local class")


def _with_note() -> BaseException:
    error = ValueError("bad sample")
    error.add_note("look at line 7")
    return error


def _undecodable() -> BaseException:
    return UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


def _recursing() -> None:
    _recursing()


def _no_workers(title: str, make: Callable[[], BaseException], **more: Any) -> Input:
    return _raises(title, make, options={"num_workers": 0}, **more)


DEATH = "says how, where and why, at every further next(); PyTorch ends the epoch as if it were complete"
ORIGINAL = "the original exception"
WARNS = "and a warning: the epoch seems complete"

EXCEPTIONS = [
    _raises("ValueError", lambda: ValueError("bad sample")),
    _raises("NotImplementedError without a text", NotImplementedError),
    _raises("KeyError", lambda: KeyError("missing")),
    _raises("IndexError", lambda: IndexError("no such row")),
    _raises("AssertionError without a text", AssertionError),
    _raises("FileNotFoundError with a file's name", lambda: FileNotFoundError(errno.ENOENT, "gone", "a.jpg")),
    _raises("UnicodeDecodeError, of five arguments", _undecodable, numpy_reason=ORIGINAL),
    _raises(
        "CalledProcessError, of two arguments",
        lambda: subprocess.CalledProcessError(3, "convert"),
        numpy_reason=ORIGINAL,
    ),
    _raises("ExceptionGroup", lambda: ExceptionGroup("two", [ValueError("a"), TypeError("b")]), numpy_reason=ORIGINAL),
    _raises("MemoryError", lambda: MemoryError("no room")),
    Input("RecursionError", lambda face: face(Faulty(_recursing))),
    _raises("with a note", _with_note),
    _raises("with arguments by name, and attributes", lambda: Rich(7, where="there")),
    _raises("that cannot be unpickled", lambda: TwoParts("one", "two")),
    _raises("with an attribute `message`", lambda: Message("the message")),
    _raises("that holds a lock", HoldsALock, numpy_reason="the original cannot travel; its traceback does"),
    _raises("of a local class", _local, hangs=True),
    _raises("whose text raises", Mute),
    _raises("a long text", lambda: ValueError("long " * 100)),
    _raises("a text of many lines", lambda: ValueError("first line\nsecond line\n  third line")),
    _raises("StopIteration", lambda: StopIteration(), reason=WARNS, numpy_reason=WARNS, whole=True),
    _no_workers("…, no workers", lambda: StopIteration(), numpy_reason=WARNS),
    _no_workers("ValueError, no workers", lambda: ValueError("bad sample")),
    _no_workers("KeyError, no workers", lambda: KeyError("missing")),
    _no_workers("KeyboardInterrupt, no workers", KeyboardInterrupt),
    _no_workers("SystemExit, no workers", lambda: SystemExit(3)),
]


# -- Other places


class RaisesAtOnce(Faulty):
    def __getitems__(self, indices: list[int]) -> Any:
        if 1 in indices:
            raise ValueError("bad batch")
        return indices


class WrongArity:
    def __len__(self) -> int:
        return 3

    def __getitem__(self) -> int:  # noqa: PLE0302 - the mistake is the input
        return 1


class NoItems:
    def __len__(self) -> int:
        return 3


def _collate_odd(samples: list[Any]) -> Any:
    if 1 in samples:
        raise ArithmeticError("collate_fn refuses")
    return np.array(samples)


def _refuse(worker: int) -> None:
    raise OSError(f"no database for worker {worker}")


def _exit(_worker: int) -> None:
    os._exit(9)


def _segfault() -> None:
    ctypes.string_at(0)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _abort() -> None:
    os.abort()


def dying(**options: Any) -> Callable[[Face], Any]:
    """A loader whose first batch is a worker's death."""

    def given(face: Face) -> Any:
        found = epoch(face(**options))
        # In torch a signal's handler, a dead queue and a poll race to tell it, each in its own words.
        told = [
            isinstance(outcome, Missed) and isinstance(outcome.error, (RuntimeError, OSError, EOFError))
            for outcome in found
        ]
        if face.name == PYTORCH and found and all(told):
            return "`RuntimeError: DataLoader worker (pid N) exited unexpectedly`; then the epoch ends"
        return found

    return given


def _dies(title: str, fault: Callable[[], object]) -> Input:
    return _fatal(title, dataset=Faulty(fault), sampler=[1])


def _fatal(title: str, **options: Any) -> Input:
    return Input(title, dying(**options), alone=True, reason=DEATH, numpy_reason=DEATH)


def _in_stream(fault: Callable[[], object]) -> Callable[[Face], Any]:
    """A stream that ends its worker."""

    def samples(_info: Any) -> Iterator[int]:
        fault()
        yield 0

    return lambda face: dying(dataset=stream(face, samples))(face)


def _raise(error: BaseException) -> None:
    raise error


def _never() -> None:
    threading.Event().wait()


PLACES = [
    Input("`__getitems__` raises", lambda face: face(RaisesAtOnce(_never))),
    Input("`collate_fn` raises", lambda face: face(range(3), collate_fn=_collate_odd)),
    Input("`collate_fn` of no argument", lambda face: face(range(2), collate_fn=lambda: 0)),
    Input("`worker_init_fn` raises", lambda face: face(range(2), batch_size=2, worker_init_fn=_refuse)),
    Input("`__getitem__` of no argument", lambda face: face(WrongArity(), batch_size=3)),
    Input("no `__getitem__`", lambda face: face(NoItems(), batch_size=3), reason=NAMED, numpy_reason=NAMED),
    Input("a sample that takes longer than `timeout=0.5`", lambda face: face(Faulty(_never), timeout=0.5, sampler=[1])),
    _dies("a worker calls `os._exit(9)`", lambda: os._exit(9)),
    _dies("a worker is killed (SIGKILL)", _kill),
    _dies("a worker crashes (SIGSEGV)", _segfault),
    _dies("a worker aborts (SIGABRT)", _abort),
    _fatal("`worker_init_fn` calls `os._exit(9)`", dataset=range(2), worker_init_fn=_exit),
    _dies("`sys.exit(3)` in a dataset", lambda: sys.exit(3)),
    _dies("GeneratorExit in a dataset", lambda: _raise(GeneratorExit())),
    _dies("KeyboardInterrupt in a dataset", lambda: _raise(KeyboardInterrupt())),
    _dies("a BaseException of one's own", lambda: _raise(Rude())),
    Input(
        "`sys.exit(3)` in an iterable dataset",
        _in_stream(lambda: sys.exit(3)),
        alone=True,
        reason=DEATH,
        numpy_reason=DEATH,
    ),
    Input(
        "an iterable dataset's worker is killed (SIGKILL)",
        _in_stream(_kill),
        alone=True,
        reason=DEATH,
        numpy_reason=DEATH,
    ),
]


# -- Starting workers


class Explodes:
    """Can be pickled, and not unpickled."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return index

    def __reduce__(self) -> Any:
        return _explode, ()


class ExplodingStream(torch.utils.data.IterableDataset):
    """The same, without indices."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(2))

    def __reduce__(self) -> Any:
        return _explode, ()


def _explode() -> None:
    raise ValueError("the archive is damaged")


class WithALock(Faulty):
    def __init__(self) -> None:
        self.parts = {"index": [threading.Lock()]}


THIS_FILE = os.fdopen(os.open(__file__, os.O_RDONLY), "rb", closefd=False)
ADVICE = "a note says what cannot be pickled and what to do, in place of the warning"
UNPICKLED = "the exception itself in a batch's place; PyTorch's worker dies of it"


ADVISED = {"reason": ADVICE, "numpy_reason": ADVICE}


def _local_dataset() -> Any:
    class Local(list):
        pass

    return Local([1, 2])


def _spawned(title: str, dataset: Callable[[], Any], **more: Any) -> Input:
    options = {"multiprocessing_context": "spawn", **more.pop("options", {})}
    return Input(title, lambda face: face(dataset(), **options), **(more or ADVISED))


STARTS = [
    _spawned("a plain dataset", lambda: range(2), options={"batch_size": 2}, alone=True),
    _spawned("a lambda as `collate_fn`", lambda: range(2), options={"collate_fn": lambda samples: samples}),
    _spawned("a lambda as `worker_init_fn`", lambda: range(2), options={"worker_init_fn": lambda _worker: None}),
    _spawned("a dataset of a local class", _local_dataset),
    _spawned("a dataset that holds a lock", WithALock, **ADVISED, whole=True),
    _spawned("a dataset that holds an open file", lambda: [THIS_FILE]),
    _spawned("a dataset that holds a generator", lambda: [(number for number in range(3))]),
    Input(
        "a dataset whose unpickling raises",
        dying(dataset=Explodes(), multiprocessing_context="spawn"),
        alone=True,
        reason=UNPICKLED,
        numpy_reason=UNPICKLED,
        whole=True,
    ),
    Input(
        "an iterable dataset whose unpickling raises",
        dying(dataset=ExplodingStream(), multiprocessing_context="spawn"),
        alone=True,
        reason=UNPICKLED,
        numpy_reason=UNPICKLED,
    ),
]


# -- Shortages


def _budget(face: Face, size: int) -> dict[str, Any]:
    return {} if face.name == PYTORCH else {"memory_budget": size}


class Large:
    def __init__(self, count: int, megabytes: int) -> None:
        self.count = count
        self.megabytes = megabytes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        return np.full(self.megabytes << 20, index, np.uint8)


class Hoarder(Faulty):
    """Keeps a file open for every sample."""

    def __init__(self) -> None:
        self.files: list[Any] = []

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> np.ndarray:
        if not self.files:
            limit_descriptors(64)
        self.files.append(Path("/dev/null").open("rb"))  # noqa: SIM115 - kept open on purpose
        return np.array([index])


def _up_to_errors(found: list[Any]) -> list[Any]:
    """How many batches come before descriptors are used up depends on who has how many open."""
    errors = {error_words(outcome.error): outcome for outcome in found if isinstance(outcome, Missed)}
    return ["some batches", *errors.values()] if errors else found


def _hoarded(face: Face) -> list[Any]:
    return _up_to_errors(epoch(face(Hoarder())))


def _kept(face: Face) -> list[Any]:
    limit_descriptors(64)
    samples = [face.array([number]) for number in range(500)]
    return _up_to_errors(epoch(face(samples, num_workers=8)))


_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000
_READ_ONLY, _PRIVATE, _RECURSIVE = 1, 1 << 18, 1 << 14


def _with_shm(flags: int, data: bytes) -> Callable[[Face], Any]:
    """A loader of four batches of 4 MiB, in a process whose /dev/shm is another file system."""

    def given(face: Face) -> Any:
        libc = ctypes.CDLL(None, use_errno=True)
        ids = os.getuid(), os.getgid()
        if libc.unshare(_NEW_USER | _NEW_MOUNTS):
            raise Unobservable(f"unshare: {os.strerror(ctypes.get_errno())}")
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {ids[0]} 1")
            Path("/proc/self/gid_map").write_text(f"0 {ids[1]} 1")
        except OSError as error:
            raise Unobservable(f"a user namespace: {error}") from None
        if libc.mount(None, b"/", None, _PRIVATE | _RECURSIVE, None) or libc.mount(
            b"none", b"/dev/shm", b"tmpfs", flags, data
        ):
            raise Unobservable(f"mount: {os.strerror(ctypes.get_errno())}")
        return face(Large(4, 4))

    return given


SHM = "there is nothing of Forebay's in /dev/shm"
BUDGET = "PyTorch has no budget"

SHORTAGES = [
    Input(
        "a batch larger than `memory_budget`",
        lambda face: face(Large(2, 4), **_budget(face, 1 << 20)),
        reason=BUDGET,
        numpy_reason=BUDGET,
    ),
    Input(
        "kept batches larger than `memory_budget`",
        lambda face: face(Large(20, 1), **_budget(face, 8 << 20)),
        reason=BUDGET,
        numpy_reason=BUDGET,
    ),
    Input(
        "a dataset that opens a file more for every sample, with 64 descriptors",
        _hoarded,
        alone=True,
        hangs=True,
        whole=True,
    ),
    Input("`ulimit -n 64`, 8 workers, 500 kept batches", _kept, alone=True, hangs=True),
    Input("a /dev/shm that cannot be written", _with_shm(_READ_ONLY, b""), alone=True, reason=SHM, numpy_reason=SHM),
    Input("a /dev/shm of 1 MiB, batches of 4 MiB", _with_shm(0, b"size=1m"), alone=True, reason=SHM, numpy_reason=SHM),
]

SECTIONS = [
    Section(
        "Exceptions of a dataset", "`__getitem__` raises it for the second of three samples, in a worker.", EXCEPTIONS
    ),
    Section("Other failures of a worker", "", PLACES),
    Section("Starting workers by spawn", "", STARTS),
    Section("Shortages", "", SHORTAGES),
]
