"""Programs as users of other libraries write them, and how they run with torch's loader and with Forebay's."""

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

__all__ = ["FOLDER", "PROGRAMS", "Outcome", "Program", "missing", "run_both"]

FOLDER = Path(__file__).resolve().parent / "programs"

_TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
_OWN_ITERATORS = "which makes iterators of its own"
_SERVED = re.compile(r"\[forebay[^\]]*\] \d+ batch.* came from Forebay's workers")
_FALLBACKS = re.compile(r"\[forebay[^\]]*\] torch's own iterators served \d+ loaders?: (.*)")


@dataclass(frozen=True)
class Program:
    """A program below `programs/`.

    Attributes:
        name: its file, without the suffix.
        distribution: the distribution that it shows, as it is installed.
        shows: which ways of that library it goes.
        processes: how many of its processes train.
        launcher: what Python is given before the program's file.
        also: further distributions that it needs.
        fallback: why torch's own iterators serve it, in the words of Forebay's log; None where Forebay does.
        because: the same, for the reader of the table.
    """

    name: str
    distribution: str
    shows: str
    processes: int = 1
    launcher: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    fallback: str | None = None
    because: str = ""

    @property
    def served_by(self) -> str:
        return "Forebay's engine" if self.fallback is None else f"torch's own iterators: {self.because}"


PROGRAMS = [
    Program("torch_loop", "torch", "a plain loop; workers forked, or spawned and persistent"),
    Program(
        "torch_distributed",
        "torch",
        "`DistributedDataParallel` and `DistributedSampler` under torchrun",
        processes=2,
        launcher=_TORCHRUN,
    ),
    Program("torchvision_images", "torchvision", "`ImageFolder`, transforms v2, CutMix and MixUp in `collate_fn`"),
    Program("lightning_fit", "lightning", "`Trainer` with a data module: fit, validate, predict, `overfit_batches`"),
    Program("lightning_ddp", "lightning", '`Trainer(strategy="ddp")`, which makes the loaders again', processes=2),
    Program("lightning_fabric", "lightning", "`Fabric.setup_dataloaders`"),
    Program("accelerate_prepare", "accelerate", "`Accelerator.prepare`, `skip_first_batches`"),
    Program(
        "accelerate_distributed",
        "accelerate",
        "`even_batches` on and off, `use_seedable_sampler`, `dispatch_batches` of a stream",
        processes=2,
        launcher=_TORCHRUN,
    ),
    Program(
        "accelerate_stateful",
        "accelerate",
        "`use_stateful_dataloader`, which takes torchdata's loader",
        also=("torchdata",),
    ),
    Program("transformers_trainer", "transformers", "`Trainer` with batches grouped by length, and evaluation"),
    Program("timm_loaders", "timm", "`create_loader` with and without its prefetcher, `use_multi_epochs_loader`"),
    Program("ignite_engine", "pytorch-ignite", "`Engine`, `DeterministicEngine`, `auto_dataloader`"),
    Program("torchmetrics_loop", "torchmetrics", "a plain loop with a `MetricCollection`"),
    Program(
        "fastai_learner",
        "fastai",
        "`Learner` over fastai's own `DataLoader`",
        fallback=f"_FakeLoader, {_OWN_ITERATORS}",
        because="fastai's loader is no loader of torch's, it makes torch's iterators itself",
    ),
    Program("datasets_map", "datasets", "`Dataset` in torch's format, and with a transform; read batch by batch"),
    Program("datasets_stream", "datasets", "`IterableDataset` of shards, shuffled, `set_epoch`, persistent workers"),
    Program("webdataset_shards", "webdataset", "`WebDataset` and `WebLoader` over tar files"),
    Program(
        "pyg_loaders",
        "torch-geometric",
        "`DataLoader`, `DenseDataLoader`, `NodeLoader`, `RandomNodeLoader`, `DynamicBatchSampler`",
    ),
]


@dataclass(frozen=True)
class Outcome:
    """What a run of a program left.

    Attributes:
        code: its exit code.
        seen: what each training process trained on, by rank: batches, their digest, the last loss.
        stderr: all of it.
    """

    code: int
    seen: list[dict[str, Any]]
    stderr: str

    @property
    def batches(self) -> int:
        """How many batches all processes trained on."""
        return sum(line["batches"] for line in self.seen)

    @property
    def processes_served(self) -> int:
        """How many processes say that they got batches from Forebay's workers."""
        return len(_SERVED.findall(self.stderr))

    @property
    def fallbacks(self) -> list[str]:
        """Why torch's own iterators served anything."""
        return _FALLBACKS.findall(self.stderr)


def missing(program: Program) -> str | None:
    """What keeps a program from running here, and the cure; or None."""
    for distribution in (program.distribution, *program.also):
        try:
            metadata.version(distribution)
        except metadata.PackageNotFoundError:
            return f"{distribution} is not installed: run `make setup`, or pip install -e '.[libraries]'"
    return None


class Run:
    """A program on its way."""

    def __init__(self, program: Program, folder: Path, *, with_forebay: bool, torchs_workers: bool = True) -> None:
        folder.mkdir()
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        with self._stdout.open("w") as stdout, self._stderr.open("w") as stderr:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    *(["-m", "forebay", "run"] if with_forebay else []),
                    *program.launcher,
                    str(FOLDER / f"{program.name}.py"),
                ],
                cwd=folder,
                env=_environment(folder, torchs_workers=torchs_workers),
                stdout=stdout,
                stderr=stderr,
            )

    def outcome(self) -> Outcome:
        """Waits for the end."""
        code = self._process.wait()
        lines = [line.removeprefix("seen ") for line in self._stdout.read_text().splitlines() if line[:5] == "seen "]
        seen = sorted(map(json.loads, lines), key=lambda line: line["rank"])
        return Outcome(code, seen, self._stderr.read_text())

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:  # the watchdog's exception: nobody must be left
            processes = [psutil.Process(self._process.pid)]
            processes += processes[0].children(recursive=True)
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait()


def run_both(program: Program, folder: Path) -> tuple[Outcome, Outcome]:
    """A program's outcome with torch's own loader, and with Forebay; both at once, since imports are most of the time.

    With Forebay, no worker of torch's own gets to work, unless that is expected.
    """
    stock = Run(program, folder / "stock", with_forebay=False)
    ours = Run(program, folder / "forebay", with_forebay=True, torchs_workers=program.fallback is not None)
    with stock, ours:
        return stock.outcome(), ours.outcome()


def _environment(folder: Path, *, torchs_workers: bool) -> dict[str, str]:
    """Nothing of Forebay's is set, nobody asks the network, and what libraries keep in sets has one order."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY")}
    return inherited | {
        "FORBID_TORCH_WORKERS": "0" if torchs_workers else "1",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
