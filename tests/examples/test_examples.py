"""The examples of docs/datasets.md: the page shows what lies in examples/, and each prints what the page says."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import postgres

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "datasets.md"
# The training program belongs to docs/pytorch.md and is run by tests/install.
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.name != "classify.py")

_BLOCK = re.compile(r"(?:<!-- (?P<file>\S+) -->\n)?^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

# By multiprocessing's default, as a user would choose it for a whole program.
_LAUNCH = "import multiprocessing, runpy, sys; multiprocessing.set_start_method(sys.argv.pop(1)); del sys.argv[0]; "
_LAUNCH += "runpy.run_path(sys.argv[0], run_name='__main__')"

_SAID = {"generator_seeds.py": "EqualGeneratorsWarning"}
"""What an example writes to stderr, on purpose."""


_MANY_STARTS = {"copies.py", "generator_seeds.py", "growing.py", "persistent.py", "shared_array.py"}


@dataclass(frozen=True)
class Block:
    """A fenced block of the page: a part of the file that a comment above it names, or what that file prints."""

    file: str | None
    kind: str
    text: str


def blocks() -> list[Block]:
    return [Block(found["file"], found["kind"], found["text"]) for found in _BLOCK.finditer(PAGE.read_text())]


def printed(name: str) -> Block:
    """The block with what an example prints: the first after the last of its parts."""
    found = blocks()
    last = max(place for place, block in enumerate(found) if block.file == f"examples/{name}")
    return found[last + 1]


def without_figures(text: str) -> str:
    return re.sub(r"\d+\.\d+", "#", text)


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    reason = postgres.missing()
    if reason is None and importlib.util.find_spec("psycopg") is None:
        reason = "no psycopg: pip install -r scripts/requirements-dev.txt"
    if reason is not None:
        pytest.skip(reason)
    with postgres.server() as environment:
        yield environment


def test_every_block_of_code_in_the_page_is_a_part_of_an_example() -> None:
    shown = [block for block in blocks() if block.kind == "python"]
    assert shown
    for block in shown:
        assert block.file is not None, f"no comment names the file of\n{block.text}"
        assert f"\n{block.text}" in f"\n{(ROOT / block.file).read_text()}", (
            f"{block.file} has another text than the page"
        )


def test_the_page_shows_every_example_and_what_it_prints() -> None:
    assert {f"examples/{path.name}" for path in EXAMPLES} == {block.file for block in blocks() if block.file}
    for path in EXAMPLES:
        assert printed(path.name).kind in {"text", "text measured"}, path.name


def for_front(front: str, text: str) -> str:
    """An example, as it reads for a front: to change it, one changes the imports."""
    if front == "numpy":
        return text
    text = text.replace("from forebay import DataLoader\n", "from forebay.torch import DataLoader\n")
    return re.sub(
        r"^from forebay import (.*)$",
        lambda found: f"from torch.utils.data import {found[1]}\nfrom forebay.torch import DataLoader",
        text,
        flags=re.MULTILINE,
    )


def runs() -> Iterator[object]:
    """Every example with the fronts and start methods it is run with."""
    for path in EXAMPLES:
        fronts = ["torch"] if "from forebay.torch import" in path.read_text() else ["numpy", "torch"]
        for front in fronts:
            # A spawned worker of torch's front takes seconds to import torch; some examples start many.
            methods = ["fork"] if front == "torch" and path.name in _MANY_STARTS else ["fork", "spawn"]
            for method in methods:
                yield pytest.param(path, front, method, id=f"{path.stem}-{front}-{method}")


@pytest.mark.parametrize(("path", "front", "method"), list(runs()))
def test_an_example_prints_what_the_page_says(
    path: Path, front: str, method: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PG"))}
    if "psycopg" in path.read_text():
        environment.update(request.getfixturevalue("server"))
    program = tmp_path / path.name
    program.write_text(for_front(front, path.read_text()))
    # Two workers on one CPU, and forks of a process with torch's threads: both are warned of, and not the point here.
    quiet = ["-W", "ignore:This DataLoader will create", "-W", "ignore::DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *quiet, "-c", _LAUNCH, method, str(program)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    said = _SAID.get(path.name, "")
    assert done.returncode == 0, done.stderr
    assert said in done.stderr
    assert bool(said) == bool(done.stderr), done.stderr
    expected = printed(path.name)
    if expected.kind == "text measured":
        assert without_figures(done.stdout) == without_figures(expected.text)
    else:
        assert done.stdout == expected.text


def test_the_server_of_the_tests_leaves_nothing_behind() -> None:
    reason = postgres.missing()
    if reason is not None:
        pytest.skip(reason)
    with postgres.server() as environment:
        folder = Path(environment["PGHOST"])
        assert (folder / ".s.PGSQL.5432").exists()
        pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    assert not folder.exists()
    assert not Path(f"/proc/{pid}").exists()
