"""What orders cost: the bijection of an epoch with a seed, and torch's random order, drawn by the engine and by torch.

python bench/order.py       alone, half a minute
"""

import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import RandomSampler

from forebay._engine import Shuffle
from forebay.torch._permutation import random_indices

ROUNDS = 5
BATCH = 256
LENGTHS = (5_000, 10**6, 10**7, 10**9, 2**30 + 1, 2**62 + 1)
"""One beyond a power of two is the worst: half of what is mapped leaves the range."""
INDICES = 2_000_000  # of each length, in a round
EPOCH = 10**9
SAMPLES = 10**7
DATA = range(SAMPLES)

LEAST_MILLIONS, MOST_START_MS, MOST_START_MB, MOST_RESUMED_MS = 20, 5, 1, 50
LEAST_RATIO = {"first index, ms": 10, "peak memory, MB": 10, "whole order, ms": 1}

Indices = Callable[[], Iterator[int]]


def _torchs() -> Iterator[int]:
    return iter(RandomSampler(DATA))


def _ours() -> Iterator[int]:
    return random_indices(RandomSampler(DATA))


def _shuffled() -> Iterator[int]:
    """The first batch's indices of an epoch with a seed."""
    indices = np.empty(BATCH, dtype=np.int64)
    Shuffle(EPOCH, 7, 0).fill(0, indices)
    return iter(indices.tolist())


ORDERS: dict[str, Indices] = {"torch": _torchs, "forebay": _ours, "shuffle": _shuffled}


def measure() -> dict[str, Any]:
    """`bijection`: millions of indices a second by length; `epoch`: its start; `torch`: comparisons with torch's."""
    bijection = {str(length): statistics.median(_millions(length) for _ in range(ROUNDS)) for length in LENGTHS}
    start_ms = statistics.median(_first_ms(_shuffled) for _ in range(ROUNDS))
    epoch = {"samples": EPOCH, "start_ms": start_ms, "start_mb": _in_new_process("shuffle", BATCH)}
    return {"bijection": bijection, "epoch": epoch, "torch": _comparisons(), "resumed_ms": _resumed_ms()}


def verdicts(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """Of each figure: what it is, itself, what was aimed at, and whether that is met."""
    if not found:
        return
    for length, millions in found["bijection"].items():
        name = f"bijection of {int(length):,}"
        yield name, f"{millions:.0f} M indices/s", f"{LEAST_MILLIONS} M/s", millions >= LEAST_MILLIONS
    start, memory = found["epoch"]["start_ms"], found["epoch"]["start_mb"]
    name = f"first batch of {EPOCH:,}, with a seed"
    yield name, f"{start:.2f} ms", f"{MOST_START_MS} ms", start <= MOST_START_MS
    yield name, f"{memory:.1f} MB", f"{MOST_START_MB} MB", memory <= MOST_START_MB
    for row in found["torch"]:
        name = f"torch's order of {SAMPLES:,}: {row['measure']}"
        figure = f"{row['forebay']:.1f} (torch {row['torch']:.1f}: {row['ratio']:.1f}x)"
        yield name, figure, f"{row['least']}x", row["ratio"] >= row["least"]
    for part, beyond in found["resumed_ms"].items():
        name = f"torch's order of {SAMPLES:,}: resumed at {part}"
        yield name, f"{beyond:.1f} ms beyond a start", f"{MOST_RESUMED_MS} ms", beyond <= MOST_RESUMED_MS


def _millions(length: int) -> float:
    shuffle, indices = Shuffle(length, 7, 0), np.empty(BATCH, dtype=np.int64)
    places = [place % (length - BATCH) for place in range(0, INDICES, BATCH)]
    start = time.perf_counter()
    for place in places:
        shuffle.fill(place, indices)
    return len(places) * BATCH / (time.perf_counter() - start) / 1e6


def _first_ms(order: Indices) -> float:
    return _ms(lambda: next(order()))


def _ms(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1e3


def _comparisons() -> list[dict[str, Any]]:
    measures: dict[str, Callable[[str], float]] = {
        "first index, ms": lambda whose: _first_ms(ORDERS[whose]),
        "whole order, ms": lambda whose: _ms(lambda: deque(ORDERS[whose](), maxlen=0)),
        "peak memory, MB": lambda whose: _in_new_process(whose, SAMPLES),
    }
    rows = []
    for what, of in measures.items():
        rounds = [(of("torch"), of("forebay")) for _ in range(ROUNDS)]
        theirs, ours = (statistics.median(values) for values in zip(*rounds, strict=True))
        ratio = statistics.median(torchs / forebays for torchs, forebays in rounds)
        rows.append({"measure": what, "torch": theirs, "forebay": ours, "ratio": ratio, "least": LEAST_RATIO[what]})
    return rows


def _resumed_ms() -> dict[str, float]:
    """To the first index at these parts of torch's order, in milliseconds beyond the start at its beginning."""

    def at(skip: int) -> float:
        return statistics.median(_ms(lambda: next(random_indices(RandomSampler(DATA), skip))) for _ in range(ROUNDS))

    start = at(0)
    return {str(part): at(int(SAMPLES * part)) - start for part in (0.1, 0.5, 0.9)}


def _in_new_process(whose: str, count: int) -> float:
    """Megabytes that drawing takes at its peak."""
    command = [sys.executable, str(Path(__file__).resolve()), "--memory", whose, str(count)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _memory_mb(whose: str, count: int) -> float:
    next(random_indices(RandomSampler(range(2))))  # whatever is loaded once
    torch.randperm(2)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = _status_kb("VmRSS")
    deque(islice(ORDERS[whose](), count), maxlen=0)
    return (_status_kb("VmHWM") - before) / 1e3


def _status_kb(name: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        print(_memory_mb(sys.argv[2], int(sys.argv[3])))
    else:
        for name, figure, aim, met in verdicts(measure()):
            print(f"{name:60} {figure:40} {aim:10} {'met' if met else 'MISSED'}")
