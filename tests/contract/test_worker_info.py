"""1.5 Worker info: what `torch.utils.data.get_worker_info()` tells, and where."""

import dataclasses
import multiprocessing
from typing import Any

import torch
from subjects import Calls, Squares, as_is, asking, column
from torch.utils.data import get_worker_info
from torch.utils.data._utils import worker as torch_worker

from support import flat


def told(kind: Any, question: Any, **options: Any) -> Any:
    """The answer of a worker."""
    (answer,) = kind(Calls(1, question), batch_size=None, num_workers=1, collate_fn=as_is, **options)
    return answer


def test_the_main_process_has_no_worker_info(kind: Any) -> None:
    iterator = iter(kind(Squares(4), num_workers=1))
    next(iterator)
    assert get_worker_info() is None
    list(iterator)
    assert get_worker_info() is None


def test_a_worker_knows_its_number_the_count_its_seed_and_its_dataset(kind: Any) -> None:
    class Asking(Squares):
        def __getitem__(self, index: int) -> Any:
            info = get_worker_info()
            return info.id, info.num_workers, info.seed == torch.initial_seed(), info.dataset is self

    batches = kind(Asking(6), batch_size=None, num_workers=3, collate_fn=as_is)
    assert list(batches) == [(number % 3, 3, True, True) for number in range(6)]


def test_the_worker_info_is_torchs_own_class_and_global(kind: Any) -> None:
    def question(_: int) -> Any:
        info = get_worker_info()
        return type(info) is torch_worker.WorkerInfo, info is torch_worker._worker_info

    assert told(kind, question) == (True, True)


def test_the_worker_info_says_that_workers_are_processes(kind: Any) -> None:
    assert told(kind, lambda _: (get_worker_info().worker_method, get_worker_info().rng)) == ("multiprocessing", None)


def test_the_worker_info_cannot_be_changed(kind: Any) -> None:
    def question(_: int) -> str:
        try:
            get_worker_info().id = 999
        except dataclasses.FrozenInstanceError:
            return "frozen"
        return "changed"

    assert told(kind, question) == "frozen"


def test_the_worker_info_shows_all_its_fields(kind: Any) -> None:
    text = told(kind, lambda _: repr(get_worker_info()))
    places = [text.find(f"{name}=") for name in ("id", "num_workers", "seed", "dataset", "rng")]
    assert -1 not in places
    assert places == sorted(places)


def test_every_worker_has_a_copy_of_the_dataset(kind: Any) -> None:
    dataset = asking(4)
    assert column(kind(dataset, num_workers=2), 3) == [1, 1, 2, 2]
    assert dataset.made == 0


def test_worker_processes_are_told_by_their_numbers(kind: Any) -> None:
    iterator = iter(kind(asking(4), num_workers=2))
    pids = [worker.pid for worker in iterator._workers]
    assert column(iterator, 2) == pids * 2


def test_worker_info_is_there_before_worker_init_fn(kind: Any) -> None:
    assert column(kind(asking(2), num_workers=2, worker_init_fn=mark_dataset), 4) == [10, 11]


def mark_dataset(worker: int) -> None:
    get_worker_info().dataset.mark = 10 + worker


def test_all_workers_are_at_work_at_once(kind: Any) -> None:
    barrier = multiprocessing.get_context("fork").Barrier(3)

    def meet(index: int) -> int:
        barrier.wait()
        return get_worker_info().seed

    assert len(set(flat(kind(Calls(3, meet), num_workers=3)))) == 3
