"""`forebay run`: a program of the user's with Forebay in place of torch's loader, in its child processes too.

This process becomes the program: Python starts anew with the environment that has Forebay installed (see `_site`), so
its main module, exit code, signals and input are what they are without Forebay.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from forebay import _configuration

__all__ = ["main"]

_SITE = Path(__file__).resolve().parent / "_site"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command `forebay`; `arguments` are those of the process by default."""
    options, program = _split(sys.argv[1:] if arguments is None else arguments)
    parser, run = _parsers()
    told = parser.parse_args(options)
    try:
        _check(program)
        environment = _environment(quiet=told.quiet)
    except ValueError as error:
        run.error(str(error))
    sys.stdout.flush()
    sys.stderr.flush()
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    os.execve(sys.executable, [sys.executable, *flags, *program], environment)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is Forebay's, and the program with all that comes after it, which is the program's."""
    for place, word in enumerate(words):
        if place > 0 and (word in {"-", "-m"} or not word.startswith("-")):
            return [option for option in words[:place] if option != "--"], list(words[place:])
    return list(words), []


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(prog="forebay", description="A data loader that keeps an accelerator fed.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser(
        "run",
        help="run a Python program with Forebay's loader in place of torch's",
        usage="forebay run [--quiet] train.py ...\n       forebay run [--quiet] -m package.train ...",
        description="Runs a Python program, unchanged, with Forebay's loader in place of torch's; its child processes, "
        "too. What was served is told on stderr.",
        epilog="Environment: FOREBAY=off runs the program with torch's own loader; FOREBAY_LOG=on or off; "
        "FOREBAY_MEMORY_BUDGET, such as 2G.",
    )
    run.add_argument("--quiet", action="store_true", help="tell nothing of what was served (as FOREBAY_LOG=off)")
    return parser, run


class _Version(argparse.Action):
    """Asks for the version when it is wanted: a package that is not installed has none, and runs all the same."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        sys.stdout.write(f"forebay {metadata.version('forebay')}\n")
        parser.exit()


def _check(program: list[str]) -> None:
    """Refuses what could not run."""
    if program in ([], ["-m"]):
        raise ValueError("no program was given: name a script, or a module after -m")
    name = program[0]
    if name not in {"-", "-m"} and not Path(name).exists():
        raise ValueError(
            f"there is no file {name!r}: name a Python script, or a module after -m (for torchrun: -m "
            "torch.distributed.run)"
        )
    for flag, letter in (("isolated", "-I"), ("ignore_environment", "-E"), ("no_site", "-S")):
        if getattr(sys.flags, flag):
            raise ValueError(
                f"Python was started with {letter}, which keeps it from reading PYTHONPATH or sitecustomize, by which "
                "Forebay is installed: start it without, or call forebay.install() in the program"
            )


def _environment(*, quiet: bool) -> dict[str, str]:
    """The environment in which a Python process installs Forebay."""
    _configuration.check_environment()
    environment = {**os.environ, "FOREBAY_LOG": "off" if quiet else os.environ.get("FOREBAY_LOG") or "on"}
    if not _configuration.is_switched_on("FOREBAY"):
        if environment["FOREBAY_LOG"] == "on":
            sys.stderr.write("[forebay] FOREBAY=off: the program runs with torch's own loader\n")
        return environment
    before = os.environ.get("PYTHONPATH")
    environment["PYTHONPATH"] = f"{_SITE}{os.pathsep}{before}" if before else str(_SITE)
    environment["FOREBAY_RUN"] = str(os.getpid())  # the program's, too: it is the same process
    return environment
