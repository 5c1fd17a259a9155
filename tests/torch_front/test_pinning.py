"""Pinning, with an accelerator that is not there: its part is played by records of what was asked of it."""

import collections
import gc
import itertools
import os
import signal
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.data as stock

import forebay.torch
from forebay.errors import ForkedChildError, LoaderTimeout, WorkerDied
from forebay.torch._pinning import Pinned
from support import Interruption, Program, eventually, in_child, journey_of, until

BOTH = pytest.mark.parametrize("loader", [forebay.torch.DataLoader, stock.DataLoader], ids=["forebay", "torch"])


class Accelerator:
    """Number 3 of its machine. Pinned tensors are copies that it remembers."""

    def __init__(self) -> None:
        self.pinned: list[torch.Tensor] = []
        self.threads: list[threading.Thread] = []
        self.indices: list[int] = []
        self.room = threading.Event()
        self.room.set()

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self.room.wait()
        self.threads.append(threading.current_thread())
        self.pinned.append(tensor.clone())
        return self.pinned[-1]

    def has(self, tensor: torch.Tensor) -> bool:
        return any(tensor is pinned for pinned in self.pinned)


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Accelerator]:
    made = Accelerator()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: types.SimpleNamespace(type="cuda"))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 3)
    monkeypatch.setattr(torch.accelerator, "set_device_index", made.indices.append)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: made.pin(tensor))
    yield made
    made.room.set()


def numbers(batches: Any) -> list[Any]:
    return [batch.tolist() for batch in batches]


def the_batch(samples: list[Any]) -> Any:
    return samples[0]


# -- What is pinned


class Box:
    """A batch that knows how to pin itself."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.is_pinned = False

    def pin_memory(self) -> "Box":
        box = Box(self.tensor.pin_memory())
        box.is_pinned = True
        return box


class Bag(collections.UserDict[str, Any]):
    label = "a bag"


Pair = collections.namedtuple("Pair", "left right")


class Kept:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def _bag() -> Bag:
    bag = Bag(one=torch.ones(2))
    bag.label = "mine"
    return bag


BATCHES: dict[str, Callable[[], Any]] = {
    "a tensor": lambda: torch.arange(3),
    "a list": lambda: [torch.ones(2), 5, "text", None],
    "a tuple": lambda: (torch.ones(2), (torch.zeros(1),)),
    "a named tuple": lambda: Pair(torch.ones(2), [torch.zeros(1)]),
    "a dict": lambda: {"one": torch.ones(2), "two": {"three": torch.zeros(1)}, "four": b"bytes"},
    "an ordered dict": lambda: collections.OrderedDict(one=torch.ones(2)),
    "a mapping with attributes": _bag,
    "a deque": lambda: collections.deque([torch.ones(2)]),
    "a batch that pins itself": lambda: Box(torch.ones(2)),
    "an object that does not": lambda: Kept(torch.ones(2)),
    "a packed sequence": lambda: torch.nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)]),
    "a range": lambda: range(3),
    "a text": lambda: "text",
}


class Made:
    """The sample of index i is the batch of that name."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:
        return BATCHES[self.names[index]]()


def _shape(batch: Any, accelerator: Accelerator) -> Any:
    """Types, values, and where something is pinned."""
    if isinstance(batch, torch.Tensor):
        return ("pinned" if accelerator.has(batch) else "not pinned", batch.tolist())
    if isinstance(batch, (Box, Kept)):
        return type(batch), getattr(batch, "is_pinned", None), _shape(batch.tensor, accelerator)
    if isinstance(batch, collections.abc.Mapping):
        inside = {key: _shape(value, accelerator) for key, value in batch.items()}
        return type(batch), getattr(batch, "label", None), inside
    if isinstance(batch, (list, tuple, collections.deque)):
        return type(batch), [_shape(element, accelerator) for element in batch]
    return type(batch), repr(batch)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_pinned_and_what_becomes_of_containers_is_as_in_torch(accelerator: Accelerator, workers: int) -> None:
    found = []
    for kind in (forebay.torch.DataLoader, stock.DataLoader):
        options: dict[str, Any] = {"collate_fn": the_batch, "pin_memory": True, "num_workers": workers}
        batches = list(kind(Made(list(BATCHES)), **options))
        found.append([_shape(batch, accelerator) for batch in batches])
    assert found[0] == found[1]
    assert "'pinned'" in repr(found[0])


@BOTH
def test_workers_batches_are_pinned_by_one_thread_that_says_so(accelerator: Accelerator, loader: Any) -> None:
    iterator = iter(loader(torch.arange(8), batch_size=2, num_workers=2, pin_memory=True))
    assert numbers(iterator) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert set(accelerator.threads) == {iterator._pin_memory_thread}
    assert accelerator.indices == [3]
    assert iterator._pin_memory_thread.daemon


@BOTH
def test_without_workers_the_program_itself_pins(accelerator: Accelerator, loader: Any) -> None:
    assert numbers(loader(torch.arange(4), batch_size=2, pin_memory=True)) == [[0, 1], [2, 3]]
    assert set(accelerator.threads) == {threading.current_thread()}


def test_without_pinning_there_is_no_thread(accelerator: Accelerator) -> None:
    iterator = iter(forebay.torch.DataLoader(torch.arange(4), num_workers=1))
    assert not hasattr(iterator, "_pin_memory_thread")  # as in torch
    assert len(list(iterator)) == 4
    assert accelerator.pinned == []


@BOTH
def test_nothing_is_pinned_on_an_accelerator_that_cannot(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch, loader: Any
) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: types.SimpleNamespace(type="mps"))
    with pytest.warns(UserWarning, match="not supported on MPS"):
        assert len(list(loader(torch.arange(4), num_workers=1, pin_memory=True))) == 4
    assert accelerator.pinned == []


# -- Order, epochs and errors


@BOTH
@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_are_whole_and_in_order(accelerator: Accelerator, loader: Any, persistent: bool) -> None:
    made = loader(torch.arange(50), num_workers=2, pin_memory=True, persistent_workers=persistent)
    for _ in range(3):
        assert numbers(made) == [[number] for number in range(50)]


@BOTH
def test_an_epoch_that_was_left_early_leaves_nothing_for_the_next(accelerator: Accelerator, loader: Any) -> None:
    made = loader(torch.arange(20), num_workers=2, pin_memory=True, persistent_workers=True)
    for most in (1, 2, 5):
        assert numbers(itertools.islice(made, most)) == [[number] for number in range(most)]
    assert numbers(made) == [[number] for number in range(20)]


def test_what_was_taken_ahead_in_an_epoch_is_not_the_next_ones(accelerator: Accelerator) -> None:
    loader = forebay.torch.DataLoader(torch.arange(9), num_workers=1, pin_memory=True, persistent_workers=True)
    iterator = iter(loader)
    next(iterator)
    journey = journey_of(iterator)
    eventually(lambda: journey._ahead.fill(journey._engine) or journey._ahead._taken)
    assert numbers(loader) == [[number] for number in range(9)]


def test_threads_that_share_an_iterator_get_every_batch_once(accelerator: Accelerator) -> None:
    iterator = iter(forebay.torch.DataLoader(torch.arange(300), num_workers=2, pin_memory=True))
    found: list[list[Any]] = [[], [], []]
    threads = [threading.Thread(target=lambda mine=mine: mine.extend(numbers(iterator))) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(itertools.chain(*found)) == [[number] for number in range(300)]


class Refusing:
    """Index 2 cannot be pinned, index 3 cannot be made."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        if index == 3:
            raise KeyError(index)
        return Unpinnable() if index == 2 else torch.tensor(index)


class Unpinnable:
    def pin_memory(self) -> Any:
        raise ValueError("no room on the page")


@BOTH
@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_stands_in_its_batchs_place_in_torchs_words(
    accelerator: Accelerator, loader: Any, workers: int
) -> None:
    iterator = iter(loader(Refusing(), collate_fn=the_batch, num_workers=workers, pin_memory=True))
    assert numbers(itertools.islice(iterator, 2)) == [0, 1]
    with pytest.raises(
        ValueError, match=r"(?s)Caught ValueError in pin memory thread for device 3.*no room on the page"
    ):
        next(iterator)
    with pytest.raises(KeyError, match="in DataLoader worker process"):
        next(iterator)
    assert numbers(iterator) == [4, 5]


@BOTH
def test_without_workers_an_error_of_pinning_is_the_original(accelerator: Accelerator, loader: Any) -> None:
    iterator = iter(loader(Refusing(), collate_fn=the_batch, pin_memory=True))
    assert numbers(itertools.islice(iterator, 2)) == [0, 1]
    with pytest.raises(ValueError, match=r"^no room on the page$"):
        next(iterator)


class Ending:
    def pin_memory(self) -> Any:
        raise SystemExit


@BOTH
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_end_of_the_thread_is_an_error(
    accelerator: Accelerator, loader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.torch._pinning._CHECK_S", 0.01)
    iterator = iter(loader([0], collate_fn=lambda _: Ending(), num_workers=1, pin_memory=True))
    with pytest.raises(RuntimeError, match=r"^Pin memory thread exited unexpectedly$"):
        next(iterator)


class Counting:
    """A sampler that tells how far it was read."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.drawn = 0

    def __iter__(self) -> Iterator[int]:
        for index in range(self.count):
            self.drawn += 1
            yield index


@BOTH
@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("in_order", [True, False])
def test_the_sampler_is_read_no_further_than_without_pinning(
    accelerator: Accelerator, loader: Any, workers: int, prefetch: int, in_order: bool
) -> None:
    sampler = Counting(30)
    options: dict[str, Any] = {"num_workers": workers, "prefetch_factor": prefetch, "in_order": in_order}
    iterator = iter(loader(torch.arange(30), sampler=sampler, pin_memory=True, **options))
    assert sampler.drawn == workers * prefetch
    for delivered in range(1, 31):
        next(iterator)
        assert sampler.drawn == min(workers * prefetch + delivered, 30)
    with pytest.raises(StopIteration):
        next(iterator)


def test_what_has_arrived_is_pinned_while_the_program_uses_another_batch(accelerator: Accelerator) -> None:
    loader = forebay.torch.DataLoader(torch.arange(30), num_workers=2, prefetch_factor=5, pin_memory=True)

    def most_ahead() -> int:
        iterator = iter(loader)
        ahead = journey_of(iterator)._ahead._taken
        return max(len(ahead) for _ in iterator)

    found = set()
    eventually(lambda: found.add(most_ahead()) or 2 in found)
    assert max(found) == 2
    iterator = iter(loader)
    next(iterator)
    eventually(lambda: len(accelerator.pinned) >= 1 + len(journey_of(iterator)._ahead._taken))


def test_without_order_nothing_is_taken_that_was_not_asked_for(accelerator: Accelerator) -> None:
    iterator = iter(forebay.torch.DataLoader(torch.arange(99), num_workers=2, pin_memory=True, in_order=False))
    journey = journey_of(iterator)
    for _ in iterator:
        journey._ahead.fill(journey._engine)
        assert not journey._ahead._taken


@pytest.mark.parametrize("in_order", [True, False])
def test_every_batch_comes_once(accelerator: Accelerator, in_order: bool) -> None:
    loader = forebay.torch.DataLoader(torch.arange(200), num_workers=3, pin_memory=True, in_order=in_order)
    found = numbers(loader)
    assert sorted(found) == [[number] for number in range(200)]


class Stream(stock.IterableDataset[int]):
    """Worker w gives w + 1 numbers."""

    def __iter__(self) -> Iterator[int]:
        info = stock.get_worker_info()
        assert info is not None
        return iter(range(10 * info.id, 11 * info.id + 1))


@BOTH
def test_streams_of_unequal_length_are_read_to_their_ends(accelerator: Accelerator, loader: Any) -> None:
    made = loader(Stream(), batch_size=1, num_workers=3, pin_memory=True, persistent_workers=True)
    for _ in range(2):
        assert numbers(made) == [[0], [10], [20], [11], [21], [22]]


class OneSided(stock.IterableDataset[int]):
    """All samples are worker 1's."""

    def __iter__(self) -> Iterator[int]:
        info = stock.get_worker_info()
        assert info is not None
        return iter(range(20 * info.id))


def test_the_room_of_an_ended_stream_goes_to_the_others(accelerator: Accelerator) -> None:
    iterator = iter(forebay.torch.DataLoader(OneSided(), batch_size=1, num_workers=2, pin_memory=True))
    for number in range(12):
        assert next(iterator).tolist() == [number]
        assert not journey_of(iterator)._engine.wants()


# -- Ends and interruptions


class Dying:
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_killed_worker_takes_no_batch_along_that_was_made_before(accelerator: Accelerator) -> None:
    iterator = iter(forebay.torch.DataLoader(Dying(), num_workers=1, pin_memory=True))
    batches, _ = until(WorkerDied, iterator)
    assert numbers(batches) == [[0], [1], [2]]
    assert not iterator._pin_memory_thread.is_alive()


@pytest.mark.parametrize("how", ["exhausted", "closed", "dropped", "shut down"])
def test_the_thread_ends_with_the_iterator(accelerator: Accelerator, how: str) -> None:
    loader = forebay.torch.DataLoader(torch.arange(9), num_workers=1, pin_memory=True)
    iterator = iter(loader)
    thread = iterator._pin_memory_thread
    next(iterator)
    if how == "exhausted":
        assert len(list(iterator)) == 8
    elif how == "closed":
        loader.close()
    elif how == "dropped":
        del iterator
        gc.collect()
    else:
        iterator._shutdown_workers()
    thread.join()
    assert not thread.is_alive()


def test_a_batch_on_which_pinning_takes_too_long_comes_later(accelerator: Accelerator) -> None:
    loader = forebay.torch.DataLoader(torch.arange(3), num_workers=1, pin_memory=True, timeout=0.2)
    iterator = iter(loader)
    accelerator.room.clear()
    for _ in range(2):
        with pytest.raises(LoaderTimeout, match=r"DataLoader timed out after 0\.2 seconds"):
            next(iterator)
        assert loader.state_dict()["_num_yielded"] == 0
    accelerator.room.set()
    # The machine may be slow, too.
    found: list[Any] = []
    while len(found) < 3:
        try:
            found.append(next(iterator).tolist())
        except LoaderTimeout:
            continue
    assert found == [[0], [1], [2]]


def test_an_interruption_while_pinning_loses_no_batch(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = forebay.torch.DataLoader(torch.arange(3), num_workers=1, pin_memory=True)
    iterator = iter(loader)
    wait = Pinned.wait

    def interrupted(pinned: Pinned, timeout_s: float) -> bool:
        monkeypatch.setattr(Pinned, "wait", wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(Pinned, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(iterator)
    state = loader.state_dict()
    assert numbers(iterator) == [[0], [1], [2]]
    loader.load_state_dict(state)
    assert numbers(loader) == [[0], [1], [2]]


def test_an_interruption_anywhere_in_the_wait_for_pinning_leaves_nothing_locked(accelerator: Accelerator) -> None:
    line, came = 0, True
    while came:
        line += 1
        pinned = Pinned(torch.arange(2))
        with Interruption(line) as interruption:
            pinned.wait(0.001)
        came = interruption.came
        thread = threading.Thread(target=pinned.pin, args=("cuda", 3))
        thread.start()
        while not pinned.wait(0.1):
            pass
        thread.join()
        assert pinned.result().tolist() == [0, 1]
    assert line > 1


def test_interruptions_anywhere_cost_a_batch_each_at_most_and_end_no_epoch(accelerator: Accelerator) -> None:
    count, lines = 300, 120
    batches = [[number] for number in range(count)]
    loader = forebay.torch.DataLoader(torch.arange(count), batch_sampler=batches, num_workers=1, pin_memory=True)
    epoch = iter(loader)
    got: list[int] = []
    interruptions = 0
    for line in range(1, lines):
        with Interruption(line) as interruption:
            got.append(next(epoch).item())
        interruptions += interruption.came
    got += [batch.item() for batch in epoch]
    assert got == sorted(set(got))
    assert got[-1] == count - 1
    assert len(got) >= count - interruptions


def test_a_forked_child_is_refused_and_ends(accelerator: Accelerator) -> None:
    iterator = iter(forebay.torch.DataLoader(torch.arange(9), num_workers=1, pin_memory=True))
    next(iterator)

    def use_and_drop() -> None:
        nonlocal iterator
        with pytest.raises(ForkedChildError):
            next(iterator)
        del iterator

    assert in_child(use_and_drop) == 0
    assert numbers(iterator) == [[number] for number in range(1, 9)]


def test_what_was_pinned_does_not_keep_the_batch_it_was_copied_from(accelerator: Accelerator) -> None:
    seen: list[Any] = []

    def remember(batch: Any) -> Any:
        seen.append(weakref.ref(batch))
        return start(batch)

    iterator = iter(forebay.torch.DataLoader(torch.arange(9), num_workers=1, pin_memory=True))
    start = iterator._pinner.start
    journey_of(iterator).take_ahead(2, remember, iterator._pinner.await_end)
    kept = list(iterator)
    assert len(kept) == 9
    assert [reference() for reference in seen] == [None] * 9


def test_the_thread_does_not_keep_the_last_batch(accelerator: Accelerator) -> None:
    loader = forebay.torch.DataLoader(
        Made(["a batch that pins itself"]), collate_fn=the_batch, num_workers=1, pin_memory=True
    )
    iterator = iter(loader)
    batch = next(iterator)
    assert batch.is_pinned
    reference = weakref.ref(batch)
    del batch
    eventually(lambda: reference() is None)


def test_a_program_that_ends_while_batches_are_pinned_ends_quietly(tmp_path: Path) -> None:
    text = """
        import types, torch
        torch.accelerator.is_available = lambda: True
        torch.accelerator.current_accelerator = lambda: types.SimpleNamespace(type="cuda")
        torch.accelerator.current_device_index = lambda: 0
        torch.accelerator.set_device_index = lambda index: None
        torch.Tensor.pin_memory = torch.Tensor.clone
        loader = DataLoader(torch.rand(10_000, 100), 100, num_workers=2, pin_memory=True, persistent_workers=True)
        kept = iter(loader)
        for _ in range(5):
            next(kept)
    """
    with Program(tmp_path, text, front="torch") as program:
        assert program.end() == (0, "", "")
