"""Trains one small network through forebay's DataLoader and through torch's, and prints what each one cost.

Both loaders get the same arguments, the same seed and the same model, first on JPEG photographs (decoded and
augmented by torchvision in the workers), then on the same pictures decoded beforehand into one memory-mapped
file. Every run is made three times, the loaders taking turns; the table shows the median run and the range of
all. The losses must agree to the last bit: the order, the augmentation and the batches are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.data
from torch import Tensor, nn
from torchvision import datasets, transforms
from tqdm import tqdm

import forebay.torch
from photographs import CACHE, CLASSES, COUNT, SIDE, SourceMissing, decoded, photographs

LOADERS: dict[str, type[torch.utils.data.DataLoader[Any]]] = {
    "forebay": forebay.torch.DataLoader,
    "torch": torch.utils.data.DataLoader,
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SEED = 0
ROUNDS = 3  # Other work on the machine can slow any single run; an odd number has a median.
MEMMAP_PASSES = 10  # A pass over the decoded pictures is over in a blink; this many last a few seconds.


class MemmapPhotographs(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """The decoded pictures: each item is a row of the file, uint8 [224, 224, 3], and its label."""

    def __init__(self, pixels: Path, labels: Path) -> None:
        self.files = (pixels, labels)
        self.labels: list[int] = np.load(labels).tolist()
        # Mode "c" is private and writable, as torch wants its memory to be; nothing is ever written to it.
        rows = np.memmap(pixels, np.uint8, "c", shape=(len(self.labels), SIDE, SIDE, 3))
        self.rows = np.asarray(rows)  # a memmap makes a view of its own class, slowly, at every index

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.files  # Pickled for a spawned worker, the file is opened again, not copied.

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.rows[index]), self.labels[index]


class SmallNet(nn.Module):
    """Two small convolutions over every eighth pixel: cheap on purpose, so that loading is what shows."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.classes = nn.Linear(32, len(CLASSES))
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1) * 255)

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:  # the decoded rows: channels last, not normalised
            images = images.permute(0, 3, 1, 2)[..., ::8, ::8]
            images = (images.float() - self.mean) / self.std
        else:
            images = images[..., ::8, ::8]
        scores: Tensor = self.classes(self.features(images).mean((2, 3)))
        return scores


@dataclass
class Run:
    """What one loader did over one data set, once."""

    data: str
    loader: str
    images: int = 0
    seconds: float = 0.0
    first_batch: float = 0.0  # seconds from asking for the first epoch's iterator to holding its first batch
    waited: float = 0.0  # seconds spent inside iter() and next()
    losses: list[float] = field(default_factory=list)  # of every batch, all epochs
    mean_loss: float = 0.0  # over the last epoch
    rates: list[float] = field(default_factory=list)  # images/s of this run and its repetitions

    @property
    def rate(self) -> float:
        return self.images / self.seconds

    @property
    def waiting(self) -> float:
        return self.waited / self.seconds


def train(run: Run, make_loader: Callable[[], Any], epochs: int, max_batches: int | None = None) -> Run:
    """Trains a new model through a new loader, timing every next(). Same seed, same model, same batches."""
    torch.manual_seed(SEED)
    model = SmallNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    torch.manual_seed(SEED + 1)  # What the loader draws must not hang on what the model drew.
    loader = make_loader()
    total = epochs * len(loader)
    started = time.perf_counter()
    with tqdm(total=total, desc=f"{run.data}, {run.loader}", unit="batch", disable=None, leave=False) as bar:
        for _ in range(epochs):
            asked = time.perf_counter()
            batches = iter(loader)
            while (batch := next(batches, None)) is not None and len(run.losses) != max_batches:
                run.waited += time.perf_counter() - asked
                run.first_batch = run.first_batch or run.waited
                images, labels = batch
                loss = nn.functional.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.images += len(labels)
                run.losses.append(loss.item())
                bar.set_postfix(loss=f"{run.losses[-1]:.3f}", refresh=False)
                bar.update()
                asked = time.perf_counter()
            run.waited += time.perf_counter() - asked  # the last next(), which says that the epoch is over
    run.seconds = time.perf_counter() - started
    run.mean_loss = float(np.mean(run.losses[-len(loader) :]))
    return run


def compare(data: str, dataset: Any, epochs: int, options: argparse.Namespace) -> list[Run]:
    """Runs both loaders by turns, each warmed up before, and returns every run."""

    def make(name: str) -> Any:
        return LOADERS[name](
            dataset,
            batch_size=options.batch_size,
            shuffle=True,
            num_workers=options.workers,
            persistent_workers=epochs > 1 and options.workers > 0,
        )

    for name in LOADERS:
        train(Run(data, f"{name} (warm-up)"), partial(make, name), 1, max_batches=3)
    runs = []
    for turn in range(ROUNDS):
        for name in list(LOADERS)[:: 1 if turn % 2 == 0 else -1]:  # neither loader always goes first
            run = train(Run(data, name), partial(make, name), epochs)
            print(f"{data}, {name}: {run.images} images in {run.seconds:.1f} s, loss {run.mean_loss:.4f}")
            runs.append(run)
    return runs


def medians(runs: Sequence[Run]) -> list[Run]:
    """The run of median speed through each loader, told how fast the others were."""
    chosen = []
    for name in LOADERS:
        by_rate = sorted((run for run in runs if run.loader == name), key=lambda run: run.rate)
        median = by_rate[len(by_rate) // 2]
        median.rates = [run.rate for run in by_rate]
        chosen.append(median)
    return chosen


def item_cost(dataset: Any, items: int = 64) -> float:
    """Seconds that one item takes, measured alone in this process: work that no loader can save a worker."""
    picks = np.linspace(0, len(dataset) - 1, items).astype(int).tolist()
    started = time.perf_counter()
    for index in picks:
        dataset[index]
    return (time.perf_counter() - started) / items


def photograph_transform() -> transforms.Compose:
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(SIDE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def table(runs: Sequence[Run]) -> str:
    """The results as a Markdown table, padded so that it also reads well as plain text."""
    head = ["data", "loader", "images/s", "first batch", "waiting in next()", "mean loss"]
    body = [
        [
            run.data,
            run.loader,
            f"{run.rate:,.0f} ({min(run.rates):,.0f}-{max(run.rates):,.0f})",
            f"{run.first_batch * 1e3:.0f} ms",
            f"{run.waiting:.0%}",
            f"{run.mean_loss:.4f}",
        ]
        for run in runs
    ]
    widths = [max(len(row[column]) for row in [head, *body]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        left, right = zip(cells[:2], widths[:2], strict=True), zip(cells[2:], widths[2:], strict=True)
        return f"| {' | '.join([*(c.ljust(w) for c, w in left), *(c.rjust(w) for c, w in right)])} |"

    rule = [("-" * width if column < 2 else "-" * (width - 1) + ":") for column, width in enumerate(widths)]
    return "\n".join(map(line, [head, rule, *body]))


def reading(runs: Sequence[Run], item_seconds: float, workers: int) -> str:
    """One sentence saying what the numbers show, and no more than they show."""
    jpeg, jpeg_torch, rows, rows_torch = runs
    at_once = max(1, min(workers, os.cpu_count() or 1))  # items that can be worked on at the same time
    share = min(1.0, item_seconds * max(jpeg.rates + jpeg_torch.rates) / at_once)
    verb = "sets the pace until images are decoded natively"
    if share <= 0.5:
        verb = "leaves the rest to starting up and to other work on this machine"
    return (
        f"On the JPEG photographs forebay {versus(jpeg, jpeg_torch)}: decoding and augmenting one image "
        f"takes {item_seconds * 1e3:.1f} ms, whichever loader hands it on, which fills {share:.0%} of the "
        f"workers' time in the fastest run and {verb}; on the memory-mapped rows, where nothing is decoded "
        f"and the hand-off is most of a loader's work, forebay {versus(rows, rows_torch)}, and the trainer "
        f"waited {rows.waiting:.0%} of the time against {rows_torch.waiting:.0%}."
    )


def versus(ours: Run, theirs: Run) -> str:
    """Faster or slower only where the ranges of the runs lie apart, by more than a busy machine explains."""
    ratio = ours.rate / theirs.rate
    numbers = f"({ratio:.2f} times its images/s)"
    if 0.9 <= ratio <= 1.1:
        return f"was about as fast as torch {numbers}"
    if min(ours.rates) <= max(theirs.rates) and min(theirs.rates) <= max(ours.rates):
        return f"could not be told from torch, as the runs of each differ too much {numbers}"
    return f"was {'faster' if ratio > 1 else 'slower'} than torch {numbers}"


def parse_options() -> argparse.Namespace:
    def positive(text: str) -> int:
        if (number := int(text)) < 1:
            raise argparse.ArgumentTypeError(f"{number} is less than 1")
        return number

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--photos", type=positive, default=COUNT, help="size of the data set (%(default)s)")
    parser.add_argument("--batch-size", type=positive, default=64, help="images in a batch (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of a loader (%(default)s)")
    parser.add_argument("--epochs", type=positive, default=1, help="passes over the JPEGs (%(default)s)")
    options = parser.parse_args()
    if options.photos < max(options.batch_size, len(CLASSES)):
        parser.error(f"--photos {options.photos} is too few for one batch or for the {len(CLASSES)} classes")
    if options.workers < 0:
        parser.error(f"--workers {options.workers} must be 0 or more")
    return options


def save(runs: Sequence[Run], agree: dict[str, bool], sentence: str, options: argparse.Namespace) -> None:
    """Writes what was printed to .cache/demo-table.md and .cache/demo.json."""
    (CACHE / "demo-table.md").write_text(f"{table(runs)}\n\n{sentence}\n")
    result = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__},
        "options": vars(options),
        "runs": [asdict(run) | {"images_per_second": run.rate, "waiting": run.waiting} for run in runs],
        "losses_agree": agree,
        "reading": sentence,
    }
    (CACHE / "demo.json").write_text(json.dumps(result, indent=1) + "\n")


def main() -> int:
    options = parse_options()
    try:
        root = photographs(options.photos)
        pixels, labels = decoded(options.photos)
    except SourceMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    print(
        f"{os.cpu_count()} cores, {options.workers} workers, batches of {options.batch_size}. The trainer "
        f"has one thread, to leave a core to the workers. After a warm-up each, the loaders run by turns "
        f"({' then '.join(LOADERS)}, then the other way round), {ROUNDS} times."
    )
    jpegs = datasets.ImageFolder(str(root), photograph_transform())
    for file in [pixels, *(Path(path) for path, _ in jpegs.samples)]:
        file.read_bytes()  # The page cache holds everything before the first measurement.
    item_seconds = item_cost(jpegs)
    memmap = MemmapPhotographs(pixels, labels)
    runs, agree = [], {}
    for data, dataset, epochs in (("JPEG", jpegs, 1), ("memmap", memmap, MEMMAP_PASSES)):
        made = compare(data, dataset, epochs * options.epochs, options)
        agree[data] = all(run.losses == made[0].losses for run in made)
        runs += medians(made)
    sentence = reading(runs, item_seconds, options.workers)
    save(runs, agree, sentence, options)
    verdicts = ", ".join(f"{data} {'agree exactly' if same else 'DIFFER'}" for data, same in agree.items())
    print(f"\n{table(runs)}\n\nLosses of all batches of all runs: {verdicts}.\n\n{sentence}")
    return 0 if all(agree.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
