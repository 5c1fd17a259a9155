"""States of version 2 that were kept still open and mean the same; a new part of the format needs another version."""

import json
from typing import Any

import pytest
from kept_states import CASES, KEPT, rest, taken

from support import front_named

STATES: dict[str, Any] = json.loads(KEPT.read_text())


def shape(state: Any) -> Any:
    return {key: shape(value) for key, value in state.items()} if isinstance(state, dict) else None


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.filterwarnings("ignore::forebay.errors.StateWarning")
def test_a_state_that_was_kept_still_opens_and_means_the_same(name: str, kind: str) -> None:
    kept = STATES[f"{name}, {kind}"]
    assert rest(front_named(name), kind, kept["state"]) == kept["rest"]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_state_of_today_has_the_parts_of_one_that_was_kept(name: str, kind: str) -> None:
    assert shape(taken(front_named(name), kind)) == shape(STATES[f"{name}, {kind}"]["state"])
