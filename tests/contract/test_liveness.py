"""4.1 Liveness: how a program with a loader ends, in whatever way it does, and that nothing of it is left."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from trainers import cases

HERE = Path(__file__).resolve().parent
ENDED: dict[str, list[dict[str, Any]]] = {}


@pytest.fixture
def ended(kind: Any, tmp_path: Path) -> list[dict[str, Any]]:
    """How trainers of all cases ended. They are run once for each loader."""
    module = "torch.utils.data" if kind is torch.utils.data.DataLoader else "forebay.torch"
    if module not in ENDED:
        told = tmp_path / "ended.json"
        program = [sys.executable, "-W", "ignore", str(HERE / "trainers.py"), module, json.dumps(cases()), str(told)]
        subprocess.run(program, check=True)
        ENDED[module] = json.loads(told.read_text())
    return ENDED[module]


def shown(how: str, ended: list[dict[str, Any]]) -> dict[str, tuple[int, str]]:
    """Exit code and standard error of all trainers that ended in this way."""
    return {
        str(case): (end["code"], end["stderr"]) for case, end in zip(cases(), ended, strict=True) if case["how"] == how
    }


def test_a_program_that_leaves_its_loader_early_exits_with_0(ended: list[dict[str, Any]]) -> None:
    assert shown("normally", ended) == dict.fromkeys(shown("normally", ended), (0, ""))


def test_a_program_that_fails_exits_with_1_and_shows_its_own_error_last(ended: list[dict[str, Any]]) -> None:
    for name, (code, text) in shown("loader error", ended).items():
        assert code == 1, name
        assert text.rstrip().endswith("RuntimeError: Loader error"), name


def test_a_program_whose_worker_fails_exits_with_1_and_shows_the_workers_error(ended: list[dict[str, Any]]) -> None:
    for name, (code, text) in shown("worker error", ended).items():
        assert code == 1, name
        assert "RuntimeError: Worker error" in text, name
        assert "in DataLoader worker process" in text, name


def test_a_program_that_is_killed_leaves_no_process(ended: list[dict[str, Any]]) -> None:
    # That all processes are gone is what the trainers' program waits for, in every case.
    assert {code for code, _ in shown("killed", ended).values()} == {-9}
