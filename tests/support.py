"""What several test files share: fronts, gates, watching processes, and datasets that spawned workers can import.

Does not import torch: workers of the NumPy front that are spawned stay cheap.
"""

import contextlib
import importlib
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import forebay

START_METHODS = ("fork", "forkserver", "spawn")


@dataclass(frozen=True)
class Front:
    """One of the two Python faces, with the names that differ."""

    name: str
    DataLoader: Any
    get_worker_info: Callable[[], Any]
    array: Any
    """The type of a batch's leaves."""


def front_named(name: str) -> Front:
    if name == "numpy":
        return Front(name, forebay.DataLoader, forebay.get_worker_info, np.ndarray)
    torch = importlib.import_module("torch")
    loader = importlib.import_module("forebay.torch").DataLoader
    return Front(name, loader, torch.utils.data.get_worker_info, torch.Tensor)


def values(batches: Iterable[Any]) -> list[Any]:
    """Arrays or tensors as lists of numbers."""
    return [batch.tolist() for batch in batches]


def flat(batches: Iterable[Any]) -> list[Any]:
    return [number for batch in batches for number in batch.tolist()]


def journey_of(iterator: Any) -> Any:
    """What both fronts' iterators drive."""
    return iterator._journey


def pids_of(iterator: Any) -> list[int]:
    return [process.pid for process in journey_of(iterator).processes]


def eventually(condition: Callable[[], Any]) -> None:
    """Returns when `condition` holds. That it ever does is for the watchdog to judge."""
    while not condition():
        time.sleep(0.002)


def is_running(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be reaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def exists(pid: int) -> bool:
    """Whether a process exists, as a zombie too."""
    return psutil.pid_exists(pid)


def watch(pids: Iterable[int]) -> list[int]:
    """Descriptors of those processes that have not ended yet."""
    pidfds = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            pidfds.append(os.pidfd_open(pid))
    return pidfds


def wait_for_ends(pidfds: Iterable[int]) -> None:
    """Returns when all processes behind the descriptors have ended."""
    pidfds = list(pidfds)
    try:
        for pidfd in pidfds:
            select.select([pidfd], [], [])
    finally:
        for pidfd in pidfds:
            with contextlib.suppress(ProcessLookupError):  # where the watchdog came first, nobody must be left
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


def until(kind: type[Exception], batches: Iterable[Any]) -> tuple[list[Any], Exception]:
    """The batches before an exception of this kind, and the exception."""
    found: list[Any] = []
    iterator = iter(batches)
    while True:
        try:
            found.append(next(iterator))
        except StopIteration:
            break
        except kind as error:
            return found, error
    raise AssertionError(f"no {kind.__name__} came")


def descriptor_count() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Gate:
    """Closed until opened, for all processes forked meanwhile. Opened once, it stays open."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()

    def open(self) -> None:
        os.write(self._in, b"!")

    def wait(self) -> None:
        select.select([self._out], [], [])

    def is_open(self) -> bool:
        return bool(select.select([self._out], [], [], 0)[0])

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)


class Wire:
    """Numbers from forked workers to the test, each written whole."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()

    def send(self, number: int) -> None:
        os.write(self._in, number.to_bytes(8, "little", signed=True))

    def receive(self) -> int:
        """The next number; waits for it."""
        return int.from_bytes(os.read(self._out, 8), "little", signed=True)

    def drain(self) -> list[int]:
        """All numbers that are there."""
        numbers = []
        while select.select([self._out], [], [], 0)[0]:
            numbers.append(self.receive())
        return numbers

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)


def in_child(action: Callable[[], object]) -> int:
    """Forks, runs `action` in the child, and tells its exit code: 0 when it returned, 1 when it raised."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException as error:  # noqa: BLE001 - the exit code is all that the parent sees
            os.write(2, f"in the forked child: {error!r}\n".encode())
        finally:
            os._exit(code)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except BaseException:  # the watchdog's: a child that hangs must not be left
        os.kill(pid, signal.SIGKILL)
        raise


class Program:
    """A Python program in a process group of its own, that tells the test what happens through a named pipe.

    Its text has `tell(words)`, which any of its processes may call, the front's `DataLoader`, and the start `METHOD`.
    """

    PRELUDE = """
        import importlib, os, sys
        FIFO = {fifo!r}
        def tell(words):
            pipe = os.open(FIFO, os.O_WRONLY)
            os.write(pipe, f"{{words}}\\n".encode())
            os.close(pipe)
        DataLoader = importlib.import_module({module!r}).DataLoader
        METHOD = {method!r}
    """

    def __init__(self, folder: Path, text: str, front: str = "numpy", method: str = "fork") -> None:
        self._fifo = folder / "told"
        os.mkfifo(self._fifo)
        # Open for writing too: then reading waits, instead of ending, while nobody has the other end open.
        self._pipe = os.open(self._fifo, os.O_RDWR)
        module = {"numpy": "forebay", "torch": "forebay.torch"}[front]
        prelude = textwrap.dedent(self.PRELUDE).format(fifo=str(self._fifo), module=module, method=method)
        script = folder / "program.py"
        script.write_text(prelude + textwrap.dedent(text))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def told(self, count: int) -> list[str]:
        """The next `count` lines; fails when the program ends before telling them."""
        lines: list[str] = []
        rest = b""
        while len(lines) < count:
            ready, _, _ = select.select([self._pipe], [], [], 0.1)
            if not ready and self.process.poll() is not None:
                raise AssertionError(f"the program ended early: {self.process.communicate()}")
            if ready:
                rest += os.read(self._pipe, 1)
                if rest.endswith(b"\n"):
                    lines.append(rest.decode().strip())
                    rest = b""
        return lines

    def end(self) -> tuple[int, str, str]:
        """Waits for the program: its exit code, and what it wrote to stdout and stderr."""
        stdout, stderr = self.process.communicate()
        return self.process.returncode, stdout, stderr

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        if not self.process.stdout.closed:
            self.process.communicate()
        os.close(self._pipe)


class Numbers:
    """`count` samples, each an int64 array of `size` numbers that no other index has."""

    def __init__(self, count: int, size: int = 4) -> None:
        self.count = count
        self.size = size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return np.arange(self.size) + index * 1_000_003

    def batch(self, indices: Iterable[int]) -> np.ndarray[Any, Any]:
        """What a batch of these indices must be."""
        return np.stack([self[index] for index in indices])

    def assert_epoch(self, batches: Sequence[Any], batch_size: int) -> None:
        """Fails unless `batches` are this dataset's, in order, bit for bit."""
        assert len(batches) == -(-self.count // batch_size)
        for number, batch in enumerate(batches):
            indices = range(number * batch_size, min((number + 1) * batch_size, self.count))
            assert np.array_equal(np.asarray(batch), self.batch(indices)), f"batch {number}"


class WhoAmI:
    """Samples tell who made them: worker number, process, and how many samples its dataset copy has made."""

    def __init__(self, count: int, info: Callable[[], Any]) -> None:
        self.count = count
        self.info = info
        self.made = 0
        self.mark = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        self.made += 1
        info = self.info()
        return np.array([index, info.id, os.getpid(), self.made, self.mark, info.seed])


class SlowFirst(WhoAmI):
    """Index 0 is not done before the gate is opened."""

    def __init__(self, count: int, info: Callable[[], Any], gate: Gate) -> None:
        super().__init__(count, info)
        self.gate = gate

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        if index == 0:
            self.gate.wait()
        return super().__getitem__(index)


def generator(front: Front, seed: int) -> Any:
    """What the front takes as a `generator`."""
    if front.name == "numpy":
        return np.random.default_rng(seed)
    return importlib.import_module("torch").Generator().manual_seed(seed)


def identity(batch: Any) -> Any:
    return batch


def chunks(count: int, size: int) -> Iterator[list[int]]:
    for start in range(0, count, size):
        yield list(range(start, min(start + size, count)))


class Grown:
    """Samples made from their index by a tree of names of `leaves`."""

    leaves: dict[str, Callable[[int], Any]]

    def __init__(self, tree: Any, count: int) -> None:
        self.tree = tree
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        return grow(self.tree, int(index), self.leaves)


def grow(tree: Any, index: int, leaves: dict[str, Callable[[int], Any]]) -> Any:
    if isinstance(tree, str):
        return leaves[tree](index)
    if isinstance(tree, dict):
        return {key: grow(branch, index, leaves) for key, branch in tree.items()}
    branches = [grow(branch, index, leaves) for branch in tree]
    return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)


class Interruption:
    """Ctrl-C, as it comes at the `line`-th line of Python that a block runs."""

    def __init__(self, line: int) -> None:
        self._left = line
        self.came = False

    def __enter__(self) -> "Interruption":
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        sys.settrace(self._before)
        return kind is KeyboardInterrupt

    def _trace(self, frame: Any, event: str, _argument: Any) -> Any:
        if frame.f_code is Interruption.__exit__.__code__:
            return None
        if event == "line" and not self.came:
            self._left -= 1
            if self._left == 0:
                self.came = True
                raise KeyboardInterrupt
        return self._trace
