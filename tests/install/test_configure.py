"""Forebay's own options reach loaders that others construct."""

from typing import Any

import pytest

import forebay
from forebay import _configuration
from forebay.errors import ConfigError
from support import Front, Numbers, journey_of

MIB = 1024**2


@pytest.fixture(autouse=True)
def nothing_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOREBAY_MEMORY_BUDGET", raising=False)
    monkeypatch.setattr(_configuration, "_configured", {})


def budget(loader: Any) -> int:
    iterator = iter(loader)
    try:
        return int(journey_of(iterator)._engine.memory_budget)
    finally:
        iterator.close()


def test_an_argument_wins_over_configure_and_configure_over_the_environment(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = front.DataLoader(Numbers(4), num_workers=1)  # what holds is looked up when an iterator starts
    given = front.DataLoader(Numbers(4), num_workers=1, memory_budget=30 * MIB)
    default = budget(loader)
    monkeypatch.setenv("FOREBAY_MEMORY_BUDGET", "10M")
    assert budget(loader) == 10 * MIB
    forebay.configure(memory_budget=20 * MIB)
    assert (budget(loader), budget(given)) == (20 * MIB, 30 * MIB)
    assert (vars(loader)["memory_budget"], vars(given)["memory_budget"]) == (None, 30 * MIB)
    forebay.configure(memory_budget=None)
    assert budget(loader) == 10 * MIB
    monkeypatch.delenv("FOREBAY_MEMORY_BUDGET")
    assert abs(budget(loader) - default) < default / 2, "half of what is available at the time"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("123456789", 123456789),
        ("1B", 1),
        ("512M", 512 * MIB),
        ("2G", 2048 * MIB),
        ("1GiB", 1024 * MIB),
        (" 1.5 gib ", 1536 * MIB),
        ("2GB", 2 * 10**9),
        ("3k", 3072),
        ("1TiB", 1024**4),
    ],
)
def test_a_size_may_have_a_unit(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_MEMORY_BUDGET", text)
    assert forebay.configure() == {"memory_budget": size}
    monkeypatch.delenv("FOREBAY_MEMORY_BUDGET")
    assert forebay.configure(memory_budget=text) == {"memory_budget": size}


@pytest.mark.parametrize("text", ["lots", "1X", "-5", "0", "1.2.3", "M", "1 2", "nan", "1e9"])
def test_a_size_that_makes_no_sense_is_an_error_with_the_variable_and_the_value(
    text: str, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_MEMORY_BUDGET", text)
    with pytest.raises(ConfigError, match=f"environment variable FOREBAY_MEMORY_BUDGET={text}: memory_budget option"):
        iter(front.DataLoader(Numbers(4), num_workers=1))
    with pytest.raises(ConfigError, match="memory_budget option"):
        forebay.configure(memory_budget=text)


def test_nothing_is_configured_when_one_value_makes_no_sense() -> None:
    assert forebay.configure(memory_budget=MIB) == {"memory_budget": MIB}
    for options, kind, text in (
        ({"memory_budget": 0}, ConfigError, "should be a positive number of bytes"),
        ({"memory_budget": 1.5}, TypeError, "should be an integer number of bytes"),
        (
            {"memory_budget": 2, "memory": 1},
            TypeError,
            r"configure\(\) has no option 'memory'; there are: memory_budget",
        ),
    ):
        with pytest.raises(kind, match=text):
            forebay.configure(**options)
        assert forebay.configure() == {"memory_budget": MIB}
