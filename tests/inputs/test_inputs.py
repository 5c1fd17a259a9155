"""Whatever a user throws at a loader works as in PyTorch, or is an error that he understands: docs/inputs.md."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from observing import NUMPY_FRONT, PYTORCH, TORCH_FRONT
from page import PAGE, catalogue, complaints_of, lines_of, render, verdicts, versions, versions_of

# All inputs are run once, for all tests here; each has a watchdog of its own.
pytestmark = pytest.mark.timeout(1200)

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What every loader does with every input, seen in a process without pytest."""
    told = tmp_path_factory.mktemp("inputs") / "found.json"
    subprocess.run([sys.executable, str(HERE / "table.py"), "--json", str(told)], check=False)
    return json.loads(told.read_text())


def test_every_input_is_as_in_pytorch_or_its_difference_has_a_written_reason(found: dict[str, Any]) -> None:
    complaints = [text for name, row in catalogue().items() for text in complaints_of(name, row, found[name])]
    assert not complaints, "\n".join(complaints)


def test_no_input_makes_forebay_hang_or_crash(found: dict[str, Any]) -> None:
    bad = {
        name: told["text"]
        for name, row in found.items()
        for front, told in row["seen"].items()
        if front != PYTORCH and (told["hung"] or "crashes" in told["text"] or "the program ends with" in told["text"])
    }
    assert not bad


def test_every_input_that_stock_torch_hangs_on_is_marked_so(found: dict[str, Any]) -> None:
    for name, row in catalogue().items():
        told = found[name]["seen"].get(PYTORCH)
        assert told is None or told["hung"] == row.hangs, f"{name}: {told['text']}"


def test_the_page_is_what_the_run_gives(found: dict[str, Any]) -> None:
    committed = PAGE.read_text()
    if versions() != versions_of(committed):
        pytest.skip(f"the page was shown by {versions_of(committed)}, whose words may not be those of {versions()}")
    unseen = [name for name, row in found.items() if "unobservable" in row]
    print("kept as committed:", *(f"{name} ({found[name]['unobservable']})" for name in unseen))
    now, before = lines_of(render(found, committed)), lines_of(committed)
    changed = [
        f"- {before.get(name)}\n+ {now.get(name)}" for name in {**before, **now} if before.get(name) != now.get(name)
    ]
    assert render(found, committed) == committed, "\n".join(
        ["docs/inputs.md is not what is seen: make inputs", *changed]
    )


def test_every_front_has_a_verdict_for_every_input_it_takes(found: dict[str, Any]) -> None:
    for name, row in catalogue().items():
        if "unobservable" not in found[name]:
            assert set(verdicts(row, found[name])) == {TORCH_FRONT, NUMPY_FRONT} - (
                {NUMPY_FRONT} if not row.numpy else set()
            )
