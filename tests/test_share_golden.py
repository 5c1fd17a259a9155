"""The shares of ranks that Rust and Python agree on; crates/forebay-order/tests/share.rs tells the file's format."""

import json
from pathlib import Path
from typing import Any

import pytest

from forebay._share import Share

GOLDEN: list[dict[str, Any]] = json.loads((Path(__file__).parent / "golden" / "share.json").read_text())


@pytest.mark.parametrize("uneven", ["keep", "pad", "drop"])
def test_shares_are_those_that_rust_deals(uneven: str) -> None:
    cases = [case for case in GOLDEN if case["uneven"] == uneven]
    assert cases
    for case in cases:
        share = Share(case["length"], case["rank"], case["world"], case["uneven"], case["start"])
        assert share.places().tolist() == case["places"], case
        assert len(share) == len(case["places"]), case
        assert [share.passed(samples) for samples in range(len(case["passed"]))] == case["passed"], case
