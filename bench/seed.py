"""What `seed=` costs a sample that draws from all three generators: time, instructions, and where they go.

python bench/seed.py                  alone, half a minute
python bench/seed.py --instructions   counted by valgrind, some minutes: this machine's counters may not be for us

The loaders take turns in one process. Times are CPU times of trainer and workers, by their own clocks.
"""

import argparse
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forebay._engine import sample_seeds
from forebay._sample_seeds import SampleSeeds, lent_streams
from forebay.torch import DataLoader
from meters import Stopwatch

SAMPLES, BATCH, WORKERS = 20_000, 64, 2
ROUNDS = 7
REPEATS = 2000
COUNTED = 200
"""Repeats that valgrind counts."""
MOST_US = 15


class Drawing:
    """A sample is what it draws: one number from each generator."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> float:
        return draw(index)


def draw(_index: int) -> float:
    return random.random() + np.random.random() + torch.rand(()).item()


def loaders() -> dict[str, DataLoader[Any]]:
    options: dict[str, Any] = {"batch_size": BATCH, "num_workers": WORKERS, "persistent_workers": True}
    options["multiprocessing_context"] = "fork"
    return {
        "without": DataLoader(Drawing(), **options),  # type: ignore[arg-type]
        "with": DataLoader(Drawing(), seed=7, **options),  # type: ignore[arg-type]
    }


def measure() -> dict[str, Any]:
    """Microseconds a sample without and with a seed, their difference by rounds, and of each part."""
    found: dict[str, list[float]] = {"without": [], "with": []}
    pair = loaders()
    for _ in range(ROUNDS + 1):
        for name, loader in pair.items():
            batches = iter(loader)
            next(batches)
            watch = Stopwatch()
            count = sum(len(batch) for batch in batches)
            spent = watch.stop()
            found[name].append((spent.trainer + spent.workers) / count * 1e6)
    for loader in pair.values():
        loader.close()
    without, seeded = (values[1:] for values in found.values())
    cost = [more - less for less, more in zip(without, seeded, strict=True)]
    return {
        "without_us": statistics.median(without),
        "with_us": statistics.median(seeded),
        "cost_us": cost,
        "parts_us": {name: _microseconds(part) for name, part in parts().items()},
    }


def parts() -> dict[str, Callable[[int], object]]:
    """What is done for a sample, piece by piece."""
    seeds, generator = SampleSeeds(7, 0), torch.default_generator
    return {
        "nothing": lambda _index: None,
        "the key of a sample": lambda index: sample_seeds(7, 0, index),
        "random.seed": lambda index: random.seed(index << 40),
        "random.seed, first draw": lambda index: (random.seed(index << 40), random.random()),
        "numpy.random.seed": lambda index: np.random.seed(index),
        "numpy.random.seed, first draw": lambda index: (np.random.seed(index), np.random.random()),
        "torch's manual_seed": lambda index: generator.manual_seed(index),
        "torch's manual_seed, first draw": lambda index: (generator.manual_seed(index), torch.rand(()).item()),
        "drawing from all three": draw,
        "all that seed= does for a sample": seeds.set,
        "the same, drawing from all three": lambda index: (seeds.set(index), draw(index)),
        "for a batch without workers": lambda _index: _lend(),
    }


def _lend() -> None:
    with lent_streams():
        pass


def _microseconds(part: Callable[[int], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for index in range(REPEATS):
            part(index)
        best = min(best, time.process_time() - start)
    return best / REPEATS * 1e6


def instructions() -> dict[str, float]:
    """Instructions of each part, as valgrind counts them."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counted"
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        subprocess.run([*command, sys.executable, __file__, "--count"], check=True, stderr=subprocess.DEVNULL)
        dumps = sorted(out.parent.glob("counted.*"), key=lambda path: int(path.suffix[1:]))
        totals = [re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE) for dump in dumps]
    counts = [int(total[1]) / COUNTED for total in totals if total is not None][1::2]
    nothing = counts[0]  # the loop, and what it takes to switch the counting
    return {name: number - nothing for name, number in zip(parts(), counts, strict=True)}


def count() -> None:
    """Runs under valgrind: two dumps for each part, the second of it alone."""
    torch.set_num_threads(1)
    for part in parts().values():
        part(0)
        _control("-i", "on")
        part(1)
        _control("-d")
        for index in range(COUNTED):
            part(index)
        _control("-d")
        _control("-i", "off")


def _control(*words: str) -> None:
    subprocess.run(["callgrind_control", *words, str(os.getpid())], check=True, stdout=subprocess.DEVNULL)


def show() -> None:
    found = measure()
    cost = found["cost_us"]
    print(
        f"a sample that draws from all three: {found['without_us']:.1f} us without a seed, {found['with_us']:.1f} with;"
    )
    print(
        f"seed= costs {statistics.median(cost):.1f} us ({min(cost):.1f}-{max(cost):.1f}), at most {MOST_US} are asked"
    )
    for name, spent in found["parts_us"].items():
        print(f"  {name:<36}{spent:8.2f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--instructions", action="store_true", help="count instructions instead, by valgrind")
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        count()
    elif options.instructions:
        for name, number in instructions().items():
            print(f"  {name:<36}{number:12,.0f} instructions")
    else:
        show()


if __name__ == "__main__":
    main()
