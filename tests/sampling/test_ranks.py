"""Which rank a process is: by arguments, else by torch.distributed, else by the environment, else alone."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from forebay._ranks import resolve_rank
from forebay.errors import ConfigError
from forebay.sampler import ShardSampler


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delitem(sys.modules, "torch.distributed", raising=False)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def put(**variables: str) -> None:
        for name, text in variables.items():
            monkeypatch.setenv(name, text)

    return put


def distributed(rank: int, world: int, *, available: bool = True, initialized: bool = True) -> Any:
    return SimpleNamespace(
        is_available=lambda: available,
        is_initialized=lambda: initialized,
        get_rank=lambda: rank,
        get_world_size=lambda: world,
    )


def test_whoever_is_told_nothing_is_alone() -> None:
    assert resolve_rank() == (0, 1)


def test_arguments_come_before_torch_and_torch_before_the_environment(
    environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(RANK="2", WORLD_SIZE="3")
    assert resolve_rank() == (2, 3)
    monkeypatch.setitem(sys.modules, "torch.distributed", distributed(4, 5))
    assert resolve_rank() == (4, 5)
    assert resolve_rank(6, 7) == (6, 7)


@pytest.mark.parametrize("state", [{"available": False}, {"initialized": False}])
def test_a_torch_that_is_not_initialised_says_nothing(
    state: dict[str, bool], environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.distributed", distributed(4, 5, **state))
    environment(RANK="2", WORLD_SIZE="3")
    assert resolve_rank() == (2, 3)


def test_torch_is_asked_as_it_is_when_one_process_is_a_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "torch.distributed", torch.distributed)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        monkeypatch.setenv("RANK", "nonsense")
        assert resolve_rank() == (0, 1)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RANK": "1"}, "RANK=1: WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2: RANK is not set"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK=one: it should be an integer from 0 on"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1: it should be an integer from 0 on"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE=0: it should be an integer from 1 on"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "WORLD_SIZE=: it should be an integer from 1 on"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, r"RANK=2: rank should be in the interval \[0, 1\], by WORLD_SIZE=2"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused_by_the_variables_name(
    variables: dict[str, str], words: str, environment: Callable[..., None]
) -> None:
    environment(**variables)
    with pytest.raises(ConfigError, match=f"environment variable {words}"):
        resolve_rank()


@pytest.mark.parametrize(
    ("rank", "world", "words"),
    [
        (0, None, "rank and world belong together, but got rank=0, world=None"),
        (None, 2, "rank and world belong together, but got rank=None, world=2"),
        (2, 2, r"Invalid rank 2, rank should be in the interval \[0, 1\]"),
        (-1, 2, r"Invalid rank -1, rank should be in the interval \[0, 1\]"),
        ("0", 2, r"Invalid rank '0', rank should be in the interval \[0, 1\]"),
        (0, 0, "world should be a positive integer value, but got world=0"),
        (0, True, "world should be a positive integer value, but got world=True"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(rank: Any, world: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resolve_rank(rank, world)


def test_a_shard_is_that_of_the_process(environment: Callable[..., None]) -> None:
    environment(RANK="2", WORLD_SIZE="3")
    assert list(ShardSampler(8)) == [2, 5]
