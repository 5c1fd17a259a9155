"""What an order was drawn from, as JSON has it: numbers, and states of generators as text."""

import base64
import random
import struct
from typing import Any

import numpy as np
import torch

from forebay.torch._order import Order, Streams

__all__ = ["decoded_order", "encoded_order"]

_WORDS_OF_PYTHON = 625
"""How many numbers `random.getstate()` has: a Mersenne twister's, and its place in them."""


def encoded_order(order: Order) -> dict[str, Any]:
    """An order, as JSON has it."""
    found: dict[str, Any] = {"generators": [_halved(state) for state in order.generators]}
    if order.seed is not None:
        found["seed"] = order.seed
    if order.streams is not None:
        found["streams"] = _encoded_streams(order.streams)
    if any(epoch is not None for epoch in order.epochs):
        found["epochs"] = list(order.epochs)
    if order.seeded_between:
        found["seeded_between"] = True
    return found


def decoded_order(found: dict[str, Any]) -> Order:
    """The inverse of `encoded_order`. Raises what Python raises if `found` is damaged."""
    streams = found.get("streams")
    return Order(
        generators=[_checked(_whole(text)) for text in found["generators"]],
        seed=None if found.get("seed") is None else int(found["seed"]),
        streams=None if streams is None else _decoded_streams(streams),
        epochs=[None if epoch is None else int(epoch) for epoch in found.get("epochs", ())],
        seeded_between=bool(found.get("seeded_between")),
    )


def _encoded_streams(streams: Streams) -> dict[str, Any]:
    found: dict[str, Any] = {"torch": _halved(streams.torch)}
    if streams.python is not None:
        version, words, gauss = streams.python
        found["python"] = [version, _packed(struct.pack(f"<{len(words)}I", *words)), gauss]
    if streams.numpy is not None:
        kind, words, *rest = streams.numpy
        found["numpy"] = [kind, _packed(words.astype("<u4").tobytes()), *rest]
    return found


def _decoded_streams(found: dict[str, Any]) -> Streams:
    python, legacy = found.get("python"), found.get("numpy")
    if python is not None:
        version, words, gauss = python
        python = (version, struct.unpack(f"<{_WORDS_OF_PYTHON}I", _unpacked(words)), gauss)
        random.Random().setstate(python)
    if legacy is not None:
        kind, words, *rest = legacy
        legacy = (kind, np.frombuffer(_unpacked(words), dtype="<u4").astype(np.uint32), *rest)
        np.random.RandomState().set_state(legacy)
    return Streams(_checked(_whole(found["torch"])), python, legacy)


def _checked(state: torch.Tensor) -> torch.Tensor:
    """Fails now, rather than when the state is put to use."""
    torch.Generator().set_state(state)
    return state


def _halved(state: torch.Tensor) -> dict[str, Any]:
    """A generator's state in half of its bytes: torch keeps numbers of 32 bits in places of 64."""
    words = np.asarray(state.numpy()).view("<u4")
    high = words[1::2]
    places = high.nonzero()[0]
    return {"low": _packed(words[::2].tobytes()), "high": [[int(place), int(high[place])] for place in places]}


def _whole(found: dict[str, Any]) -> torch.Tensor:
    """The inverse of `_halved`."""
    low = np.frombuffer(_unpacked(found["low"]), dtype="<u4")
    words = np.zeros(2 * len(low), dtype="<u4")
    words[::2] = low
    for place, value in found["high"]:
        words[1 + 2 * place] = value
    return torch.from_numpy(words.view(np.uint8))


def _packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unpacked(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
