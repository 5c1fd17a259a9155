"""What a worker is: its number, seeds, dataset, preparation, and how it is started."""

import gc
import multiprocessing
import multiprocessing.context
import os
import pickle
import random
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import forebay
import forebay.torch
from support import (
    START_METHODS,
    Front,
    Numbers,
    WhoAmI,
    Wire,
    descriptor_count,
    flat,
    generator,
    identity,
    pids_of,
    values,
)


def test_worker_info_in_a_worker_tells_number_count_seed_and_its_own_dataset(front: Front) -> None:
    class Asking(Numbers):
        def __getitem__(self, index: int) -> Any:
            info = front.get_worker_info()
            return [info.id, info.num_workers, info.seed == torch.initial_seed(), info.dataset is self]

    assert front.get_worker_info() is None
    batches = front.DataLoader(Asking(4), collate_fn=identity, num_workers=2)
    assert list(batches) == [[[number % 2, 2, True, True]] for number in range(4)]
    assert front.get_worker_info() is None


def test_seeds_of_workers_follow_each_other_from_the_epochs_base_seed(front: Front) -> None:
    dataset = WhoAmI(6, front.get_worker_info)
    seeds = [batch[0, 5].item() for batch in front.DataLoader(dataset, num_workers=3)]
    assert seeds == [seeds[0], seeds[0] + 1, seeds[0] + 2] * 2


class Random(Numbers):
    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        return np.array([random.random(), np.random.rand(), torch.rand(()).item(), index])


@pytest.mark.parametrize("persistent", [False, True])
def test_no_two_workers_and_no_two_epochs_draw_the_same_random_numbers(front: Front, persistent: bool) -> None:
    with front.DataLoader(Random(12), num_workers=3, persistent_workers=persistent) as loader:
        drawn = [number for _ in range(2) for batch in loader for number in batch[0, :3].tolist()]
    assert len(set(drawn)) == len(drawn) == 72


@pytest.mark.parametrize("shuffle", [False, True])
def test_equal_generators_give_equal_epochs(front: Front, shuffle: bool) -> None:
    def epochs() -> list[Any]:
        options = {"num_workers": 2, "shuffle": shuffle, "generator": generator(front, 42)}
        loader = front.DataLoader(Random(8), **options)
        return [values(loader) for _ in range(2)]

    first = epochs()
    assert first == epochs()
    assert first[0] != first[1]


def test_a_seed_set_in_worker_init_fn_is_what_samples_draw_from(front: Front) -> None:
    def seed(worker_id: int) -> None:
        random.seed(100 + worker_id)
        np.random.seed(100 + worker_id)
        torch.manual_seed(100 + worker_id)

    drawn = [batch[0, :3].tolist() for batch in front.DataLoader(Random(2), num_workers=2, worker_init_fn=seed)]
    for worker_id, numbers in enumerate(drawn):
        seed(worker_id)
        assert numbers == [random.random(), np.random.rand(), torch.rand(()).item()]


def test_a_torch_worker_is_a_daemon_that_computes_in_one_thread_and_is_named_as_torch_names_it() -> None:
    class Asking(Numbers):
        def __getitem__(self, index: int) -> Any:
            name = Path("/proc/self/comm").read_text().strip()
            return [torch.get_num_threads(), name, torch.multiprocessing.current_process().daemon]

    (batch,) = forebay.torch.DataLoader(Asking(1), collate_fn=identity, num_workers=1)
    assert batch == [[1, "pt_data_worker", True]]


def test_worker_init_fn_runs_once_per_worker_before_any_sample_and_may_be_a_closure(front: Front, wire: Wire) -> None:
    class Sending(Numbers):
        def __getitem__(self, index: int) -> Any:
            wire.send(1000 + index)
            return super().__getitem__(index)

    started = []

    def init(worker_id: int) -> None:
        started.append(worker_id)
        assert len(started) == 1
        wire.send(worker_id)

    assert len(list(front.DataLoader(Sending(5), num_workers=1, worker_init_fn=init))) == 5
    assert wire.drain() == [0, 1000, 1001, 1002, 1003, 1004]
    assert started == []


def test_worker_init_fn_may_change_the_workers_own_dataset_copy(front: Front) -> None:
    def init(worker_id: int) -> None:
        front.get_worker_info().dataset.mark = 10 + worker_id

    dataset = WhoAmI(4, front.get_worker_info)
    loader = front.DataLoader(dataset, num_workers=2, worker_init_fn=init)
    assert [batch[0, 4].item() for batch in loader] == [10, 11, 10, 11]
    assert dataset.mark == 0


class Initialising(WhoAmI):
    def begin(self, worker_id: int) -> None:
        info = self.info()
        info.dataset.mark = 10 + worker_id


def test_worker_init_fn_may_be_a_method_of_the_dataset(front: Front) -> None:
    dataset = Initialising(4, front.get_worker_info)
    loader = front.DataLoader(dataset, num_workers=2, worker_init_fn=dataset.begin)
    assert [batch[0, 4].item() for batch in loader] == [10, 11, 10, 11]


def test_an_exception_of_worker_init_fn_takes_the_place_of_that_workers_first_batch(front: Front) -> None:
    def init(worker_id: int) -> None:
        if worker_id == 1:
            raise OSError("no licence")

    iterator = iter(front.DataLoader(Numbers(6), num_workers=2, worker_init_fn=init))
    assert next(iterator)[0, 0] == 0
    with pytest.raises(OSError, match="no licence"):
        next(iterator)
    assert next(iterator)[0, 0] == Numbers(6)[2][0]


def test_without_persistence_every_epoch_has_new_processes_and_a_fresh_copy_of_the_dataset(front: Front) -> None:
    inits = Wire()
    dataset = WhoAmI(4, front.get_worker_info)
    loader = front.DataLoader(dataset, num_workers=2, worker_init_fn=inits.send)
    first = torch.cat([torch.as_tensor(batch) for batch in loader])
    dataset.mark = 7
    second = torch.cat([torch.as_tensor(batch) for batch in loader])
    assert not set(first[:, 2].tolist()) & set(second[:, 2].tolist())
    assert first[:, 3].tolist() == second[:, 3].tolist() == [1, 1, 2, 2]
    assert (first[:, 4].tolist(), second[:, 4].tolist()) == ([0] * 4, [7] * 4)
    assert sorted(inits.drain()) == [0, 0, 1, 1]
    assert dataset.made == 0
    inits.close()


def test_persistent_workers_keep_their_process_their_dataset_and_what_it_has_become(front: Front) -> None:
    inits = Wire()
    dataset = WhoAmI(4, front.get_worker_info)
    with front.DataLoader(dataset, num_workers=2, worker_init_fn=inits.send, persistent_workers=True) as loader:
        first = torch.cat([torch.as_tensor(batch) for batch in loader])
        dataset.mark = 7  # today's dataset is not the workers'
        second = torch.cat([torch.as_tensor(batch) for batch in loader])
    assert first[:, 2].tolist() == second[:, 2].tolist()
    assert second[:, 3].tolist() == [3, 3, 4, 4]
    assert second[:, 4].tolist() == [0] * 4
    assert first[:, 5].tolist() == second[:, 5].tolist(), "the seeds stay, the streams go on"
    assert sorted(inits.drain()) == [0, 1]
    inits.close()


@pytest.mark.parametrize(
    "context", [*START_METHODS, multiprocessing.get_context("fork")], ids=[*START_METHODS, "object"]
)
def test_every_start_method_serves(front: Front, context: Any) -> None:
    dataset = WhoAmI(8, front.get_worker_info)
    loader = front.DataLoader(
        dataset, batch_size=2, num_workers=2, multiprocessing_context=context, persistent_workers=True
    )
    with loader:
        for _ in range(2):
            epoch = torch.cat([torch.as_tensor(batch) for batch in loader])
            assert epoch[:, :2].tolist() == [[number, number // 2 % 2] for number in range(8)]
        assert set(epoch[:, 2].tolist()) == set(pids_of(iter(loader)))


def test_the_start_method_is_multiprocessings_own_unless_said_otherwise(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(type(torch.multiprocessing.get_context("fork"))):  # type: ignore[misc]
        class Process:
            def __init__(self, **_: Any) -> None:
                raise LookupError("the default context was asked")

    default = multiprocessing.context._default_context
    monkeypatch.setattr(default, "_actual_context", Refusing())
    with pytest.raises(LookupError, match="the default context was asked"):
        iter(front.DataLoader([1], num_workers=1))


class Unpicklable:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        return index

    def __reduce__(self) -> Any:
        raise pickle.PicklingError("this dataset stays here")


def test_a_dataset_that_cannot_be_sent_to_a_spawned_worker_is_an_error_that_leaves_nothing_behind(front: Front) -> None:
    loader = front.DataLoader(Unpicklable(), num_workers=2, multiprocessing_context="spawn")
    gc.collect()
    before = descriptor_count()
    with pytest.raises(pickle.PicklingError, match="this dataset stays here"):
        iter(loader)
    assert not [child for child in multiprocessing.active_children() if child.name.startswith("Spawn")]
    assert descriptor_count() <= before + 1  # multiprocessing's own resource tracker may have started


class Handles:
    """A dataset with an open file and a socket, as forked workers inherit them."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        self.near, self.far = socket.socketpair()

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        self.near.send(b"!")
        return os.pread(self.file.fileno(), 1, index)[0]


def test_files_and_sockets_that_a_dataset_holds_work_in_forked_workers(front: Front, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(range(6)))
    dataset = Handles(tmp_path / "data")
    with dataset.file, dataset.near, dataset.far:
        assert flat(front.DataLoader(dataset, num_workers=2)) == list(range(6))
        assert dataset.far.recv(100) == b"!" * 6


class Counter:
    """Counts in memory that all workers share, which can be sent only to a process that is being started."""

    def __init__(self, context: Any) -> None:
        self.made = context.Value("i", 0)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        with self.made:
            self.made.value += 1
        return index


@pytest.mark.parametrize("method", START_METHODS)
def test_a_dataset_may_hold_shared_values_and_locks_of_multiprocessing(method: str) -> None:
    dataset = Counter(multiprocessing.get_context(method))
    loader = forebay.DataLoader(dataset, num_workers=2, multiprocessing_context=method)
    assert flat(loader) == list(range(6))
    assert dataset.made.value == 6


def test_a_dataset_may_load_another_one_in_its_worker(front: Front) -> None:
    class Loading(Numbers):
        def __getitem__(self, index: int) -> Any:
            return flat(front.DataLoader([index, index + 1]))

    assert list(front.DataLoader(Loading(2), collate_fn=identity, num_workers=1)) == [[[0, 1]], [[1, 2]]]


def test_a_worker_may_have_no_workers_as_in_torch(front: Front) -> None:
    class Loading(Numbers):
        def __getitem__(self, index: int) -> Any:
            return flat(front.DataLoader([index], num_workers=1))

    with pytest.raises(AssertionError, match="daemonic processes are not allowed to have children"):
        list(front.DataLoader(Loading(1), num_workers=1))
