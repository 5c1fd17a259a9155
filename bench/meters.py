"""Reading clocks, memory and counters of the trainer and its workers."""

import os
import re
import stat
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

MIB = 2**20


def workers() -> list[int]:
    """All processes that this one has started, and theirs."""
    return [child.pid for child in psutil.Process().children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process in nanoseconds' detail: its clock, as clock_getcpuclockid(3) names it."""
    return time.clock_gettime((~pid << 3) | 2)


@dataclass(frozen=True)
class Spent:
    """What a timed window took, in seconds."""

    wall: float
    trainer: float
    workers: float

    def per(self, count: int) -> dict[str, float]:
        """Milliseconds for each of `count` batches or epochs."""
        return {
            "wall_ms": self.wall / count * 1e3,
            "trainer_cpu_ms": self.trainer / count * 1e3,
            "total_cpu_ms": (self.trainer + self.workers) / count * 1e3,
        }


class Stopwatch:
    """Measures from its making to `stop`. The workers must be alive all the while."""

    def __init__(self) -> None:
        self._pids = workers()
        self._workers = sum(map(cpu_seconds, self._pids))
        self._trainer = time.process_time()
        self._wall = time.perf_counter()

    def elapsed(self) -> float:
        return time.perf_counter() - self._wall

    def stop(self) -> Spent:
        wall, trainer = self.elapsed(), time.process_time() - self._trainer
        return Spent(wall, trainer, sum(map(cpu_seconds, self._pids)) - self._workers)


@dataclass(frozen=True)
class Memory:
    """Memory of some processes, in bytes.

    Attributes:
        pss: their proportional set sizes: every page that one of them has mapped, once.
        files: the part of `pss` that are pages of files: programs and libraries, also of use to others.
        mapped: the part of `pss` that is shared memory.
        shared: shared memory that they hold open, mapped or not. Nobody maps torch's batches on their way, and
            `pss` would not count them.
    """

    pss: int
    files: int
    mapped: int
    shared: int

    @property
    def all(self) -> int:
        """Everything that they occupy."""
        return self.pss - self.mapped + max(self.shared, self.mapped)

    @property
    def own(self) -> int:
        """What would be free again if they ended, whatever else runs on the machine."""
        return self.all - self.files


def memory(pids: Sequence[int]) -> Memory:
    """The memory of `pids` now."""
    pss = files = mapped = 0
    segments: dict[tuple[int, int], int] = {}
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        pss += _kib(rollup, "Pss") * 1024
        files += _kib(rollup, "Pss_File") * 1024
        mapped += _kib(rollup, "Pss_Shmem") * 1024
        segments |= _segments(pid)
    return Memory(pss, files, mapped, shared=sum(segments.values()))


def _kib(rollup: str, key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB$", rollup, re.MULTILINE)
    return int(found.group(1)) if found else 0


def _segments(pid: int) -> dict[tuple[int, int], int]:
    """Shared memory that a process has descriptors of: which, and the bytes it occupies."""
    found: dict[tuple[int, int], int] = {}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
            status = descriptor.stat()
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith(("/dev/shm/", "/memfd:")) and stat.S_ISREG(status.st_mode):
            found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return found


COUNTERS = ("user ms", "system ms", "minor faults", "waits", "preemptions")


def counters(pids: Sequence[int]) -> Counter[str]:
    """What the kernel has counted for all of `pids` since they started."""
    return sum(map(_counters, pids), Counter())


def _counters(pid: int) -> Counter[str]:
    # The fields after the command's name, which may hold spaces and parentheses: see proc_pid_stat(5).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick_ms = 1000 // os.sysconf("SC_CLK_TCK")
    waits = preemptions = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        status = (thread / "status").read_text()
        waits += _switches(status, "voluntary")
        preemptions += _switches(status, "nonvoluntary")
    values = (int(fields[11]) * tick_ms, int(fields[12]) * tick_ms, int(fields[7]), waits, preemptions)
    return Counter(dict(zip(COUNTERS, values, strict=True)))


def _switches(status: str, kind: str) -> int:
    found = re.search(rf"^{kind}_ctxt_switches:\s+(\d+)$", status, re.MULTILINE)
    return int(found.group(1)) if found else 0
