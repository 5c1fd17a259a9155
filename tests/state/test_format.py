"""What a state is made of: JSON, small, cheap, versioned; old ones open, and wrong ones are refused."""

import json
import math
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samplers import ALL, COUNT, DATA, OWN, seeded, through_json
from torch.utils.data import RandomSampler, SubsetRandomSampler

from forebay._cursor import Cursor
from forebay.errors import StateError
from forebay.torch import DataLoader
from forebay.torch._encoding import decoded_order, encoded_order
from forebay.torch._order import Order, Streams
from support import values

GOLDEN = Path(__file__).parent / "golden"
TEN_MILLION = 10_000_000
MAX_BYTES = 8 * 1024


def loader_of(name: str) -> DataLoader[Any]:
    own = ALL[name]()
    if "batch_sampler" not in own:
        own.setdefault("batch_size", 4)
    return DataLoader(DATA, **own)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ALL)
def test_a_state_survives_json(name: str) -> None:
    loader = loader_of(name)
    epoch = iter(loader)
    for _ in range(3):
        state = loader.state_dict()
        assert through_json(state) == state
        next(epoch, None)


@pytest.mark.parametrize("batches", [0, 1, 5000])
@pytest.mark.parametrize(
    "sampler",
    [
        lambda: None,
        lambda: RandomSampler(range(TEN_MILLION), replacement=True),
        lambda: RandomSampler(range(TEN_MILLION), replacement=True, generator=seeded()),
        lambda: SubsetRandomSampler(range(100_000)),
    ],
)
def test_a_state_is_small_whatever_the_size_of_the_dataset(sampler: Any, batches: int) -> None:
    generator = seeded(8)
    loader = DataLoader(range(TEN_MILLION), batch_size=8, sampler=sampler(), generator=generator, collate_fn=len)  # type: ignore[arg-type]
    for _ in islice(loader, batches):
        pass
    assert len(json.dumps(loader.state_dict())) < MAX_BYTES


class Asked:
    """A dataset that counts what it is asked."""

    def __init__(self) -> None:
        self.lengths = 0

    def __len__(self) -> int:
        self.lengths += 1
        return 100

    def __getitem__(self, index: int) -> int:
        return index


def test_a_state_costs_the_same_however_often_it_is_taken() -> None:
    dataset = Asked()
    loader = DataLoader(dataset, batch_size=2, generator=seeded(), shuffle=True)  # type: ignore[arg-type]
    epoch = iter(loader)
    next(epoch)
    loader.state_dict()
    lengths = dataset.lengths
    for _ in islice(epoch, 20):
        loader.state_dict()
    assert dataset.lengths == lengths, "nothing is looked at anew"


@given(st.binary(min_size=8, max_size=96).map(lambda data: data[: len(data) // 8 * 8]))
def test_any_generators_state_is_encoded_without_loss(data: bytes) -> None:
    from forebay.torch._encoding import _halved, _whole

    state = torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
    assert torch.equal(_whole(json.loads(json.dumps(_halved(state)))), state)


def test_what_an_order_was_drawn_from_is_encoded_without_loss() -> None:
    order = Order([seeded().get_state()], 2**63 - 1, Streams.now(), [None, 3], seeded_between=True)
    again = decoded_order(json.loads(json.dumps(encoded_order(order))))
    assert encoded_order(again) == encoded_order(order)
    assert again.streams is not None
    again.streams.put()
    assert encoded_order(Order(streams=Streams.now())) == encoded_order(Order(streams=order.streams))


# -- The cursor's arithmetic


@given(st.permutations(range(12)), st.integers(0, 12), st.integers(0, 12))
def test_what_is_not_delivered_is_the_complement_of_what_is(order: list[int], first: int, second: int) -> None:
    """However an epoch is cut into three, and in whatever order batches come, each is delivered once."""
    total, delivered, cursor = len(order), [], Cursor()
    for stop in (first, second, total):
        cursor = Cursor(cursor.position, sorted(cursor.ahead))
        sent = list(cursor.undelivered(iter(range(cursor.position, total))))
        assert [cursor.number(place) for place in range(len(sent))] == sent
        for number in [number for number in order if number in sent][:stop]:
            cursor.passed(number)
            delivered.append(number)
        assert cursor.delivered == len(delivered)
        assert all(number in delivered for number in range(cursor.position))
    assert sorted(delivered) == list(range(total))


# -- Old states


def _cases() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json"))]


@pytest.mark.parametrize("case", _cases(), ids=lambda case: f"v{case['state']['forebay']['version']}, {case['name']}")
def test_a_state_that_was_kept_still_opens_and_means_the_same(case: dict[str, Any]) -> None:
    loader = loader_of(case["name"])
    loader.load_state_dict(case["state"])
    assert values(loader) == case["rest"]


def test_every_kind_of_sampler_has_a_state_that_was_kept() -> None:
    assert {case["name"] for case in _cases()} >= ALL.keys()


@pytest.mark.parametrize("name", OWN)
def test_a_state_of_today_has_the_parts_of_one_that_was_kept(name: str) -> None:
    """A part that is added or dropped changes the format: it needs another version, and states of it to be kept."""
    kept = next(case["state"] for case in _cases() if case["name"] == name)
    loader = loader_of(name)
    next(iter(loader))
    state = loader.state_dict()
    assert state.keys() == kept.keys()
    assert state["forebay"].keys() == kept["forebay"].keys()
    assert state["forebay"]["order"].keys() == kept["forebay"]["order"].keys()


# -- Wrong states


def taken() -> dict[str, Any]:
    loader = DataLoader(DATA, batch_size=4, shuffle=True)  # type: ignore[arg-type]
    next(iter(loader))
    return loader.state_dict()


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"dataset": range(9)}, f"dataset_length is 9, but {COUNT} in the state"),
        ({"batch_size": 5}, "batch_size is 5, but 4 in the state"),
        ({"drop_last": True}, "drop_last is True, but False in the state"),
        ({"shuffle": False}, r"samplers is \['BatchSampler', 'SequentialSampler'\], but \['BatchSampler', 'Random"),
        ({"shuffle": None, "sampler": RandomSampler(DATA, num_samples=8)}, "batches is 2, but 6 in the state"),
        ({"generator": seeded()}, "it has 1 generators of its own, but 0 in the state"),
    ],
)
def test_a_state_of_another_loader_is_refused_and_told_apart(options: dict[str, Any], difference: str) -> None:
    loader = DataLoader(**({"dataset": DATA, "batch_size": 4, "shuffle": True} | options))
    with pytest.raises(StateError, match=difference):
        loader.load_state_dict(taken())
    assert len(values(loader)) == math.ceil(len(loader)), "nothing was loaded"


def test_between_epochs_a_loader_may_change() -> None:
    loader = DataLoader(DATA, batch_size=4)  # type: ignore[arg-type]
    list(loader)
    other = DataLoader(range(9), batch_size=2)  # type: ignore[arg-type]
    other.load_state_dict(loader.state_dict())
    assert len(values(other)) == 5


PARTS = ["_num_yielded", "_sampler_iter_yielded", "_iterator_finished", "forebay"]
OWN_PARTS = ["version", "in_epoch", "num_workers", "order", "loader"]


TRUTHS = {"_iterator_finished", "in_epoch"}  # any value is true or false
DAMAGES = [(part, value) for part in (*PARTS, *OWN_PARTS) for value in (None, "x", -1, 1.5, [3], "missing")]


@pytest.mark.parametrize(("part", "value"), [case for case in DAMAGES if case[0] not in TRUTHS or case[1] == "missing"])
def test_a_damaged_state_is_refused(part: str, value: Any) -> None:
    state = through_json(taken())
    holder = state if part in PARTS else state["forebay"]
    if value == "missing":
        del holder[part]
    else:
        holder[part] = value
    with pytest.raises(StateError):
        DataLoader(DATA, batch_size=4, shuffle=True).load_state_dict(state)  # type: ignore[arg-type]


def test_a_damaged_generators_state_is_refused_before_it_is_put_to_use() -> None:
    loader = DataLoader(DATA, batch_size=4, shuffle=True, generator=seeded())  # type: ignore[arg-type]
    state = through_json(loader.state_dict())
    state["forebay"]["order"]["generators"][0]["low"] = "AAAA" * 4
    with pytest.raises(StateError, match="this state is damaged"):
        loader.load_state_dict(state)
