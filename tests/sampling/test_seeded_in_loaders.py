"""Samplers with a seed inside loaders and batch samplers: torch's own, torchdata's and ours, and resumed there."""

import importlib
import importlib.util
from itertools import islice
from typing import Any

import pytest
import torch
from seeded_catalogue import ALL, through_json
from torch.utils.data import BatchSampler

import forebay
import forebay.sampler
import forebay.torch
from forebay.sampler import SeededSampler, ShardSampler, ShuffleSampler
from support import flat, identity, values

COUNT = 30
SIZE = 4
DATA = range(200)

KINDS = {"inline": {}, "workers": {"num_workers": 2}, "persistent": {"num_workers": 1, "persistent_workers": True}}
HARD = ("shuffle", "weighted, each once", "padded shard by length")
LOADERS = {"stock": torch.utils.data.DataLoader, "numpy": forebay.DataLoader, "torch": forebay.torch.DataLoader}


def made(name: str) -> SeededSampler:
    return ALL[name](COUNT, 7)


def order(name: str, epoch: int) -> list[int]:
    return made(name).order(epoch).indices().tolist()  # type: ignore[no-any-return]


def batches_of(indices: list[int], size: int = SIZE) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_a_loader_reads_epoch_after_epoch(loader: Any, options: dict[str, Any]) -> None:
    for name in ("shuffle", "by length"):
        batches = loader(DATA, batch_size=SIZE, sampler=made(name), **options)
        assert [values(batches) for _ in range(2)] == [batches_of(order(name, epoch)) for epoch in range(2)]
        batches.sampler.set_epoch(7)
        assert flat(batches) == order(name, 7)
        next(iter(batches))
        assert flat(batches) == order(name, 9)
        assert len(batches) == len(batches_of(order(name, 0)))


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_a_loader_without_batches_reads_epoch_after_epoch(loader: Any) -> None:
    samples = loader(DATA, batch_size=None, sampler=made("shuffle"), num_workers=1)
    assert [[int(sample) for sample in samples] for _ in range(2)] == [order("shuffle", epoch) for epoch in range(2)]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", [BatchSampler, forebay.sampler.BatchSampler])
def test_batch_samplers_cut_it(name: str, kind: Any) -> None:
    batches = kind(made(name), SIZE, drop_last=False)
    assert len(batches) == len(batches_of(order(name, 0)))
    assert [list(batches) for _ in range(2)] == [batches_of(order(name, epoch)) for epoch in range(2)]


RESUMED = [
    *(pytest.param(name, {}, id=f"{name}-inline") for name in ALL),
    *(pytest.param(name, KINDS[kind], id=f"{name}-{kind}") for name in HARD for kind in ("workers", "persistent")),
]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("name", "options"), RESUMED)
def test_a_resumed_torch_front_delivers_exactly_the_rest(name: str, options: dict[str, Any], drop_last: bool) -> None:
    def loader() -> Any:
        return forebay.torch.DataLoader(DATA, SIZE, sampler=made(name), drop_last=drop_last, **options)

    steps = len(loader())
    epochs = [values(loader_at(loader(), epoch)) for epoch in range(3)]
    for at in {0, 1, steps - 1, steps} if options == {} else {steps - 1}:
        running, again = loader(), loader()
        list(running)
        epoch = iter(running)
        assert values(islice(epoch, at)) == epochs[1][:at]
        again.load_state_dict(through_json(running.state_dict()))
        assert [values(again), values(again)] == [epochs[1][at:], epochs[2]]


def loader_at(loader: Any, epoch: int) -> Any:
    loader.sampler.set_epoch(epoch)
    return loader


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_torch_front_resumed_between_epochs_begins_the_next_one(workers: int, drop_last: bool) -> None:
    def loader() -> Any:
        return forebay.torch.DataLoader(DATA, SIZE, sampler=made("shuffle"), drop_last=drop_last, num_workers=workers)

    running, again = loader(), loader()
    assert len(list(running)) == len(list(running))
    again.load_state_dict(through_json(running.state_dict()))
    assert values(again) == values(loader_at(loader(), 2))


def test_a_torch_front_without_batches_resumes() -> None:
    def loader() -> Any:
        return forebay.torch.DataLoader(DATA, batch_size=None, sampler=made("shuffle"), num_workers=1)

    running, again = loader(), loader()
    epoch = iter(running)
    list(islice(epoch, 11))
    again.load_state_dict(through_json(running.state_dict()))
    assert [int(sample) for sample in again] == order("shuffle", 0)[11:]


def test_a_batch_sampler_of_the_users_around_it_resumes_in_the_torch_front() -> None:
    def loader() -> Any:
        batches = BatchSampler(made("weighted"), SIZE, drop_last=False)
        return forebay.torch.DataLoader(DATA, batch_sampler=batches, num_workers=1)

    running, again = loader(), loader()
    epoch = iter(running)
    list(islice(epoch, 3))
    again.load_state_dict(through_json(running.state_dict()))
    assert flat(again) == order("weighted", 0)[3 * SIZE :]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
@pytest.mark.parametrize("options", [{}, {"num_workers": 2}], ids=["inline", "workers"])
@pytest.mark.parametrize("at", [0, 3, 8])
def test_torchdatas_loader_resumes(at: int, options: dict[str, Any]) -> None:
    if importlib.util.find_spec("torchdata") is None:
        pytest.skip("torchdata is not installed: run `make setup`")
    kind: Any = importlib.import_module("torchdata.stateful_dataloader").StatefulDataLoader

    def loader() -> Any:
        return kind(list(DATA), SIZE, sampler=made("shuffle"), collate_fn=identity, **options)

    running, again = loader(), loader()
    whole = batches_of(order("shuffle", 0))
    epoch = iter(running)
    assert list(islice(epoch, at)) == whole[:at]
    again.load_state_dict(running.state_dict())
    # At its end torchdata's loader goes on with the next epoch by itself or not at all; ours begins it.
    assert list(again) == (whole[at:] or batches_of(order("shuffle", 1)))


def test_torchs_batch_sampler_and_a_prefetching_loader_do_not_blur_a_state_asked_of_the_sampler() -> None:
    sampler = made("shuffle")
    batches = iter(BatchSampler(sampler, SIZE, drop_last=False))
    for number in range(1, 4):
        next(batches)
        assert sampler.state_dict()["position"] == number * SIZE


def test_ranks_read_their_shares_in_torchs_own_loader() -> None:
    loaders = [
        torch.utils.data.DataLoader(DATA, SIZE, sampler=ShardSampler(ShuffleSampler(COUNT, seed=7), rank=rank, world=2))
        for rank in range(2)
    ]
    for epoch in range(2):
        dealt = [index for pair in zip(*map(flat, loaders), strict=True) for index in pair]
        assert dealt == order("shuffle", epoch)
