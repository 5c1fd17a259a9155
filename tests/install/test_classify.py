"""An unmodified program that trains a classifier: `forebay run` serves it, and it learns the same, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from programs import Ended, forebay_run, python

PROGRAM = Path(__file__).parents[2] / "examples" / "classify.py"
SMALL = ["--model", "squeezenet1_1", "--size", "32", "--samples", "16", "--batch-size", "4", "--workers", "2"]


def photographs(folder: Path) -> None:
    """Two classes of pictures of different sizes, the sizes and colours of each its own."""
    for part, count in (("train", 6), ("val", 3)):
        for number, kind in enumerate(("dark", "bright")):
            place = folder / part / kind
            place.mkdir(parents=True)
            for index in range(count):
                pixels = np.random.default_rng([number, index, count]).integers(0, 128, (40 + index, 50, 3))
                Image.fromarray((pixels + 127 * number).astype(np.uint8)).save(place / f"{index}.jpg")


def printed(ended: Ended) -> list[str]:
    """All but how fast it was."""
    assert ended.code == 0, ended.stderr
    return [line for line in ended.stdout.splitlines() if "per second" not in line]


@pytest.mark.parametrize("source", ["made up", "folder"])
def test_the_losses_are_the_same_and_the_log_shows_who_served(source: str, tmp_path: Path) -> None:
    words: list[object] = [PROGRAM, *SMALL]
    if source == "folder":
        photographs(tmp_path)
        words += ["--data", tmp_path]
    plain, ours = (run(tmp_path, *words, OMP_NUM_THREADS="1") for run in (python, forebay_run))
    assert "forebay" not in PROGRAM.read_text()
    assert printed(ours) == printed(plain)
    train, val = (4, 1) if source == "made up" else (3, 2)
    assert len(printed(plain)) == 2 * (train + 1)
    assert plain.log == []
    dataset = "FakeData" if source == "made up" else "ImageFolder"
    assert ours.log == [
        f"[forebay] serves DataLoader({dataset}, batch_size=4, num_workers=2)",
        f"[forebay] {2 * (train + val)} batches of 2 loaders came from Forebay's workers",
    ]
