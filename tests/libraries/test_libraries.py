"""Other libraries train on the same batches with Forebay as with torch's own loader, and Forebay served them."""

import os
from pathlib import Path

import pytest

from library_programs import FOLDER, PROGRAMS, Program, Run, missing, run_both
from library_table import PAGE, committed, promised

pytestmark = pytest.mark.timeout(300)  # a busy machine imports four trainers at once for minutes

_HELPERS = {"observe", "problem"}

_WARNINGS = ("EpochCutShortWarning", "EqualGeneratorsWarning", "FallbackWarning", "MemoryBudgetWarning")
"""What Forebay may say of a program, and of none of these."""


def need(program: Program) -> None:
    """Skips where a library is missing; in CI nothing may be."""
    reason = missing(program)
    if reason is not None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_library_trains_on_the_same_batches_served_by_forebay(program: Program, tmp_path: Path) -> None:
    need(program)
    stock, ours = run_both(program, tmp_path)
    assert stock.code == 0, stock.stderr
    assert ours.code == 0, ours.stderr
    assert len(stock.seen) == program.processes
    assert ours.seen == stock.seen
    if program.fallback is None:
        assert ours.fallbacks == []
        assert ours.processes_served == program.processes, ours.stderr
        assert [warning for warning in _WARNINGS if warning in ours.stderr] == [], ours.stderr
    else:
        assert ours.processes_served == 0, ours.stderr
        assert [reason[: len(program.fallback)] for reason in ours.fallbacks] == [program.fallback], ours.stderr


def test_where_torchs_workers_are_forbidden_torchs_own_loader_serves_nobody(tmp_path: Path) -> None:
    program = next(program for program in PROGRAMS if program.name == "torch_loop")
    with Run(program, tmp_path / "stock", with_forebay=False, torchs_workers=False) as run:
        outcome = run.outcome()
    assert outcome.code != 0
    assert "a worker of torch's own loader was started" in outcome.stderr


def test_every_program_is_in_the_catalogue() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")} - _HELPERS
    assert files == {program.name for program in PROGRAMS}


def test_the_page_has_the_row_of_every_program() -> None:
    assert committed() == promised(), f"{PAGE.name} is not what the catalogue says: write it again with make libraries"
