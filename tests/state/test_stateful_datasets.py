"""Datasets, and iterators over them, that tell their own state: asked after each batch, and given it back."""

import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from samplers import through_json
from torch.utils.data import IterableDataset, get_worker_info

from forebay.errors import StateError, StateWarning, UnpicklableError
from forebay.torch import DataLoader
from support import values

SAMPLES = 20


def shard() -> range:
    """This worker's part; worker 1's is shorter."""
    info = get_worker_info()
    if info is None:
        return range(SAMPLES)
    return range(info.id * 100, info.id * 100 + (SAMPLES if info.id != 1 else 7))


class Counted:
    """A map dataset that counts: its samples tell how many it has made, in the copy that made them."""

    def __init__(self) -> None:
        self.made = 0

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        self.made += 1
        return torch.tensor([index, self.made])

    def state_dict(self) -> dict[str, Any]:
        return {"made": self.made}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.made = state["made"]


class Plain(IterableDataset[int]):
    """A stream that tells nothing."""

    def __iter__(self) -> Iterator[int]:
        return iter(shard())


class Failing(Plain):
    """A stream without state, one of whose samples fails."""

    def __iter__(self) -> Iterator[int]:
        return FailingOnce(iter(shard()))


class FailingOnce:
    def __init__(self, samples: Iterator[int]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        sample = next(self.samples)
        if sample % 100 == 3:
            raise ValueError("sample 3")
        return sample


class Stream(Plain):
    """A stream whose dataset knows where it stands."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[int]:
        for sample in shard()[self.at :]:
            self.at += 1
            yield sample
        self.at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


class Walk:
    """An iterator that knows where it stands, and never goes over a sample twice to get there."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> "Walk":
        return self

    def __next__(self) -> int:
        if self.at == len(shard()):
            raise StopIteration
        self.at += 1
        return shard()[self.at - 1]

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


class Walked(Plain):
    def __iter__(self) -> Iterator[int]:
        return Walk()


class Itself(Stream):
    """Its own iterator."""

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        if self.at >= len(shard()):
            raise StopIteration
        self.at += 1
        return shard()[self.at - 1]


STREAMS = [Plain, Stream, Walked, Itself, Failing]


def loader_of(dataset: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, **({"batch_size": 3} | options))


def rest_of(epoch: Any) -> list[Any]:
    found: list[Any] = []
    while True:
        try:
            found.append(next(epoch).tolist())
        except StopIteration:
            return found
        except ValueError:
            found.append("failed")


def taken(loader: DataLoader[Any], batches: int) -> tuple[dict[str, Any], list[Any]]:
    epoch = iter(loader)
    for _ in range(batches):
        try:
            next(epoch)
        except ValueError:
            continue
    return through_json(loader.state_dict()), rest_of(epoch)


def resumed(loader: DataLoader[Any], state: dict[str, Any]) -> Any:
    loader.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StateWarning)
        return iter(loader)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("workers", "at"), [(0, 0), (0, 3), (0, 6), (0, 7), (3, 0), (3, 1), (3, 4), (3, 8), (3, 16)])
@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_goes_on_with_the_sample_after_the_last_delivered_batch(
    kind: type[Any], workers: int, at: int, drop_last: bool
) -> None:
    options = {"num_workers": workers, "drop_last": drop_last}
    batches = min(at, 14 if workers else 6) if drop_last else at  # there are fewer then
    state, rest = taken(loader_of(kind(), **options), batches)
    assert rest_of(resumed(loader_of(kind(), **options), state)) == rest


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_may_be_resumed_again_and_again(kind: type[Any], workers: int) -> None:
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    state, rest = taken(loader_of(kind(), **options), 2)
    for _ in range(2):
        loader = loader_of(kind(), **options)
        epoch = resumed(loader, state)
        assert rest_of(islice(epoch, 1)) == rest[:1]
        state, rest = through_json(loader.state_dict()), rest_of(epoch)
        assert rest_of(iter(loader)) or kind is Itself, "the next epoch begins"


@pytest.mark.parametrize("kind", [Plain, Stream, Walked])
def test_samples_without_batches_are_counted_one_by_one(kind: type[Any]) -> None:
    for workers in (0, 2):
        options = {"num_workers": workers, "batch_size": None, "collate_fn": torch.tensor}
        state, rest = taken(loader_of(kind(), **options), 5)
        assert rest_of(resumed(loader_of(kind(), **options), state)) == rest


@pytest.mark.parametrize("kind", [Stream, Walked])
@pytest.mark.parametrize("workers", [0, 2])
def test_after_the_end_a_stream_begins_anew(kind: type[Any], workers: int) -> None:
    loader = loader_of(kind(), num_workers=workers)
    whole = values(loader)
    state = through_json(loader.state_dict())
    again = loader_of(kind(), num_workers=workers)
    again.load_state_dict(state)
    assert values(again) == whole


def test_out_of_order_every_stream_goes_on_where_it_stood() -> None:
    loader = loader_of(Stream(), num_workers=2, in_order=False)
    epoch = iter(loader)
    before = values(islice(epoch, 4))
    again = loader_of(Stream(), num_workers=2, in_order=False)
    again.load_state_dict(through_json(loader.state_dict()))
    assert sorted(before + values(again)) == sorted(before + values(epoch))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_map_dataset_gets_its_state_back(workers: int) -> None:
    state, rest = taken(loader_of(Counted(), num_workers=workers), 3)
    assert rest_of(resumed(loader_of(Counted(), num_workers=workers), state)) == rest


def test_a_map_dataset_of_persistent_workers_keeps_its_state_over_the_epochs_end() -> None:
    loader = loader_of(Counted(), num_workers=2, persistent_workers=True)
    list(loader)
    state = through_json(loader.state_dict())
    again = loader_of(Counted(), num_workers=2, persistent_workers=True)
    again.load_state_dict(state)
    assert values(again) == values(loader)


@pytest.mark.parametrize(("taken_with", "resumed_with"), [(2, 3), (0, 2), (2, 0)])
@pytest.mark.parametrize("kind", [Counted, Plain, Stream])
def test_what_workers_hold_needs_as_many_workers(kind: type[Any], taken_with: int, resumed_with: int) -> None:
    state, _ = taken(loader_of(kind(), num_workers=taken_with), 3)
    loader = loader_of(kind(), num_workers=resumed_with)
    loader.load_state_dict(state)
    with pytest.raises(StateError, match=f"set num_workers to {taken_with} until the epoch is over"):
        iter(loader)
    loader.num_workers = taken_with
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StateWarning)
        assert rest_of(iter(loader)), "the state still waits"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_that_must_be_read_again_says_so(workers: int) -> None:
    state, _ = taken(loader_of(Plain(), num_workers=workers), 2)
    loader = loader_of(Plain(), num_workers=workers)
    loader.load_state_dict(state)
    with pytest.warns(StateWarning, match="2 batches are read and dropped"):
        iter(loader)


def test_a_stream_that_tells_its_state_is_not_read_again() -> None:
    state, _ = taken(loader_of(Walked(), num_workers=1), 2)
    loader = loader_of(Walked(), num_workers=1)
    loader.load_state_dict(state)
    assert next(iter(loader)).tolist() == [6, 7, 8]


class Ordered(Counted):
    """Notes what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done.append("state")

    def __getitem__(self, index: int) -> Any:
        return ",".join(self.done)


def initialise(_worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    info.dataset.done.append("init")


def test_a_dataset_is_restored_after_worker_init_fn() -> None:
    loader = DataLoader(Ordered(), num_workers=1, worker_init_fn=initialise)  # type: ignore[arg-type]
    epoch = iter(loader)
    assert next(epoch) == ["init"]
    state = loader.state_dict()
    again = DataLoader(Ordered(), num_workers=1, worker_init_fn=initialise)  # type: ignore[arg-type]
    again.load_state_dict(state)
    assert next(iter(again)) == ["init,state"]


class Unsendable(Counted):
    def state_dict(self) -> dict[str, Any]:
        return {"function": lambda: None}


def test_a_state_that_cannot_be_sent_takes_the_place_of_the_batch() -> None:
    with pytest.raises(TypeError, match="cannot send the state of its dataset") as caught:
        next(iter(loader_of(Unsendable(), num_workers=1)))
    assert isinstance(caught.value.__cause__, UnpicklableError)


class Forgetful(Plain):
    """Was stateful when the state was taken."""


@pytest.mark.parametrize("workers", [0, 1])
def test_a_state_for_a_class_that_takes_none_is_refused(workers: int) -> None:
    state, _ = taken(loader_of(Stream(), num_workers=workers), 2)
    loader = loader_of(Forgetful(), num_workers=workers)
    loader.load_state_dict(state)
    with pytest.raises(ValueError, match="this state has a state of the dataset, but Forgetful has no state_dict"):
        next(iter(loader))


class Tidy(IterableDataset[int]):
    """Tells when nobody reads it any more."""

    def __init__(self) -> None:
        self.readers = 0

    def __iter__(self) -> Iterator[int]:
        self.readers += 1
        try:
            yield from range(4)
        finally:
            self.readers -= 1


def test_a_stream_that_tells_nothing_ends_with_the_iterator_that_read_it() -> None:
    dataset = Tidy()
    loader = DataLoader(dataset, batch_size=1)
    epoch = iter(loader)
    assert next(epoch).tolist() == [0]
    assert dataset.readers == 1
    del epoch
    assert dataset.readers == 0
    loader.load_state_dict(loader.state_dict())
    with pytest.warns(StateWarning):
        assert values(loader) == [[1], [2], [3]]


def test_only_stateful_datasets_send_states() -> None:
    for dataset, key in ((Counted(), True), (list(range(9)), False)):
        loader = loader_of(dataset, num_workers=1)
        next(iter(loader))
        assert ("workers" in loader.state_dict()["forebay"]) is key


def test_a_class_in_a_datasets_place_is_not_asked_for_a_state() -> None:
    state = DataLoader(Counted, sampler=[0]).state_dict()  # type: ignore[arg-type]
    assert "workers" not in state["forebay"]
