"""The machine and the versions that figures were taken with."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
PACKAGES = ("forebay", "torch", "numpy")
BUSY_LOAD = 0.5


def describe() -> dict[str, str | int | float]:
    """What a reader needs to judge the figures."""
    processor, flags = _processor()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": processor,
        "cores": len(os.sched_getaffinity(0)),
        "vector_units": " ".join(flag for flag in ("avx2", "avx512f") if flag in flags),
        "virtual": "hypervisor" in flags,
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "huge_pages": _chosen("enabled"),
        "huge_pages_shmem": _chosen("shmem_enabled"),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "commit": _commit(),
    }


def in_words(machine: dict[str, str | int | float]) -> str:
    """The same in two lines for people."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores{' (virtual)' if machine['virtual'] else ''}, "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']}, huge pages {machine['huge_pages']}, "
        f"for shared memory {machine['huge_pages_shmem']}; Python {machine['python']}, "
        f"torch {machine['torch']}, NumPy {machine['numpy']}, "
        f"forebay {machine['forebay']} ({machine['commit']}); "
        f"{str(machine['date'])[:10]}, load before {machine['load_before']}."
    )


def _processor() -> tuple[str, frozenset[str]]:
    """The model's name and the flags, as the first processor in /proc/cpuinfo gives them."""
    text = Path("/proc/cpuinfo").read_text()
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return (
        name.group(1) if name else platform.machine(),
        frozenset(flags.group(1).split()) if flags else frozenset(),
    )


def _chosen(setting: str) -> str:
    """The word in brackets: the kernel lists all choices and marks the current one."""
    try:
        found = re.search(r"\[(\w+)\]", (HUGE_PAGES / setting).read_text())
    except FileNotFoundError:
        return "unknown"
    return found.group(1) if found else "unknown"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
