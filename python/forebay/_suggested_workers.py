"""How many workers to begin with: a rule of thumb over what this process may use. Measures nothing."""

import math
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

__all__ = ["Advice", "Host", "advise", "suggested_num_workers"]

_WORKERS_PER_GPU = 4

_RANKS = (
    "LOCAL_WORLD_SIZE",  # torchrun, Accelerate, DeepSpeed
    "OMPI_COMM_WORLD_LOCAL_SIZE",  # Open MPI
    "MPI_LOCALNRANKS",  # MPICH, Intel MPI
    "MV2_COMM_WORLD_LOCAL_SIZE",  # MVAPICH2
    "SLURM_STEP_TASKS_PER_NODE",  # srun
    "SLURM_NTASKS_PER_NODE",  # srun and sbatch --ntasks-per-node
)
"""Where launchers say how many ranks a host has. Slurm comes last: its one task may be a torchrun of eight ranks."""

_VISIBLE_GPUS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


def suggested_num_workers(*, explain: bool = False) -> int:
    """A number of workers to begin with: 4 for each GPU, as far as there are CPUs for them.

    The CPUs are those this process may run on, within the CPU quota of its control groups, divided by the ranks on this
    host; from three on, one is left to the trainer. At least 1, since one worker waits for the disk while the trainer
    waits for the GPU; 0 only where a process may have no children. A rule of thumb: nothing is measured.

    Args:
        explain: whether the reasoning is printed, a line for each step.

    Example:
        >>> suggested_num_workers() >= 1
        True
    """
    advice = advise(Host.this())
    if explain:
        print(advice)  # noqa: T201 - what `explain` asks for
    return advice.num_workers


@dataclass(frozen=True, slots=True)
class Host:
    """What the rule looks at; a test describes a host of its own.

    Attributes:
        root: the root of the file system.
        environment: environment variables.
        cpus: how many CPUs this process may be scheduled on.
        may_start_processes: False in a daemonic child of `multiprocessing`.
    """

    root: Path
    environment: Mapping[str, str]
    cpus: int
    may_start_processes: bool = True

    @classmethod
    def this(cls) -> "Host":
        """The host of this process."""
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(Path("/"), os.environ, cpus, not multiprocessing.current_process().daemon)


@dataclass(frozen=True, slots=True)
class Advice:
    """A number of workers, and how it came about, step by step."""

    num_workers: int
    steps: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"suggested_num_workers: {self.num_workers}", *(f"  {step}" for step in self.steps)))


def advise(host: Host) -> Advice:
    """Applies the rule to a host.

    Example:
        >>> print(advise(Host(Path("/nowhere"), {"LOCAL_WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, cpus=8)))
        suggested_num_workers: 3
          CPUs this process may run on: 8 (its affinity)
          CPU quota of its control groups: none
          ranks on this host: 2 (LOCAL_WORLD_SIZE=2)
          CPUs for this rank: 4, of which one is left to the trainer
          GPUs for this rank: 1 (2 by CUDA_VISIBLE_DEVICES=0,1)
          4 workers for each GPU would be 4; the CPUs allow 3
    """
    if not host.may_start_processes:
        step = "this process is a daemonic child of multiprocessing, as a loader's worker is: it may have no children"
        return Advice(0, (step,))
    quota, quota_from = _cpu_quota(host.root)
    usable = math.floor(min(host.cpus, quota))
    ranks, ranks_from = _ranks(host.environment)
    share, share_from = _share(usable, ranks, ranks_from, host.environment)
    free = share - 1 if share > 2 else share
    gpus, gpus_from = _gpus(host)
    gpus_here = gpus // ranks if gpus >= ranks else min(gpus, 1)
    wanted = _WORKERS_PER_GPU * max(1, gpus_here)
    return Advice(
        min(wanted, free),
        (
            f"CPUs this process may run on: {host.cpus} (its affinity)",
            f"CPU quota of its control groups: {quota_from}",
            f"ranks on this host: {ranks} ({ranks_from})",
            f"CPUs for this rank: {share}{share_from}" + (", of which one is left to the trainer" * (share > 2)),
            f"GPUs for this rank: {gpus_here} ({gpus_from})" + (", counted as one" * (not gpus_here)),
            f"{_WORKERS_PER_GPU} workers for each GPU would be {wanted}; the CPUs allow {free}",
        ),
    )


# -- CPUs


def _cpu_quota(root: Path) -> tuple[float, str]:
    """The smallest CPU quota of this process's control groups and of those above them, in CPUs, and where it stands."""
    quotas = [(quota, file) for group in _own_groups(root) for quota, file in _quota_of(group)]
    if not quotas:
        return math.inf, "none"
    quota, file = min(quotas)
    return quota, f"{quota:g} (/{file.relative_to(root)})"


def _quota_of(group: Path) -> Iterator[tuple[float, Path]]:
    """The quota of one group, if it has one: of version 2, or of version 1."""
    for name, period_name in (("cpu.max", None), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        words = _text(group / name).split() + (_text(group / period_name).split() if period_name else [])
        # "max" and -1 mean that there is none.
        if len(words) == 2 and all(word.isdecimal() for word in words):
            yield int(words[0]) / int(words[1]), group / name


def _own_groups(root: Path) -> Iterator[Path]:
    """The directories of this process's control groups that rule CPU time, and of all groups above them."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for top, mount in _mounts(root, controllers.split(",")):
            # A container may see its group's path as the host does, with the mount beginning somewhere else.
            below = PurePosixPath(path).relative_to(top) if PurePosixPath(path).is_relative_to(top) else ""
            group = mount / below
            yield from (place for place in (group, *group.parents) if place.is_relative_to(mount))


def _mounts(root: Path, controllers: list[str]) -> Iterator[tuple[str, Path]]:
    """Where the hierarchy of a line of /proc/self/cgroup is mounted, and which group the mount shows as its top."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.partition(" ")
        version_2 = kind == "cgroup2" and controllers == [""]
        version_1 = kind == "cgroup" and "cpu" in controllers and "cpu" in options.split(" ")[-1].split(",")
        if version_1 or version_2:
            top, mount = fields.split(" ")[3:5]
            yield top, root / mount.lstrip("/")


# -- Ranks


def _ranks(environment: Mapping[str, str]) -> tuple[int, str]:
    """How many ranks share this host, and who says so."""
    for name in _RANKS:
        value = environment.get(name, "")
        counts = _counts(value)
        # A Slurm step lists its hosts; the others give one number.
        node = environment.get("SLURM_NODEID", "")
        place = int(node) if len(counts) > 1 and node.isdecimal() else 0
        if place < len(counts) and counts[place] > 0:
            return counts[place], f"{name}={value}"
    return 1, "no launcher says otherwise"


def _counts(text: str) -> list[int]:
    """The numbers of Slurm's notation: `4(x2),1` is 4, 4, 1. Nothing where it is something else."""
    counts: list[int] = []
    for part in text.split(","):
        number, _, times = part.strip().partition("(x")
        times = times.removesuffix(")") or "1"
        if not (number.isdecimal() and times.isdecimal()):
            return []
        counts += [int(number)] * min(int(times), 100_000)
    return counts


def _share(usable: int, ranks: int, ranks_from: str, environment: Mapping[str, str]) -> tuple[int, str]:
    """How many of the usable CPUs are this rank's, and the reason if it is not a plain division."""
    share = max(1, usable // ranks)
    own = environment.get("SLURM_CPUS_PER_TASK", "")
    # Slurm may have bound each task to its own CPUs already: what is usable is then one rank's.
    if ranks_from.startswith("SLURM") and own.isdecimal() and share < min(int(own), usable):
        return min(int(own), usable), f" (SLURM_CPUS_PER_TASK={own})"
    return share, ""


# -- GPUs


def _gpus(host: Host) -> tuple[int, str]:
    """How many GPUs this process may use, and who says so. Asks neither a driver nor torch."""
    for name in _VISIBLE_GPUS:
        if name in host.environment:
            value = host.environment[name]
            # As CUDA reads it: what follows the first that is no device is not visible either.
            listed = takewhile(_names_a_gpu, (part.strip() for part in value.split(",")))
            count = sum(1 for _ in listed)
            return count, f"{count} by {name}={value}"
    nvidia = _count(host.root / "dev", "nvidia[0-9]*") or _count(host.root / "proc/driver/nvidia/gpus", "*")
    nodes = _glob(host.root / "sys/class/kfd/kfd/topology/nodes", "*/gpu_id")
    amd = sum(_text(node).strip() not in {"", "0"} for node in nodes)  # a CPU is a node with the number 0
    return nvidia + amd, f"{nvidia + amd} found on this host"


def _names_a_gpu(part: str) -> bool:
    return part not in {"", "NoDevFiles"} and not part.startswith("-")


# -- Files that may not be there


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def _count(folder: Path, pattern: str) -> int:
    return len(_glob(folder, pattern))
