"""Shuffled orders look like permutations drawn by chance, to statistics that see what a weaker network leaves.

Fixed seeds: the same figures in every run. docs/shuffle.md shows them.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load() -> ModuleType:
    """`bench/shuffle_quality.py`, which prints the same statistics."""
    file = ROOT / "bench" / "shuffle_quality.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


quality = _load()

WEAK_ROUNDS = (2, 3, 4)
NETWORKS = (4097, 100_000)
"""Lengths: the shortest that no table orders, and a middle one."""


@pytest.fixture(scope="module")
def measured() -> list[Any]:
    return list(quality.measure(quality.engine))


def test_orders_cannot_be_told_from_permutations_drawn_by_chance(measured: list[Any]) -> None:
    assert len(measured) > 100
    assert [each for each in measured if not abs(each.value) < quality.BOUND] == []


def test_the_page_shows_what_was_measured(measured: list[Any]) -> None:
    assert quality.table(measured) in (ROOT / "docs" / "shuffle.md").read_text()


def test_the_statistics_pass_what_is_drawn_by_chance() -> None:
    assert [each for each in quality.measure(quality.chance) if not abs(each.value) < quality.BOUND] == []


@pytest.mark.parametrize("rounds", WEAK_ROUNDS)
@pytest.mark.parametrize("length", NETWORKS)
def test_the_statistics_fail_a_network_with_half_of_the_rounds(rounds: int, length: int) -> None:
    assert any(abs(each.value) > quality.BOUND for each in quality.statistics(quality.network(rounds), length))


@pytest.mark.parametrize("length", [4097, 5000, 100_000, 10**9, 2**40 + 1, 2**62 + 1])
def test_the_network_is_the_one_that_is_written_down_in_two_languages(length: int) -> None:
    second = quality.network(8)
    assert np.array_equal(quality.engine(length, 7, 3), second(length, 7, 3))
