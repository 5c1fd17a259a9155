"""A program that forks one trainer for each case, all of which end as programs do, and tells how each ended.

Forked, because importing torch for each takes longer than all the rest. Arguments: the loader's module, the cases as
JSON, and where to write how they ended. Returns when all processes of all trainers are gone.
"""

import gc
import importlib
import itertools
import json
import os
import select
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset

HELD: list[Any] = []
"""What lives until the interpreter ends."""
HOWS = ("normally", "loader error", "worker error", "killed")


def cases() -> list[dict[str, Any]]:
    """The ways a program with a loader can end. Some hold their iterator until the interpreter ends, some do not."""
    return [
        {"stream": stream, "workers": workers, "held": stream != bool(workers), "how": how}
        for stream, workers, how in itertools.product((False, True), (0, 2), HOWS)
        if workers or how != "worker error"
    ]


class Samples:
    """A map dataset of 10 million samples."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def __len__(self) -> int:
        return 10_000_000

    def __getitem__(self, index: int) -> int:
        if self.fails and index == 3:
            raise RuntimeError("Worker error")
        return index


class Stream(Samples, IterableDataset):
    def __iter__(self) -> Iterator[int]:
        return (self[index] for index in range(len(self)))


def train(loader_class: Any, case: dict[str, Any]) -> None:
    """One trainer. Returns, or raises, or is killed."""
    dataset = (Stream if case["stream"] else Samples)(case["how"] == "worker error")
    loader = loader_class(dataset, num_workers=case["workers"])
    batches = iter(loader)
    if case["held"]:
        HELD.append(batches)
    for number, _ in enumerate(batches):
        if number == 10:
            break
    if case["how"] == "loader error":
        raise RuntimeError("Loader error")
    if case["how"] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    loader_class = importlib.import_module(sys.argv[1]).DataLoader
    ended: list[dict[str, Any]] = []
    ends = []
    gc.freeze()  # what torch has made is not looked through at the end of each trainer
    for case in json.loads(sys.argv[2]):
        told = tempfile.TemporaryFile()  # noqa: SIM115 - read below
        alive, ours = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(alive)
            os.dup2(told.fileno(), 2)
            train(loader_class, case)
            return
        os.close(ours)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        told.seek(0)
        ended.append({"code": code, "stderr": told.read().decode()})
        ends.append(alive)
    for alive in ends:
        select.select([alive], [], [])  # readable when nobody is left who could write
        os.close(alive)
    Path(sys.argv[3]).write_text(json.dumps(ended))


if __name__ == "__main__":
    main()
