"""Every law is run twice: on torch's own loader, and on Forebay's."""

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import dataloader as torch_dataloader

import forebay.torch


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "differs(reason, torch, ours): what Forebay does otherwise than PyTorch, and why"
    )


@pytest.fixture(params=[torch.utils.data.DataLoader, forebay.torch.DataLoader], ids=["torch", "forebay"])
def kind(request: pytest.FixtureRequest) -> Any:
    """The class of loaders under test."""
    return request.param


@pytest.fixture
def stock(request: pytest.FixtureRequest, kind: Any) -> bool:
    """Whether it is torch's own loader that is tested: for tests that are marked with `differs`, and for no others."""
    assert request.node.get_closest_marker("differs"), "a law that differs says why: @differs(...)"
    return kind is torch.utils.data.DataLoader


@pytest.fixture(autouse=True)
def no_worker_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ends the workers of all iterators that a test made: an exception it holds would keep them for seconds."""
    made: weakref.WeakSet[Any] = weakref.WeakSet()
    begin = torch_dataloader._BaseDataLoaderIter.__init__

    def remembering(self: Any, loader: Any) -> None:
        made.add(self)
        begin(self, loader)

    monkeypatch.setattr(torch_dataloader._BaseDataLoaderIter, "__init__", remembering)
    yield
    for iterator in list(made):
        if hasattr(iterator, "_workers"):
            iterator._shutdown_workers()
