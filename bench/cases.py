"""What is measured, and which figures are aimed at. Names no framework: `datasets.py` makes the samples."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

WORKERS = 2
PREFETCH = 2  # batches ahead for each worker: the default of both loaders

IMAGES = 64
BYTES_UINT8 = IMAGES * 224 * 224 * 3
BYTES_FLOAT32 = 4 * BYTES_UINT8


class Aim(NamedTuple):
    """How many times better than torch a metric should be."""

    at_least: float
    strive: float | None = None


@dataclass(frozen=True)
class Metric:
    """A quantity of which less is better."""

    key: str
    title: str
    unit: str


WALL = Metric("wall_ms", "time", "ms")
TRAINER_CPU = Metric("trainer_cpu_ms", "trainer's CPU time", "ms")
TOTAL_CPU = Metric("total_cpu_ms", "total CPU time", "ms")
MEMORY = Metric("pss_mib", "peak memory", "MiB")
GROWTH = Metric("growth_mib", "peak memory beyond the program's own", "MiB")

NOT_MORE_CPU = {TOTAL_CPU: Aim(1, 3)}


@dataclass(frozen=True)
class Case:
    """One configuration that both loaders run.

    Attributes:
        name: as on the command line and in the results.
        title: as in tables and in the chart.
        samples: which dataset, by its name in `datasets.py`.
        aims: the metrics that tables show, the main one first, and what they should be.
        method: how it is measured, by its name in `trainer.py`.
        count: batches or epochs in one timed window, at least.
        batch_size: samples in a batch.
        workers: the loader's `num_workers`.
        collate: a custom `collate_fn`, by its name in `datasets.py`.
        shuffle: whether the order is random.
        rival: what Forebay is measured against, by its name in `trainer.py`.
        quick: whether a quick run has it, too.
    """

    name: str
    title: str
    samples: str
    aims: Mapping[Metric, Aim | None] = field(default_factory=dict)
    method: str = "handoff"
    count: int = 300
    batch_size: int = IMAGES
    workers: int = WORKERS
    collate: str | None = None
    shuffle: bool = False
    rival: str = "torch"
    quick: bool = True

    @property
    def loaders(self) -> tuple[str, str]:
        """Those that take turns."""
        return self.rival, "forebay"

    @property
    def main(self) -> Metric:
        """The metric that stands for the case."""
        return next(iter(self.aims))


def _in_memory(name: str, title: str, samples: str, rival: str, at_least: float) -> "Case":
    """A million samples of 32 numbers without workers, in random order."""
    aims = {WALL: Aim(at_least)}
    return Case(name, title, samples, aims, batch_size=256, workers=0, shuffle=True, rival=rival)


def _handoff(wall: Aim | None, trainer: Aim | None = None) -> Mapping[Metric, Aim | None]:
    return {WALL: wall, TRAINER_CPU: trainer, **NOT_MORE_CPU}


_NOT_SLOWER = {WALL: Aim(1)}

CASES = (
    Case("scalars", "64 scalars", "scalars", _handoff(Aim(15, 25)), count=600),
    Case("tokens", "16 x dict of three int64[1024]", "tokens", _handoff(Aim(18, 35)), batch_size=16),
    Case("stream", "the same, iterable dataset", "token-stream", _handoff(Aim(18, 35)), batch_size=16),
    Case("uint8", "64 x uint8[224, 224, 3]", "uint8", _handoff(Aim(9, 15), Aim(20, 40))),
    Case("float32", "64 x float32[3, 224, 224]", "float32", _handoff(Aim(7, 9)), count=100),
    Case("pairs", "64 x (uint8 image, label)", "pairs", _handoff(None), quick=False),
    Case("arrays", "64 x uint8 image, NumPy", "arrays", _handoff(None), quick=False),
    Case("token-arrays", "16 x token dict, NumPy", "token-arrays", _handoff(None), batch_size=16, quick=False),
    Case("collate", "custom collate_fn, uint8", "pairs", _handoff(Aim(5, 8)), collate="stack_pairs"),
    Case("scalars-0", "64 scalars", "scalars", _NOT_SLOWER, count=3000, workers=0),
    Case("tokens-0", "16 x dict of three int64[1024]", "tokens", _NOT_SLOWER, batch_size=16, workers=0, quick=False),
    Case("uint8-0", "64 x uint8[224, 224, 3]", "uint8", _NOT_SLOWER, workers=0),
    Case("float32-0", "64 x float32[3, 224, 224]", "float32", _NOT_SLOWER, count=50, workers=0, quick=False),
    _in_memory("in-memory", "256 of 1M x float32[32], TensorDataset", "rows", "torch", 10),
    _in_memory("in-memory-slicing", "the same, against data[order[i:i + 256]]", "rows", "slicing", 1 / 3),
    Case(
        "first-batch",
        "first batch of an epoch, new workers",
        "uint8",
        {WALL: Aim(1, 3), **NOT_MORE_CPU},
        method="first_batch",
        count=5,
    ),
    Case(
        "turn-around",
        "epoch of 50 x 64 scalars, persistent workers",
        "scalars",
        {WALL: Aim(5, 20), **NOT_MORE_CPU},
        method="turnaround",
        count=20,
    ),
    Case(
        "memory",
        "peak memory of trainer and workers, uint8 images",
        "uint8",
        {MEMORY: Aim(1, 2), GROWTH: None},
        method="memory",
        count=100,
    ),
)

BY_NAME = {case.name: case for case in CASES}

MEMCPY_BYTES = {"uint8": BYTES_UINT8, "float32": BYTES_FLOAT32}
"""The yard-stick: what one bare copy of a batch costs, for the cases whose batches are large."""
