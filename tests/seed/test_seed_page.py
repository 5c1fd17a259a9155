"""docs/seed.md: its programs print what stands below them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "seed.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def for_torch(program: str) -> str:
    """The same program with the torch front."""
    imports, *others = re.findall(r"^from forebay import (.*)$", program, re.MULTILINE)
    assert not others
    ours = ", ".join({"sample_rng"} & set(imports.split(", ")))
    theirs = ", ".join(sorted({"IterableDataset", "get_worker_info"} & set(imports.split(", "))))
    lines = ["from forebay.torch import DataLoader"]
    lines += [f"from forebay import {ours}"] * bool(ours) + [f"from torch.utils.data import {theirs}"] * bool(theirs)
    return program.replace(f"from forebay import {imports}", "\n".join(lines))


def test_every_block_of_code_is_a_program_with_what_it_prints() -> None:
    assert len(PROGRAMS) == PAGE.read_text().count("```python\n") == 3


@pytest.mark.parametrize("front", ["numpy", "torch"])
@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_prints_what_the_page_says(number: int, front: str, tmp_path: Path) -> None:
    text, expected = PROGRAMS[number]
    program = tmp_path / "program.py"
    program.write_text(text if front == "numpy" else for_torch(text))
    quiet = ["-W", "ignore:This DataLoader will create", "-W", "ignore::DeprecationWarning"]
    done = subprocess.run([sys.executable, *quiet, str(program)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", expected)
