"""A trainer: one case through one loader, in a process of its own.

Started by `run.py` as `python bench/trainer.py CASE LOADER`. It takes one command a line on its standard input and
answers each with a line of JSON: two trainers can measure in turn, and neither sees the other's memory.
"""

import gc
import hashlib
import json
import mmap
import os
import resource
import statistics
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
import torch.utils.data
from torch.utils.data import TensorDataset

import breakdown
from cases import BY_NAME, PREFETCH, Case
from datasets import COLLATES, DATASETS
from meters import MIB, Spent, Stopwatch, memory, workers

Loader = torch.utils.data.DataLoader[Any]

ENDLESS = 10**7  # batches: more than any window takes
PROFILE_S = 1.0  # the kernel counts user and system time in ticks of 10 ms
CHECKED = 12  # batches that are compared
EPOCH_BATCHES = 50
SHORT_EPOCH_BATCHES = 4


class Slicing:
    """What users write who need no loader: rows of a tensor, in an order of their own."""

    def __init__(self, dataset: TensorDataset, batch_size: int) -> None:
        (self.data,) = dataset.tensors
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        order = torch.randperm(len(self.data), generator=self._generator())
        for start in range(0, len(order), self.batch_size):
            yield [self.data[order[start : start + self.batch_size]]]

    @staticmethod
    def _generator() -> torch.Generator:
        """Draws as a loader does: a seed for workers first, then one for the order."""
        _, seed = (int(torch.empty((), dtype=torch.int64).random_().item()) for _ in range(2))
        return torch.Generator().manual_seed(seed)


def make_loader(case: Case, loader: str, batches: int, *, persistent: bool = False) -> Loader | Slicing:
    torch.manual_seed(0)
    if loader == "slicing":
        return Slicing(DATASETS[case.samples](0), case.batch_size)
    kind: type[Loader] = torch.utils.data.DataLoader
    if loader == "forebay":
        import forebay.torch
        from forebay.errors import FallbackWarning, MemoryBudgetWarning

        # Measuring torch under Forebay's name, or copies where views were meant, is no measurement.
        warnings.simplefilter("error", FallbackWarning)
        warnings.simplefilter("error", MemoryBudgetWarning)
        kind = forebay.torch.DataLoader
    return kind(
        DATASETS[case.samples](batches * case.batch_size),
        case.batch_size,
        case.shuffle,
        num_workers=case.workers,
        collate_fn=COLLATES[case.collate] if case.collate else None,
        persistent_workers=persistent,
        multiprocessing_context="fork" if case.workers else None,
    )


def read(batch: Any) -> None:
    """Reads one byte of every page of a batch, as a trainer that copies it to its device would at least."""
    if isinstance(batch, torch.Tensor):
        np.add.reduce(batch.numpy().reshape(-1).view(np.uint8)[:: mmap.PAGESIZE])
    elif isinstance(batch, dict):
        for value in batch.values():
            read(value)
    else:
        for value in batch:
            read(value)


@dataclass(frozen=True)
class Window:
    """How long to measure, at least: so many batches or epochs, and so many seconds."""

    count: int
    seconds: float


def take(iterator: Iterator[Any], count: int) -> None:
    for _ in range(count):
        read(next(iterator))


def warm_up(case: Case, iterator: Iterator[Any]) -> None:
    """Until every slot and every worker's copy of the samples has been used and the pipeline flows evenly."""
    take(iterator, 2 * PREFETCH * max(case.workers, 1))
    gc.collect()
    take(iterator, 2 * PREFETCH * max(case.workers, 1))


def handoff(case: Case, loader: str, window: Window) -> dict[str, float]:
    """The cost of a batch in the middle of an epoch; of any batch, where an epoch is shorter than the window."""
    iterator = chain.from_iterable(repeat(make_loader(case, loader, ENDLESS)))
    warm_up(case, iterator)
    taken = 0
    watch = Stopwatch()
    while taken == 0 or watch.elapsed() < window.seconds:
        take(iterator, window.count)
        taken += window.count
    return watch.stop().per(taken)


def first_batch(case: Case, loader: str, window: Window) -> dict[str, float]:
    """From `iter(loader)` to having the first batch, with new workers; CPU for all of a short epoch."""
    batches = make_loader(case, loader, SHORT_EPOCH_BATCHES)
    waits: list[float] = []
    cpu = _cpu_with_ended_children()
    for _ in range(window.count):
        start = time.perf_counter()
        iterator = iter(batches)
        take(iterator, 1)
        waits.append(time.perf_counter() - start)
        for batch in iterator:
            read(batch)
        del iterator
    trainer, ended = (now - then for now, then in zip(_cpu_with_ended_children(), cpu, strict=True))
    return Spent(statistics.median(waits) * len(waits), trainer, ended).per(len(waits))


def _cpu_with_ended_children() -> tuple[float, float]:
    mine, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return mine.ru_utime + mine.ru_stime, ended.ru_utime + ended.ru_stime


def turnaround(case: Case, loader: str, window: Window) -> dict[str, float]:
    """All of a short epoch with workers that stay, from `iter` to `StopIteration`."""
    batches = make_loader(case, loader, EPOCH_BATCHES, persistent=True)
    epochs: list[float] = []

    def epoch() -> None:
        start = time.perf_counter()
        for batch in batches:
            read(batch)
        epochs.append(time.perf_counter() - start)

    for _ in range(3):
        epoch()
    epochs.clear()
    watch = Stopwatch()
    while len(epochs) < window.count or watch.elapsed() < window.seconds:
        epoch()
    spent = watch.stop().per(len(epochs))
    return spent | {"wall_ms": statistics.median(epochs) * 1e3}


def peak_memory(case: Case, loader: str, window: Window) -> dict[str, float]:
    """The most memory that trainer and workers had at any fifth batch."""
    trainer = os.getpid()
    before = memory([trainer])
    iterator = iter(make_loader(case, loader, ENDLESS))
    samples = []
    for _ in range(window.count // 5):
        take(iterator, 4)
        batch = next(iterator)
        read(batch)
        samples.append(memory([trainer, *workers()]))
        del batch
    most = max(sample.all for sample in samples)
    return {
        "pss_mib": most / MIB,
        "growth_mib": (max(sample.own for sample in samples) - before.own) / MIB,
        "mapped_pss_mib": max(sample.pss for sample in samples) / MIB,
        "shared_mib": max(sample.shared for sample in samples) / MIB,
    }


def check(case: Case, loader: str, _window: Window) -> dict[str, str]:
    """A digest of types, shapes, strides and bytes of the first batches.

    Each batch is kept, and looked at when as many more have come as the loader works ahead. It must not change.
    """
    digest = hashlib.blake2b()
    kept: deque[Any] = deque()
    for batch in make_loader(case, loader, CHECKED):
        kept.append(batch)
        if len(kept) > PREFETCH * case.workers + 1:
            _add(digest, kept.popleft())
    for batch in kept:
        _add(digest, batch)
    return {"digest": digest.hexdigest()}


def _add(digest: "hashlib.blake2b", value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(f"{type(value)}{value.dtype}{tuple(value.shape)}{value.stride()}".encode())
        digest.update(value.numpy().tobytes())
    elif isinstance(value, dict):
        digest.update(f"{type(value)}{list(value)}".encode())
        for element in value.values():
            _add(digest, element)
    else:
        digest.update(f"{type(value)}{len(value)}".encode())
        for element in value:
            _add(digest, element)


def profile(case: Case, loader: str, window: Window) -> dict[str, Any]:
    """What the kernel did for a batch, counted while an epoch runs."""
    iterator = iter(make_loader(case, loader, ENDLESS))
    warm_up(case, iterator)
    watch = Stopwatch()
    take(iterator, window.count)
    enough = max(window.count, int(PROFILE_S / watch.elapsed() * window.count))
    return breakdown.watch(lambda: take(iterator, enough), enough)


COMMANDS: dict[str, Callable[[Case, str, Window], dict[str, Any]]] = {
    "check": check,
    "handoff": handoff,
    "first_batch": first_batch,
    "turnaround": turnaround,
    "memory": peak_memory,
    "profile": profile,
}


def main() -> None:
    # As in a worker. With 0 workers torch would stack on all cores, and wait for whichever is busy.
    torch.set_num_threads(1)
    case, loader = BY_NAME[sys.argv[1]], sys.argv[2]
    DATASETS[case.samples](0)  # its samples are made now
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command, count, seconds = line.split()
        window = Window(int(count), float(seconds))
        print(json.dumps(COMMANDS[command](case, loader, window)), flush=True)


if __name__ == "__main__":
    main()
