"""1.6 Worker environment: what a worker is before the first sample is asked for, and in which order it becomes so."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from laws import differs
from subjects import Calls, Squares, Stream, as_is
from torch.utils.data import get_worker_info

from support import START_METHODS, Wire, flat


def in_worker(kind: Any, question: Any, **options: Any) -> Any:
    (answer,) = kind(Calls(1, question), batch_size=None, num_workers=1, collate_fn=as_is, **options)
    return answer


def thread_name() -> str:
    return Path("/proc/self/comm").read_text().strip()


def test_a_worker_is_named_pt_data_worker(kind: Any) -> None:
    assert in_worker(kind, lambda _: thread_name()) == "pt_data_worker"


def test_a_worker_computes_in_one_thread(kind: Any) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert in_worker(kind, lambda _: torch.get_num_threads()) == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_worker_is_a_daemon_and_a_child_of_the_trainer(kind: Any) -> None:
    answer = in_worker(kind, lambda _: (multiprocessing.current_process().daemon, os.getppid()))
    assert answer == (True, os.getpid())


def test_name_threads_seeds_and_worker_info_are_set_before_worker_init_fn_and_that_before_dunder_iter(
    kind: Any,
) -> None:
    class Telling(Stream):
        def __iter__(self) -> Iterator[Any]:
            info = get_worker_info()
            return iter([(info.dataset.seen, torch.initial_seed() == info.seed)])

    def init(worker: int) -> None:
        info = get_worker_info()
        info.dataset.seen = (thread_name(), torch.get_num_threads(), torch.initial_seed() == info.seed, worker)

    loader = kind(Telling(1), batch_size=None, num_workers=1, worker_init_fn=init, collate_fn=as_is)
    assert list(loader) == [(("pt_data_worker", 1, True, 0), True)]


def test_worker_init_fn_is_called_once_in_each_worker_and_may_be_a_closure(kind: Any, wire: Wire) -> None:
    called: list[int] = []

    def init(worker: int) -> None:
        called.append(worker)
        assert len(called) == 1
        wire.send(worker)

    assert flat(kind(Squares(6), num_workers=3, worker_init_fn=init)) == [0, 1, 4, 9, 16, 25]
    assert sorted(wire.drain()) == [0, 1, 2]
    assert called == []


class Initialised(Squares):
    def begin(self, worker: int) -> None:
        assert get_worker_info().dataset is self
        self.count = 100 + worker

    def __getitem__(self, index: int) -> int:
        return self.count


def test_worker_init_fn_may_be_a_method_of_the_workers_dataset(kind: Any) -> None:
    dataset = Initialised(2)
    assert flat(kind(dataset, num_workers=2, worker_init_fn=dataset.begin)) == [100, 101]
    assert dataset.count == 2


def test_worker_init_fn_may_choose_the_workers_cpus(kind: Any) -> None:
    cpu = max(os.sched_getaffinity(0))

    def init(_: int) -> None:
        os.sched_setaffinity(0, [cpu])

    dataset = Calls(2, lambda _: list(os.sched_getaffinity(0)))
    assert list(kind(dataset, batch_size=None, num_workers=2, worker_init_fn=init)) == [[cpu], [cpu]]


@pytest.mark.parametrize("method", START_METHODS)
def test_every_start_method_serves_by_name_and_as_an_object(kind: Any, method: str) -> None:
    loader = kind(Squares(4), batch_size=2, num_workers=1, multiprocessing_context=method)
    assert flat(loader) == [0, 1, 4, 9]
    assert loader.multiprocessing_context.get_start_method() == method
    if method == "fork":
        loader.multiprocessing_context = torch.multiprocessing.get_context(method)
        assert flat(loader) == [0, 1, 4, 9]


def test_a_worker_that_the_trainer_terminates_exits_with_0(kind: Any) -> None:
    iterator = iter(kind(Squares(4), num_workers=2, persistent_workers=True))
    assert len(list(iterator)) == 4
    worker = iterator._workers[0]
    # Torch's loader takes the end of a worker it still has for a failure, even if it told it to end.
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        worker.terminate()
        worker.join()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert worker.exitcode == 0


@differs(
    "what becomes of Ctrl-C is the trainer's decision, which may catch it and go on",
    torch="the worker ends quietly, with code 0",
    ours="the worker goes on; it ends when the trainer does",
)
def test_ctrl_c_in_a_worker_shows_no_traceback(kind: Any, stock: bool, capfd: Any) -> None:
    loader = kind(Squares(4), num_workers=1, persistent_workers=True)
    assert len(list(loader)) == 4
    (worker,) = loader._iterator._workers
    os.kill(worker.pid, signal.SIGINT)
    if stock:
        worker.join()
        assert worker.exitcode == 0
    else:
        assert flat(loader) == [0, 1, 4, 9]
        assert [again.pid for again in loader._iterator._workers] == [worker.pid]
    loader._iterator._shutdown_workers()
    assert capfd.readouterr().err == ""


@differs(
    "an exception that ends a worker is told with its traceback",
    torch="the worker exits with code 0 and says nothing; the trainer notices at its next look, after 5 s or `timeout`",
    ours="`WorkerDied`, which names `KeyboardInterrupt`",
)
def test_a_keyboard_interrupt_in_a_dataset_ends_its_worker(kind: Any, stock: bool) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    iterator = iter(kind(Calls(1, interrupt), num_workers=1, timeout=1 if stock else 0))
    text = "timed out"
    while "timed out" in text:  # as long as a busy machine takes to start the worker
        with pytest.raises(RuntimeError) as failed:
            next(iterator)
        text = str(failed.value)
    assert "exited unexpectedly" in text
    assert stock or "KeyboardInterrupt" in text
    assert iterator._workers[0].exitcode == (0 if stock else 1)


def test_a_segmentation_fault_is_told_on_standard_error_and_raised(kind: Any, capfd: Any) -> None:
    crash = Calls(1, lambda _: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|killed by signal"):
        list(kind(crash, num_workers=1))
    assert "Unexpected segmentation fault encountered in worker" in capfd.readouterr().err


def test_a_convolution_works_in_a_worker(kind: Any) -> None:
    layer = torch.nn.Conv2d(1, 1, 3)
    image = torch.rand(1, 1, 8, 8)
    expected = layer(image)
    (found,) = kind(Calls(1, lambda _: layer(image).detach()), batch_size=None, num_workers=1)
    assert torch.allclose(found, expected)
