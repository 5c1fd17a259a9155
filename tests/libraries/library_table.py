"""From the programs to the table in docs/pytorch.md: `make libraries` runs them all and writes it."""

import re
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from library_programs import PROGRAMS, Program, missing, run_both

__all__ = ["PAGE", "committed", "promised"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pytorch.md"

_BEGIN, _END = "<!-- libraries:begin -->", "<!-- libraries:end -->"
_HEAD = ("library", "version", "what was run", "processes", "batches", "served by")
_INTRO = """\
`make test` runs each of these programs twice, with torch's own loader and with `forebay run`: on the CPU, two epochs,
with shuffling and two workers. Both runs train on the same batches in the same order, bit for bit, and end with the
same loss. Where Forebay's engine served, torch's own workers were kept from starting. `make libraries` writes this
table."""


@dataclass(frozen=True)
class Row:
    """What the table says of one program: what is known beforehand, and what a run tells."""

    program: Program
    batches: int

    @property
    def version(self) -> str:
        return metadata.version(self.program.distribution)

    def cells(self) -> tuple[str, ...]:
        library, shows, processes, served_by = _promise(self.program)
        return library, self.version, shows, processes, str(self.batches), served_by


def _rows() -> list[Row]:
    """Runs all programs.

    Raises:
        AssertionError: when one did not train on the same batches with Forebay.
    """
    found = []
    for program in PROGRAMS:
        reason = missing(program)
        assert reason is None, reason
        with tempfile.TemporaryDirectory() as folder:
            stock, ours = run_both(program, Path(folder))
        assert stock.code == 0, f"{program.name}: {stock.stderr}"
        assert ours.seen == stock.seen, f"{program.name}: {ours.stderr}"
        print(f"{program.name}: {ours.batches} batches", flush=True)
        found.append(Row(program, ours.batches))
    return found


def promised() -> list[tuple[str, ...]]:
    """What the page must say whatever the versions are."""
    return [_promise(program) for program in PROGRAMS]


def committed() -> list[tuple[str, ...]]:
    """What the page says, without versions and figures."""
    table = [line for line in _section(PAGE.read_text()).splitlines() if line.startswith("| ")][1:]
    found = []
    for line in table:
        library, _version, shows, processes, _batches, served_by = (
            line.removeprefix("| ").removesuffix(" |").split(" | ")
        )
        found.append((library, shows, processes, served_by))
    return found


def _promise(program: Program) -> tuple[str, ...]:
    link = f"[{program.distribution}](../tests/libraries/programs/{program.name}.py)"
    return link, program.shows, str(program.processes), program.served_by


def _section(page: str) -> str:
    found = re.search(f"{_BEGIN}\n(.*){_END}", page, re.DOTALL)
    assert found is not None, f"{PAGE.name} has no {_BEGIN} and {_END}"
    return found[1]


def _write(found: list[Row]) -> None:
    """Puts the table between its two marks."""
    lines = [_HEAD, ("---",) * len(_HEAD), *(row.cells() for row in found)]
    table = (
        "\n".join(f"| {' | '.join(cells)} |" for cells in lines).replace("| --- ", "|---").replace("|--- |", "|---|")
    )
    page = PAGE.read_text()
    PAGE.write_text(page.replace(f"{_BEGIN}\n{_section(page)}{_END}", f"{_BEGIN}\n{_INTRO}\n\n{table}\n{_END}"))


if __name__ == "__main__":
    _write(_rows())
