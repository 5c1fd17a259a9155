"""Loads a tiny dataset with two workers: whether an installed wheel works at all. `make wheel` runs it."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

import forebay


class Squares:
    """Sixteen records; each holds its index and a row of its square."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"index": np.int64(index), "row": np.full(1000, index * index, np.float32)}


def main() -> None:
    batches = list(forebay.DataLoader(Squares(), batch_size=4, num_workers=2))
    indices = np.concatenate([batch["index"] for batch in batches])
    rows = np.concatenate([batch["row"] for batch in batches])
    assert sorted(indices) == list(range(16)), indices
    assert (rows == indices[:, None] ** 2).all()
    assert "torch" not in sys.modules
    command = Path(sys.executable).with_name("forebay")
    ran = subprocess.run([command, "run", "-"], input="print(1)", capture_output=True, text=True, check=True)
    assert ran.stdout == "1\n", ran
    assert "[forebay] no DataLoader of torch was used" in ran.stderr, "sitecustomize.py is not in the wheel"
    version, python = metadata.version("forebay"), ".".join(map(str, sys.version_info[:3]))
    print(f"forebay {version}, Python {python}: {len(batches)} batches from 2 workers")


if __name__ == "__main__":
    main()
