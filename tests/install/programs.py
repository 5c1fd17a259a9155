"""Programs of users, run with Forebay and without."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Two workers on one CPU, and forks of a process with torch's threads: both are warned of, and not the point here.
QUIET = ("-W", "ignore:This DataLoader will create", "-W", "ignore::DeprecationWarning")


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def log(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if line.startswith("[forebay")]

    @property
    def other_stderr(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if not line.startswith("[forebay")]


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "FOREBAY"))}
    return {**kept, **variables}


def write(folder: Path, text: str, name: str = "program.py") -> Path:
    program = folder / name
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(textwrap.dedent(text))
    return program


def python(folder: Path, *words: object, told: str = "", flags: Sequence[str] = QUIET, **variables: str) -> Ended:
    """Runs Python in `folder`; what it is told on stdin, and environment variables, by name."""
    done = subprocess.run(
        [sys.executable, *flags, *map(str, words)],
        cwd=folder,
        input=told,
        capture_output=True,
        text=True,
        check=False,
        env=environment(**variables),
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def forebay_run(folder: Path, *words: object, told: str = "", flags: Sequence[str] = QUIET, **variables: str) -> Ended:
    return python(folder, "-m", "forebay", "run", *words, told=told, flags=flags, **variables)
