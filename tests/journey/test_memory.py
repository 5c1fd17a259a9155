"""Where batches live: whose they are, how long, what they cost, and what happens when there is no room."""

import copy
import gc
import io
import os
import pickle
import random
import re
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import forebay.torch
from forebay.errors import MemoryBudgetWarning, SharedMemoryError
from support import Front, Gate, Numbers, descriptor_count, front_named, in_child, journey_of, pids_of

KEPT = 20_000  # int64 numbers of a sample: well above what is copied out of a slot
BATCH_BYTES = KEPT * 8


def _array(batch: Any) -> np.ndarray:
    return np.asarray(batch)


def _engine(iterator: Any) -> Any:
    return journey_of(iterator)._engine


def _slot_bytes(data_bytes: int) -> int:
    """What a slot of a batch takes at most: its data, its description, and what is left of a page."""
    return data_bytes + 32 * 1024


class Labelled(Numbers):
    """Large images with small labels."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index), index


class Ragged(Numbers):
    """Samples of very different sizes."""

    def __getitem__(self, index: int) -> Any:
        return np.full(1 + (index * 7919) % 50_000, index)


# -- What you are given is yours


@pytest.mark.parametrize("size", [3, KEPT])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_list_of_a_loader_is_the_whole_dataset(front: Front, size: int, workers: int) -> None:
    dataset = Numbers(60, size)
    dataset.assert_epoch(list(front.DataLoader(dataset, batch_size=4, num_workers=workers)), 4)


def test_a_kept_batch_is_never_overwritten(front: Front) -> None:
    dataset = Numbers(400, KEPT // 2)
    chance = random.Random(3)
    kept: dict[int, Any] = {}
    for number, batch in enumerate(front.DataLoader(dataset, num_workers=2)):
        if chance.random() < 0.2:
            kept[number] = batch
        if kept and chance.random() < 0.15:
            kept.pop(chance.choice(list(kept)))
    assert len(kept) > 10
    for number, batch in kept.items():
        assert np.array_equal(_array(batch), dataset.batch([number]))


@given(
    st.lists(st.sampled_from(["next", "keep", "drop", "break"]), max_size=60), st.sampled_from([1, 2, 3]), st.booleans()
)
@settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
def test_whatever_is_kept_and_dropped_every_batch_in_hand_is_right(acts: list[str], workers: int, tight: bool) -> None:
    dataset = Numbers(40, KEPT)
    budget = (4 * workers + 3) * _slot_bytes(BATCH_BYTES) if tight else None
    options = {"num_workers": workers, "persistent_workers": True, "memory_budget": budget}
    kept: list[tuple[int, Any]] = []
    with warnings.catch_warnings(), forebay.DataLoader(dataset, **options) as loader:
        warnings.simplefilter("ignore", MemoryBudgetWarning)
        iterator = enumerate(loader)
        for act in acts:
            if act == "drop":
                del kept[: len(kept) // 2 + 1]
            elif act == "break":
                iterator = enumerate(loader)
            else:
                number, batch = next(iterator, (None, None))
                if number is None:
                    iterator = enumerate(loader)
                    continue
                assert np.array_equal(batch, dataset.batch([number]))
                if act == "keep":
                    batch += 1
                    kept.append((number, batch))
        for number, batch in kept:
            assert np.array_equal(batch, dataset.batch([number]) + 1)


def test_batches_are_writable_and_what_is_written_is_seen_by_nobody_else(front: Front) -> None:
    dataset = Numbers(30, KEPT)
    samples = [dataset[index] for index in range(30)]
    for _ in range(2):
        batches = []
        for batch in front.DataLoader(samples, num_workers=2):
            batch[:] += 1
            batches.append(batch)
        for number, batch in enumerate(batches):
            assert np.array_equal(_array(batch), dataset.batch([number]) + 1)
            batch[:] = -1
    assert all(np.array_equal(sample, dataset[index]) for index, sample in enumerate(samples))


def test_the_leaves_of_one_batch_do_not_share_memory(front: Front) -> None:
    first, second = next(iter(front.DataLoader([(np.zeros(KEPT), np.zeros(KEPT))], num_workers=1)))
    first += 1
    assert not second.any()


def test_a_batch_that_is_written_to_comes_unchanged_from_the_next_epoch(front: Front) -> None:
    dataset = Numbers(10, KEPT)
    with front.DataLoader(dataset, num_workers=2, persistent_workers=True) as loader:
        for batch in loader:
            batch[:] = -1
        dataset.assert_epoch(list(loader), 1)


def test_batches_outlive_their_iterator_their_loader_and_its_workers(front: Front) -> None:
    dataset = Numbers(20, KEPT)
    loader = front.DataLoader(dataset, num_workers=2, persistent_workers=True)
    iterator = iter(loader)
    batches = [next(iterator) for _ in range(7)]
    loader.close()
    gone = weakref.ref(iterator)
    del loader, iterator
    gc.collect()
    assert gone() is None
    for number, batch in enumerate(batches):
        assert np.array_equal(_array(batch), dataset.batch([number]))
        batch[:] += 1
        assert np.array_equal(_array(batch), dataset.batch([number]) + 1)


def test_a_view_of_a_batch_keeps_it(front: Front) -> None:
    dataset = Numbers(50, KEPT)
    iterator = iter(front.DataLoader(dataset, num_workers=1))
    view = next(iterator)[0, 100:200]
    for _ in iterator:
        pass
    assert np.array_equal(_array(view), dataset[0][100:200])


def test_batches_may_be_dropped_by_any_thread(front: Front) -> None:
    dataset = Numbers(200, KEPT)
    hands: deque[Any] = deque()
    done = threading.Event()

    def drop() -> None:
        while not done.is_set() or hands:
            if hands:
                hands.popleft()

    dropper = threading.Thread(target=drop)
    dropper.start()
    for number, batch in enumerate(front.DataLoader(dataset, num_workers=2)):
        assert np.array_equal(_array(batch), dataset.batch([number]))
        hands.append(batch)
        del batch
    done.set()
    dropper.join()


def test_ragged_samples_travel_whatever_came_before_in_their_slot(front: Front) -> None:
    loader = front.DataLoader(Ragged(120), batch_size=None, num_workers=2)
    for _ in range(2):
        for index, sample in enumerate(loader):
            assert np.array_equal(_array(sample), Ragged(120)[index])


def test_batches_that_change_their_kind_from_one_to_the_next_travel(front: Front) -> None:
    kinds = [np.arange(KEPT), "text", {"a": np.arange(3)}, [np.arange(KEPT), 5], b"x" * 100_000, None, 2**90]
    found = list(front.DataLoader(kinds, batch_size=None, sampler=[*range(7), *range(7)], num_workers=2))
    assert repr([found[index] for index in (1, 4, 5, 6)]) == repr([kinds[index] for index in (1, 4, 5, 6)])
    assert np.array_equal(_array(found[7]), kinds[0])
    assert np.array_equal(_array(found[10][0]), np.arange(KEPT))


# -- What it costs


def test_dropped_batches_are_made_in_the_same_memory_again(front: Front) -> None:
    dataset = Numbers(300, KEPT)
    iterator = iter(front.DataLoader(dataset, num_workers=2))
    slots = 4 + 2 + 2  # ahead, kept warm, and in the hands of this loop
    for batch in iterator:
        assert _engine(iterator).memory_bytes <= slots * _slot_bytes(BATCH_BYTES)
        del batch


def test_kept_small_arrays_do_not_keep_their_batchs_memory(front: Front) -> None:
    iterator = iter(front.DataLoader(Labelled(300, KEPT), num_workers=2))
    labels = []
    for image, label in iterator:
        labels.append(label)
        del image
        if len(labels) < 300:
            assert _engine(iterator).memory_bytes <= 8 * _slot_bytes(BATCH_BYTES)
    assert [label.item() for label in labels] == list(range(300))


def test_descriptors_do_not_grow_with_the_batches_that_are_kept(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(310, KEPT), num_workers=2))
    kept = [next(iterator)]
    before = descriptor_count()
    kept.extend(islice(iterator, 299))
    assert descriptor_count() == before


@pytest.mark.parametrize("persistent", [False, True])
def test_descriptors_do_not_grow_with_epochs(front: Front, persistent: bool) -> None:
    loader = front.DataLoader(Numbers(4), num_workers=2, persistent_workers=persistent)
    list(loader)
    before = descriptor_count()
    for _ in range(5):
        list(loader)
    assert descriptor_count() <= before
    loader.close()


def test_an_iterator_that_is_gone_has_left_no_descriptor(front: Front) -> None:
    gc.collect()
    before = descriptor_count()
    gc.disable()
    try:
        iterator = iter(front.DataLoader(Numbers(40), num_workers=3))
        next(iterator)
        assert descriptor_count() > before
        del iterator
        assert descriptor_count() == before
    finally:
        gc.enable()


def test_an_iterator_that_is_gone_has_left_no_mapping(front: Front) -> None:
    def mappings() -> int:
        return len(re.findall("memfd:forebay", Path("/proc/self/maps").read_text()))

    gc.collect()
    before = mappings()
    iterator = iter(front.DataLoader(Numbers(40, KEPT), num_workers=2))
    kept = list(iterator)
    assert mappings() > before
    del iterator, kept
    assert mappings() == before


@pytest.mark.parametrize("kept", [0, 1, 5])
def test_a_closed_loader_keeps_no_memory_but_that_of_kept_batches(front: Front, kept: int) -> None:
    before = _mapped_bytes()
    iterator = iter(front.DataLoader(Numbers(40, KEPT), num_workers=2))
    batches = list(islice(iterator, kept))
    iterator.close()
    # A slot is mapped with room to grow, up to the next power of two.
    most = len(batches) * 2 * _slot_bytes(BATCH_BYTES)
    assert len(batches) * BATCH_BYTES <= _mapped_bytes() - before <= most
    del batches
    assert _mapped_bytes() == before


def _mapped_bytes() -> int:
    """Bytes of shared memory that this process has mapped."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:forebay" in line]
    ranges = [[int(end, 16) for end in line[0].split("-")] for line in lines]
    return sum(end - start for start, end in ranges)


def _arena_descriptor() -> int:
    """A descriptor of its own for the shared memory of the only iterator that lives."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    (arena,) = [link for link in links if str(link.readlink()).startswith("/memfd:forebay")]
    return os.open(arena, os.O_RDONLY)


@pytest.mark.parametrize("kept", [0, 1, 5])
def test_a_closed_loader_gives_the_memory_of_all_other_slots_back_to_the_system(front: Front, kept: int) -> None:
    gc.collect()
    iterator = iter(front.DataLoader(Numbers(40, KEPT), num_workers=2))
    for batch in islice(iterator, 20):
        del batch
    batches = list(islice(iterator, kept))
    arena = _arena_descriptor()
    iterator.close()
    try:
        control_bytes = 128 * 1024
        assert os.fstat(arena).st_blocks * 512 <= len(batches) * _slot_bytes(BATCH_BYTES) + control_bytes
    finally:
        os.close(arena)


def test_the_memory_of_many_kept_batches_is_given_back_when_they_are_dropped(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(100, KEPT), num_workers=2))
    kept = list(islice(iterator, 40))
    assert _engine(iterator).memory_bytes >= 40 * BATCH_BYTES
    del kept
    for batch in islice(iterator, 5):
        del batch
    # Four ahead, six kept warm, and what was in the hands of this loop.
    assert _engine(iterator).memory_bytes <= 12 * _slot_bytes(BATCH_BYTES)


def test_nothing_ever_has_a_name_in_shared_memory(front: Front) -> None:
    before = set(Path("/dev/shm").iterdir())
    iterator = iter(front.DataLoader(Labelled(40, KEPT), num_workers=2))
    kept = [next(iterator) for _ in range(10)]
    assert set(Path("/dev/shm").iterdir()) <= before
    os.kill(pids_of(iterator)[0], 9)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        kept.extend(iterator)
    del iterator, kept
    assert set(Path("/dev/shm").iterdir()) <= before


def test_no_payload_goes_through_a_pipe(front: Front) -> None:
    # A pipe or a socket holds no more than some hundred kilobytes: workers ahead would block in writing to it, and
    # memory that the trainer has never read could not hold the batches.
    iterator = iter(front.DataLoader(Numbers(4, 1_000_000), num_workers=2))
    kinds = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    next(iterator)
    assert [kind for kind in kinds if kind.startswith("/memfd:forebay")]
    assert _engine(iterator).memory_bytes >= 8_000_000


def _address(leaf: Any) -> int:
    return leaf.data_ptr() if isinstance(leaf, torch.Tensor) else leaf.__array_interface__["data"][0]


def _is_in_shared_memory(leaf: Any) -> bool:
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= _address(leaf) < end:
            return "memfd:forebay" in line
    return False


class Inner:
    def __init__(self, image: Any) -> None:
        self.image = image


def _inner(samples: list[Any]) -> Any:
    return Inner(samples[0])


@pytest.mark.parametrize(
    ("options", "leaf"),
    [
        ({}, lambda batch: batch),
        ({"batch_size": None}, lambda batch: batch),
        ({"collate_fn": tuple}, lambda batch: batch[0]),
        ({"collate_fn": list}, lambda batch: batch[0]),
        ({"collate_fn": _inner}, lambda batch: batch.image),
    ],
    ids=["default", "unbatched", "tuple", "list", "object"],
)
def test_the_trainer_copies_no_large_array(front: Front, options: dict[str, Any], leaf: Any) -> None:
    for batch in front.DataLoader(Numbers(5, KEPT), num_workers=2, **options):
        assert _is_in_shared_memory(leaf(batch))


@pytest.mark.parametrize("view", ["dense", "strided", "shared"])
def test_the_trainer_copies_no_large_tensor(view: str) -> None:
    class Tensors(Numbers):
        def __getitem__(self, index: int) -> Any:
            made = torch.from_numpy(super().__getitem__(index))
            return {"dense": [made], "strided": [made[::2]], "shared": [made, made]}[view]

    for batch in forebay.torch.DataLoader(Tensors(5, KEPT), batch_size=None, collate_fn=_same, num_workers=2):
        assert all(_is_in_shared_memory(leaf) for leaf in batch)


def _same(sample: Any) -> Any:
    return sample


@pytest.mark.parametrize("kind", ["tuple", "dict", "named tuple", "object"])
def test_every_leaf_is_one_storage_of_exactly_its_bytes(kind: str) -> None:
    front = front_named("torch")
    collate_fn = {"tuple": _as_tuple, "dict": _as_dict, "named tuple": None, "object": _as_object}[kind]
    batch = next(iter(front.DataLoader(Labelled(4, KEPT), batch_size=2, num_workers=1, collate_fn=collate_fn)))
    leaves = batch.values() if isinstance(batch, dict) else vars(batch).values() if kind == "object" else batch
    for leaf in leaves:
        assert leaf.untyped_storage().nbytes() == leaf.nbytes
        assert leaf.storage_offset() == 0


def _as_tuple(samples: list[Any]) -> Any:
    images, labels = zip(*samples, strict=True)
    return torch.stack([torch.from_numpy(image) for image in images]), torch.tensor(labels)


def _as_dict(samples: list[Any]) -> Any:
    return dict(zip(("images", "labels"), _as_tuple(samples), strict=True))


class Holder:
    def __init__(self, images: Any, labels: Any) -> None:
        self.images = images
        self.labels = labels


def _as_object(samples: list[Any]) -> Any:
    return Holder(*_as_tuple(samples))


def test_a_view_of_much_travels_as_its_own_bytes_only() -> None:
    class View(Numbers):
        def __getitem__(self, index: int) -> Any:
            return torch.zeros(10_000_000)[500:2500]

    (leaf,), *_ = list(forebay.torch.DataLoader(View(1), collate_fn=list, num_workers=1))
    assert leaf.untyped_storage().nbytes() == 8000


def _saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize("save", [pickle.dumps, _saved, copy.deepcopy])
def test_saving_one_kept_leaf_saves_its_bytes_only(front: Front, save: Any) -> None:
    batch = next(iter(front.DataLoader([(np.zeros(500_000), np.arange(2000.0))], num_workers=1)))
    saved = save(batch[1])
    if isinstance(saved, bytes):
        assert 16_000 <= len(saved) < 20_000
    else:
        assert np.array_equal(_array(saved), _array(batch[1]))


def test_a_batch_can_be_shared_and_sent_on_like_any_tensor() -> None:
    (batch,) = forebay.torch.DataLoader(Numbers(1, KEPT), num_workers=1)
    assert batch.share_memory_().is_shared()
    assert np.array_equal(batch.numpy(), Numbers(1, KEPT).batch([0]))


def test_tensors_resize_and_become_parameters_like_any_other() -> None:
    (batch,) = forebay.torch.DataLoader([torch.arange(KEPT, dtype=torch.float32)], num_workers=1)
    parameter = torch.nn.Parameter(batch)
    (parameter * parameter).sum().backward()
    assert torch.equal(parameter.grad, 2 * batch)


# -- When there is no room


def _tight(batches_kept: int, workers: int = 2) -> int:
    """A budget for the batches ahead and about this many that are kept."""
    return (2 * workers + 1 + batches_kept) * _slot_bytes(BATCH_BYTES)


def test_batches_kept_beyond_the_budget_are_right_and_warned_of_once(front: Front) -> None:
    dataset = Numbers(100, KEPT)
    loader = front.DataLoader(dataset, num_workers=2, memory_budget=_tight(5))
    with pytest.warns(MemoryBudgetWarning) as caught:
        kept = list(loader)
    assert len(caught) == 1
    dataset.assert_epoch(kept, 1)


def test_the_budget_is_never_exceeded(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(100, KEPT), num_workers=2, memory_budget=_tight(5)))
    assert _engine(iterator).memory_budget == _tight(5)
    with pytest.warns(MemoryBudgetWarning):
        kept = [(batch, _engine(iterator).memory_bytes) for batch in iterator]
    assert max(used for _, used in kept) <= _tight(5)


def test_the_budget_warning_tells_the_numbers_and_points_at_the_loop(front: Front) -> None:
    loader = front.DataLoader(Numbers(30, KEPT), num_workers=1, memory_budget=_tight(2, workers=1))
    with pytest.warns(MemoryBudgetWarning, match=f"memory budget is {_tight(2, workers=1):,} bytes") as caught:
        kept = [batch for batch in loader]  # noqa: C416 - the loop that is pointed at
    assert len(kept) == 30
    assert caught[0].filename == __file__


def test_batches_copied_for_lack_of_room_are_writable_and_private_too(front: Front) -> None:
    dataset = Numbers(40, KEPT)
    with pytest.warns(MemoryBudgetWarning):
        kept = list(front.DataLoader(dataset, num_workers=2, memory_budget=_tight(2)))
    for batch in kept:
        batch[:] += 1
    for number, batch in enumerate(kept):
        assert np.array_equal(_array(batch), dataset.batch([number]) + 1)


def test_when_kept_batches_are_dropped_batches_are_no_longer_copied(front: Front) -> None:
    dataset = Numbers(100, KEPT)
    iterator = iter(front.DataLoader(dataset, num_workers=2, memory_budget=_tight(3)))
    with pytest.warns(MemoryBudgetWarning):
        kept = list(islice(iterator, 30))
    assert not _is_in_shared_memory(kept[-1])
    del kept
    for number, batch in enumerate(iterator, start=30):
        assert np.array_equal(_array(batch), dataset.batch([number]))
        assert _is_in_shared_memory(batch) or number < 40  # those that were made before
        del batch


def test_a_program_that_keeps_few_batches_is_not_warned(front: Front) -> None:
    dataset = Numbers(60, KEPT)
    window: deque[Any] = deque(maxlen=3)
    for batch in front.DataLoader(dataset, num_workers=2, memory_budget=_tight(6)):
        window.append(batch)
    assert len(window) == 3


class Holding:
    """Holds a batch, and itself."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch
        self.itself = self


def test_when_room_runs_out_batches_in_reference_cycles_are_collected(front: Front) -> None:
    dataset = Numbers(60, KEPT)
    held: list[weakref.ref[Holding]] = []
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MemoryBudgetWarning)
            for number, batch in enumerate(front.DataLoader(dataset, num_workers=2, memory_budget=_tight(10))):
                assert np.array_equal(_array(batch), dataset.batch([number]))
                held.append(weakref.ref(Holding(batch)))
        assert [reference() for reference in held[:5]] == [None] * 5
    finally:
        gc.enable()


class TooLarge(Numbers):
    """Sample 2 is larger than the budget."""

    def __getitem__(self, index: int) -> Any:
        return np.zeros(2_000_000) if index == 2 else super().__getitem__(index)


@pytest.mark.parametrize("collate_fn", [None, list])
def test_a_batch_over_the_budget_is_an_error_with_numbers_at_its_place(front: Front, collate_fn: Any) -> None:
    options = {"num_workers": 2, "memory_budget": 8 << 20, "collate_fn": collate_fn}
    iterator = iter(front.DataLoader(TooLarge(6, KEPT), **options))
    next(iterator), next(iterator)
    with pytest.raises(
        SharedMemoryError if front.name == "numpy" else RuntimeError, match=r"16,?000,?\d\d\d"
    ) as caught:
        next(iterator)
    assert f"{8 << 20}" in re.sub(",", "", str(caught.value)) + str(caught.value.__cause__)
    assert "memory_budget" in str(caught.value)
    assert len(list(iterator)) == 3


def test_a_worker_that_cannot_have_memory_is_an_error_and_never_a_bus_error(front: Front) -> None:
    class Vast(Numbers):
        def __getitem__(self, index: int) -> Any:
            # More than any machine has, without having it.
            return np.broadcast_to(np.zeros(1), (1 << 37,)) if index == 0 else super().__getitem__(index)

    iterator = iter(front.DataLoader(Vast(3, KEPT), num_workers=1, memory_budget=1 << 41))
    with pytest.raises(RuntimeError, match=r"memory|allocate"):
        next(iterator)
    assert np.array_equal(_array(next(iterator)), Numbers(3, KEPT).batch([1]))


# -- Forks while batches live


def test_a_forked_child_sees_unchanged_batches_when_its_parent_goes_on(front: Front) -> None:
    dataset = Numbers(80, KEPT)
    iterator = iter(front.DataLoader(dataset, num_workers=2))
    kept = [next(iterator) for _ in range(5)]
    gate = Gate()
    pid = os.fork()
    if pid == 0:
        gate.wait()
        right = all(np.array_equal(_array(batch), dataset.batch([number])) for number, batch in enumerate(kept))
        os._exit(0 if right else 1)
    del kept
    for batch in iterator:
        batch[:] = -1
        del batch
    gate.open()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    gate.close()


def test_what_a_forked_child_drops_is_not_reused_under_its_parent(front: Front) -> None:
    dataset = Numbers(80, KEPT)
    iterator = iter(front.DataLoader(dataset, num_workers=2))
    kept = [next(iterator) for _ in range(5)]
    assert in_child(kept.clear) == 0
    for batch in iterator:
        del batch
    for number, batch in enumerate(kept):
        assert np.array_equal(_array(batch), dataset.batch([number]))


def test_memory_that_only_a_forked_child_saw_is_used_again_when_it_is_gone(front: Front) -> None:
    gc.collect()  # no batches of other tests
    dataset = Numbers(300, KEPT)
    iterator = iter(front.DataLoader(dataset, num_workers=2, memory_budget=_tight(8)))
    for number in range(60):
        batch = next(iterator)
        assert np.array_equal(_array(batch), dataset.batch([number]))
        assert in_child(lambda: None) == 0
        del batch
    # Were those slots lost, the budget would be used up by now, which would be warned of: an error in this suite.
    assert _engine(iterator).memory_bytes <= _tight(8)


def test_memory_is_not_kept_for_a_child_that_never_saw_it(front: Front) -> None:
    kept = next(iter(front.DataLoader(Numbers(1, KEPT), num_workers=1)))
    # These workers, forked while a batch is kept, live as long as the iterator; they see none of its batches.
    iterator = iter(front.DataLoader(Numbers(300, KEPT), num_workers=2, memory_budget=_tight(8)))
    for _ in range(60):
        batch = next(iterator)
        assert in_child(lambda: None) == 0
        del batch
    assert _engine(iterator).memory_bytes <= _tight(8)
    assert len(kept) == 1


@pytest.mark.parametrize("budget", [1 << 43, 1 << 50])
def test_a_budget_beyond_all_machines_works(front: Front, budget: int) -> None:
    Numbers(3, KEPT).assert_epoch(list(front.DataLoader(Numbers(3, KEPT), num_workers=1, memory_budget=budget)), 1)


class Cached:
    """A dataset that holds the batches of another loader."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]


def test_a_dataset_that_holds_the_batches_of_a_loader_can_be_loaded(front: Front) -> None:
    dataset = Numbers(30, KEPT)
    source = front.DataLoader(dataset, num_workers=2, persistent_workers=True)
    cached = Cached(list(source))
    loader = front.DataLoader(cached, batch_size=None, num_workers=2)
    for _ in range(2):
        dataset.assert_epoch(list(loader), 1)
    iterator = iter(loader)
    copies = [next(iterator)]
    # The workers have their copies of the cache; here it goes, and its memory is used again.
    cached.batches = []
    for batch in source:
        batch[:] = -1
        del batch
    copies.extend(iterator)
    dataset.assert_epoch(copies, 1)
    source.close()


def test_batches_can_be_kept_by_the_program_over_persistent_epochs(front: Front) -> None:
    dataset = Numbers(12, KEPT)
    with front.DataLoader(dataset, num_workers=2, persistent_workers=True) as loader:
        epochs = [list(loader) for _ in range(4)]
    for epoch in epochs:
        dataset.assert_epoch(epoch, 1)


def _epochs(loader: Any, count: int) -> Iterator[Any]:
    for _ in range(count):
        yield from loader


def test_memory_does_not_grow_over_persistent_epochs_with_early_breaks(front: Front) -> None:
    with front.DataLoader(Numbers(50, KEPT), num_workers=2, persistent_workers=True) as loader:
        for _ in range(15):
            iterator = iter(loader)
            for batch in islice(iterator, 3):
                del batch
            assert _engine(iterator).memory_bytes <= 9 * _slot_bytes(BATCH_BYTES)
