"""Where the time of a batch goes: page faults, waits and system calls of the trainer and of its workers."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from meters import COUNTERS, counters, workers

SHOWN_CALLS = 8
ATTACH_S = 10.0


def watch(take: Callable[[], None], count: int) -> dict[str, Any]:
    """Runs `take`, which takes `count` batches, twice: undisturbed for the counters, then under strace."""
    roles = {"trainer": [os.getpid()], "workers": workers()}
    before = {role: counters(pids) for role, pids in roles.items()}
    start = time.perf_counter()
    take()
    found: dict[str, Any] = {"wall_ms": (time.perf_counter() - start) / count * 1e3}
    for role, pids in roles.items():
        now = counters(pids)
        found[role] = {"counters": {name: (now[name] - before[role][name]) / count for name in COUNTERS}}
    if shutil.which("strace"):
        with tempfile.TemporaryDirectory() as folder:
            for role, calls in _system_calls(take, roles, Path(folder)).items():
                found[role]["calls"] = {name: number / count for name, number in calls.most_common(SHOWN_CALLS)}
                found[role]["calls"]["all"] = calls.total() / count
    return found


def _system_calls(take: Callable[[], None], roles: dict[str, list[int]], folder: Path) -> dict[str, Counter[str]]:
    # The trainer last: from then on strace would follow what it starts.
    tracers = {role: _attach(roles[role], folder / role) for role in ("workers", "trainer") if roles[role]}
    take()
    for tracer in tracers.values():
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
    return {role: _parse((folder / role).read_text()) for role in tracers}


def _attach(pids: Sequence[int], summary: Path) -> subprocess.Popen[bytes]:
    """Starts strace and waits until it counts."""
    targets = [word for pid in pids for word in ("-p", str(pid))]
    command = ["strace", "-f", "-c", "-U", "name,calls", "-o", str(summary), *targets]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + ATTACH_S
    while not all(_is_traced(pid) for pid in pids):
        if tracer.poll() is not None or time.monotonic() > deadline:
            tracer.kill()
            raise SystemExit("strace cannot attach: may this user trace processes?")
        time.sleep(0.01)
    return tracer


def _is_traced(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return all("TracerPid:\t0\n" not in (thread / "status").read_text() for thread in threads)


def _parse(summary: str) -> Counter[str]:
    rows = re.findall(r"^\s*(\w+)\s+(\d+)\s*$", summary, re.MULTILINE)
    return Counter({name: int(number) for name, number in rows if name != "total"})


def show(loader: str, found: dict[str, Any]) -> None:
    """Prints what `watch` found."""
    print(f"\n{loader}: {found['wall_ms']:.3f} ms a batch. For each batch:")
    for role in ("trainer", "workers"):
        print(f"  {role:<8}", _line(found[role]["counters"]))
        if found[role].get("calls"):
            print(f"  {'':<8}  calls:", _line(found[role]["calls"]))


def _line(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
