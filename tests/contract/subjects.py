"""What loaders are given in the tests of the contract. Spawned workers import it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from support import Gate, WhoAmI


class Squares(torch.utils.data.Dataset):
    """`count` integers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index * index


class Stream(IterableDataset):
    """`count` numbers, the same ones in every worker."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        return iter(range(self.count))


class Sized(Stream):
    """A stream that tells a length."""

    def __init__(self, count: int, told: int) -> None:
        super().__init__(count)
        self.told = told

    def __len__(self) -> int:
        return self.told


class Halves(IterableDataset):
    """Each worker gives its part of `count` numbers; the first number of worker `slow` waits for the gate."""

    def __init__(self, count: int, slow: int | None = None, gate: Gate | None = None) -> None:
        self.count = count
        self.slow = slow
        self.gate = gate

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        share = self.count // info.num_workers
        for number in range(info.id * share, (info.id + 1) * share):
            if self.gate is not None and info.id == self.slow:
                self.gate.wait()
            yield number, info.id


class Failing(Squares):
    """Some samples are exceptions."""

    def __init__(self, count: int, failures: dict[int, BaseException]) -> None:
        super().__init__(count)
        self.failures = failures

    def __getitem__(self, index: int) -> int:
        if index in self.failures:
            raise self.failures[index]
        return super().__getitem__(index)


class Calls(torch.utils.data.Dataset):
    """`count` samples, each what `make` gives for its index, in the process that makes it."""

    def __init__(self, count: int, make: Any) -> None:
        self.count = count
        self.make = make

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


def asking(count: int) -> WhoAmI:
    """Samples that tell who made them: index, worker, process, samples made, mark, seed."""
    return WhoAmI(count, get_worker_info)


def column(batches: Any, place: int) -> list[int]:
    """One number of each sample that `asking` gave."""
    return [number for batch in batches for number in batch[:, place].tolist()]


def as_is(batch: Any) -> Any:
    return batch
