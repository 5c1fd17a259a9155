"""Workers and trainers that die, are interrupted, forked or threaded: what is said, and who is left."""

import ctypes
import faulthandler
import importlib
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import forebay.torch
from forebay.errors import ForkedChildError, WorkerDied
from support import (
    START_METHODS,
    Front,
    Gate,
    Numbers,
    Program,
    WhoAmI,
    Wire,
    eventually,
    exists,
    flat,
    in_child,
    is_running,
    journey_of,
    pids_of,
    until,
    wait_for_ends,
    watch,
)


class Dying(Numbers):
    """Does `how` to its worker at index `at`."""

    def __init__(self, count: int, at: int, how: Callable[[], object], size: int = 4) -> None:
        super().__init__(count, size)
        self.at = at
        self.how = how

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        if index == self.at:
            self.how()
        return super().__getitem__(index)


def _signal(number: int) -> Callable[[], None]:
    def die() -> None:
        faulthandler.disable()  # pytest's own, which would print the worker's stack among the tests' names
        os.kill(os.getpid(), number)

    return die


DEATHS = {
    "killed": (_signal(signal.SIGKILL), -9, r"killed by signal: SIGKILL \(Killed\)", "out of memory"),
    "terminated": (_signal(signal.SIGUSR1), -10, "killed by signal: SIGUSR1", "."),
    "crashed": (_signal(signal.SIGSEGV), -11, "killed by signal: SIGSEGV", "native code"),
    "bus error": (_signal(signal.SIGBUS), -7, "killed by signal: SIGBUS", "truncated"),
    "exited with 0": (lambda: os._exit(0), 0, "exited with code 0", "os._exit"),
    "exited with 3": (lambda: os._exit(3), 3, "exited with code 3", "os._exit"),
    "sys.exit": (lambda: sys.exit(5), 5, "exited with code 5", "sys.exit"),
}


# -- A worker dies


@pytest.mark.parametrize("death", DEATHS)
def test_a_dead_worker_is_an_error_that_names_how_who_which_batch_and_why(front: Front, death: str) -> None:
    how, code, said, cause = DEATHS[death]
    iterator = iter(front.DataLoader(Dying(20, 5, how), batch_size=2, num_workers=2))
    pid = pids_of(iterator)[0]
    with pytest.raises(WorkerDied, match=said) as caught:
        list(iterator)
    error = caught.value
    text = str(error)
    assert text.startswith(f"DataLoader worker (pid(s) {pid}) exited unexpectedly: worker 0 ")
    assert "batch 2 of indices [4, 5]" in text
    assert cause in text
    assert (error.worker, error.pid, error.exitcode, error.batches[0]) == (0, pid, code, 2)
    assert isinstance(error, RuntimeError)


@pytest.mark.parametrize("death", ["killed", "exited with 0"])
def test_what_a_worker_finished_before_its_death_is_delivered_first(front: Front, death: str) -> None:
    found, _ = until(WorkerDied, front.DataLoader(Dying(20, 5, DEATHS[death][0]), batch_size=2, num_workers=1))
    Numbers(4).assert_epoch(found, 2)


def test_after_a_death_next_raises_the_same_again_and_never_ends_the_epoch(front: Front) -> None:
    iterator = iter(front.DataLoader(Dying(20, 3, DEATHS["killed"][0]), num_workers=2))
    with pytest.raises(WorkerDied) as first:
        list(iterator)
    for _ in range(3):
        with pytest.raises(WorkerDied) as again:
            next(iterator)
        assert again.value is first.value


@pytest.mark.parametrize("persistent", [False, True])
def test_after_a_death_no_worker_is_left(front: Front, persistent: bool) -> None:
    loader = front.DataLoader(Dying(20, 3, DEATHS["killed"][0]), num_workers=3, persistent_workers=persistent)
    iterator = iter(loader)
    with pytest.raises(WorkerDied):
        list(iterator)
    assert not [pid for pid in pids_of(iterator) if exists(pid)]
    loader.close()


@pytest.mark.parametrize("persistent", [False, True])
def test_after_a_death_a_new_epoch_has_new_workers(front: Front, persistent: bool) -> None:
    dataset = Dying(12, 3, DEATHS["killed"][0])
    with front.DataLoader(dataset, num_workers=2, persistent_workers=persistent) as loader:
        with pytest.raises(WorkerDied):
            list(loader)
        dataset.at = -1
        dataset.assert_epoch(list(loader), 1)


def test_batches_in_hand_stay_right_when_their_worker_dies(front: Front) -> None:
    dataset = Dying(30, 9, DEATHS["killed"][0], size=20_000)
    found, _ = until(WorkerDied, front.DataLoader(dataset, num_workers=1))
    Numbers(9, 20_000).assert_epoch(found, 1)


def test_out_of_order_a_death_is_noticed_too(front: Front) -> None:
    iterator = iter(front.DataLoader(Dying(50, 4, DEATHS["killed"][0]), num_workers=2, in_order=False))
    with pytest.raises(WorkerDied, match="batch 4 of indices"):
        list(iterator)


def test_the_death_of_an_idle_worker_is_noticed_when_it_is_needed(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(1000), num_workers=2))
    next(iterator)
    os.kill(pids_of(iterator)[1], signal.SIGKILL)
    with pytest.raises(WorkerDied, match="worker 1 is killed by signal: SIGKILL"):
        list(iterator)


def test_the_death_of_a_persistent_worker_between_epochs_is_noticed_in_the_next(front: Front) -> None:
    with front.DataLoader(Numbers(30), num_workers=2, persistent_workers=True) as loader:
        Numbers(30).assert_epoch(list(loader), 1)
        os.kill(pids_of(loader._iterator)[1], signal.SIGKILL)
        with pytest.raises(WorkerDied, match="worker 1"):
            list(loader)


def test_a_death_while_an_abandoned_epoch_is_waited_for_is_noticed(front: Front, gate: Gate) -> None:
    class Stuck(Numbers):
        def __getitem__(self, index: int) -> Any:
            if index == 3:
                gate.wait()
            return super().__getitem__(index)

    with front.DataLoader(Stuck(30), num_workers=2, persistent_workers=True) as loader:
        iterator = iter(loader)
        next(iterator)
        os.kill(pids_of(iterator)[1], signal.SIGKILL)
        with pytest.raises(WorkerDied, match="worker 1"):
            iter(loader)


def test_a_worker_that_dies_while_others_are_stuck_is_reported_without_waiting_for_them(
    front: Front, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay._crew._PATIENCE_S", 1_000_000.0)

    class Stuck(Dying):
        def __getitem__(self, index: int) -> Any:
            if index == 0:
                gate.wait()
            return super().__getitem__(index)

    # Batch 0 of worker 0 never comes; the death of worker 1 is seen while it is waited for.
    iterator = iter(front.DataLoader(Stuck(10, 1, DEATHS["killed"][0]), num_workers=2))
    with pytest.raises(WorkerDied, match="worker 1"):
        next(iterator)


class ExplodesOnArrival:
    """Cannot be unpickled where a worker starts."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index

    def __setstate__(self, state: Any) -> None:
        raise OSError("cannot open the index on this machine")

    def __getstate__(self) -> Any:
        return {"a": 1}


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_dataset_that_cannot_be_unpickled_in_a_worker_is_that_error_with_the_workers_traceback(
    front: Front, method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    iterator = iter(front.DataLoader(ExplodesOnArrival(), num_workers=2, multiprocessing_context=method))
    for number in range(4):
        with pytest.raises(OSError, match="cannot open the index on this machine") as caught:
            next(iterator)
        error = caught.value
        assert f"worker {number % 2}, batch {number}" in error.__notes__[0]
        assert "unpickled in the worker" in error.__notes__[1]
        assert "__setstate__" in (str(error) if front.name == "torch" else str(error.__cause__))
    with pytest.raises(StopIteration):
        next(iterator)
    assert capfd.readouterr().err == ""


def test_torchs_crash_handlers_do_not_hide_a_crash(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WorkerDied, match="SIGSEGV"):
        list(forebay.torch.DataLoader(Dying(3, 1, lambda: os.kill(os.getpid(), signal.SIGSEGV)), num_workers=1))
    assert "Unexpected segmentation fault encountered in worker" in capfd.readouterr().err


# -- The trainer dies, or is interrupted


# One worker has nothing to do, one sleeps, one waits in native code that holds the interpreter's lock.
STUCK_WORKERS = """
    import ctypes, time
    def init(worker_id):
        tell(f"pid {os.getpid()}")
    class Stuck:
        def __len__(self):
            return 2
        def __getitem__(self, index):
            tell("stuck")
            if index == 0:
                time.sleep(1_000_000)
            ctypes.PyDLL(None).pause()
    if __name__ == "__main__":
        loader = DataLoader(Stuck(), num_workers=3, worker_init_fn=init, multiprocessing_context=METHOD)
        for batch in loader:
            pass
"""


def _pids_told(program: Program, workers: int, stuck: int) -> list[int]:
    lines = program.told(workers + stuck)
    pids = [int(line.split()[1]) for line in lines if line.startswith("pid")]
    assert (len(pids), lines.count("stuck")) == (workers, stuck)
    return pids


@pytest.mark.parametrize(("name", "method"), [*(("numpy", method) for method in START_METHODS), ("torch", "fork")])
def test_when_the_trainer_is_killed_its_workers_end_whatever_they_are_doing(
    tmp_path: Path, name: str, method: str
) -> None:
    with Program(tmp_path, STUCK_WORKERS, name, method) as program:
        pidfds = watch(_pids_told(program, workers=3, stuck=2))
        program.process.kill()
        wait_for_ends(pidfds)


BUSY_WORKERS = """
    import time
    def init(worker_id):
        tell(f"pid {os.getpid()}")
    class Slow:
        def __len__(self):
            return 1_000_000
        def __getitem__(self, index):
            if index < 2:
                tell("stuck")
            time.sleep(0.01)
            return index
    if __name__ == "__main__":
        loader = DataLoader(Slow(), batch_size=4, num_workers=2, worker_init_fn=init, multiprocessing_context=METHOD,
                            persistent_workers=True)
        for batch in loader:
            pass
"""


@pytest.mark.parametrize(("name", "method"), [*(("numpy", method) for method in START_METHODS), ("torch", "fork")])
def test_ctrl_c_shows_one_traceback_and_leaves_no_worker(tmp_path: Path, name: str, method: str) -> None:
    with Program(tmp_path, BUSY_WORKERS, name, method) as program:
        pidfds = watch(_pids_told(program, workers=2, stuck=2))
        os.killpg(program.process.pid, signal.SIGINT)
        code, _, stderr = program.end()
        wait_for_ends(pidfds)
    assert code == -signal.SIGINT
    assert stderr.count("Traceback (most recent call last)") == 1
    assert stderr.strip().endswith("KeyboardInterrupt")
    assert "program.py" in stderr


CAUGHT_INTERRUPT = """
    import psutil, signal, time
    reading, writing = os.pipe()
    class Interrupting:
        def __len__(self):
            return 100
        def __getitem__(self, index):
            if index == 20:
                # Ctrl-C while the trainer waits for this batch: anywhere else it is the program's own affair.
                for _ in range(20):
                    os.read(reading, 1)
                while psutil.Process(os.getppid()).status() != "sleeping":
                    time.sleep(0.001)
                os.killpg(0, signal.SIGINT)
                os.read(reading, 1)  # the trainer has been interrupted
            return index
    if __name__ == "__main__":
        loader = DataLoader(Interrupting(), num_workers=1, multiprocessing_context=METHOD)
        iterator = iter(loader)
        found = []
        interrupts = 0
        while True:
            try:
                found.extend(next(iterator).tolist())
                os.write(writing, b"!")
            except KeyboardInterrupt:
                interrupts += 1
                os.write(writing, b"!")
            except StopIteration:
                break
        print(interrupts, found == list(range(100)))
"""


@pytest.mark.parametrize("together", [False, True])
def test_a_caught_ctrl_c_loses_no_batch_also_when_both_come_together(tmp_path: Path, together: bool) -> None:
    wait = "os.read(reading, 1)  # the trainer has been interrupted"
    assert wait in CAUGHT_INTERRUPT
    text = CAUGHT_INTERRUPT.replace(wait, "pass") if together else CAUGHT_INTERRUPT
    with Program(tmp_path, text) as program:
        assert program.end() == (0, "1 True\n", "")


LIVE_AT_EXIT = """
    def init(worker_id):
        tell(f"pid {os.getpid()}")
    if __name__ == "__main__":
        loader = DataLoader(range(1_000_000), batch_size=5000, num_workers=2, worker_init_fn=init,
                            multiprocessing_context=METHOD, persistent_workers=PERSISTENT)
        iterator = iter(loader)
        kept = [next(iterator) for _ in range(3)]
        cycle = [iterator, kept]
        cycle.append(cycle)
        END
"""


@pytest.mark.parametrize(("name", "method"), [*(("numpy", method) for method in START_METHODS), ("torch", "fork")])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_program_that_ends_with_a_live_iterator_ends_quietly_and_leaves_no_worker(
    tmp_path: Path, name: str, method: str, persistent: bool
) -> None:
    text = LIVE_AT_EXIT.replace("PERSISTENT", repr(persistent)).replace("END", "")
    with Program(tmp_path, text, name, method) as program:
        pidfds = watch(_pids_told(program, workers=2, stuck=0))
        assert program.end() == (0, "", "")
        wait_for_ends(pidfds)


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_an_exception_in_the_loop_ends_the_program_with_its_own_traceback_only(tmp_path: Path, name: str) -> None:
    text = LIVE_AT_EXIT.replace("PERSISTENT", "True").replace("END", "raise LookupError('mine')")
    with Program(tmp_path, text, name) as program:
        pidfds = watch(_pids_told(program, workers=2, stuck=0))
        code, _, stderr = program.end()
        wait_for_ends(pidfds)
    assert code == 1
    assert stderr.count("Traceback") == 1
    assert stderr.strip().endswith("LookupError: mine")


ABRUPT = """
    def init(worker_id):
        tell(f"pid {os.getpid()}")
    loader = DataLoader(range(1000), num_workers=2, worker_init_fn=init)
    iterator = iter(loader)
    next(iterator), next(iterator)
    os._exit(7)
"""


def test_a_trainer_that_exits_without_ceremony_leaves_no_worker(tmp_path: Path) -> None:
    with Program(tmp_path, ABRUPT) as program:
        pidfds = watch(_pids_told(program, workers=2, stuck=0))
        assert program.end() == (7, "", "")
        wait_for_ends(pidfds)


def test_a_signal_handler_of_the_program_runs_while_next_waits(front: Front, gate: Gate) -> None:
    trainer = os.getpid()

    class Signalling(Numbers):
        def __getitem__(self, index: int) -> Any:
            if index == 1:
                os.kill(trainer, signal.SIGUSR1)
                gate.wait()
            return super().__getitem__(index)

    before = signal.signal(signal.SIGUSR1, lambda *_: gate.open())
    try:
        Numbers(5).assert_epoch(list(front.DataLoader(Signalling(5), num_workers=1)), 1)
    finally:
        signal.signal(signal.SIGUSR1, before)


class Interrupted(Exception):
    pass


def test_an_exception_of_a_signal_handler_leaves_next_as_if_it_had_not_been_called(front: Front, gate: Gate) -> None:
    trainer = os.getpid()

    class Signalling(Numbers):
        def __getitem__(self, index: int) -> Any:
            if index == 2:
                assert [taken.receive(), taken.receive()] == [0, 1]
                eventually(lambda: psutil.Process(trainer).status() == psutil.STATUS_SLEEPING)
                os.kill(trainer, signal.SIGUSR1)
                gate.wait()
            return super().__getitem__(index)

    def handler(*_: object) -> None:
        raise Interrupted

    def telling(iterator: Any) -> Iterator[Any]:
        for number, batch in enumerate(iterator):
            yield batch
            taken.send(number)

    taken = Wire()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        iterator = iter(front.DataLoader(Signalling(6), num_workers=1, prefetch_factor=1))
        found, _ = until(Interrupted, telling(iterator))
        gate.open()
        found.extend(iterator)
    finally:
        signal.signal(signal.SIGUSR1, before)
        taken.close()
    Numbers(6).assert_epoch(found, 1)


# -- Threads


def test_a_loader_can_be_used_in_a_thread(front: Front) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(front.DataLoader(Numbers(30), batch_size=4, num_workers=2)))
    thread.start()
    thread.join()
    Numbers(30).assert_epoch(found, 4)


def test_an_iterator_made_in_one_thread_can_be_used_and_closed_in_another(front: Front) -> None:
    loader = front.DataLoader(Numbers(30), batch_size=4, num_workers=2, persistent_workers=True)
    iterator = iter(loader)
    pids = pids_of(iterator)
    found: list[Any] = []

    def use() -> None:
        found.extend(iterator)
        loader.close()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    Numbers(30).assert_epoch(found, 4)
    assert not [pid for pid in pids if exists(pid)]


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_that_share_an_iterator_get_every_batch_once(front: Front, threads: int) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        iterator = iter(front.DataLoader(Numbers(600), batch_size=2, num_workers=2))
        start = threading.Barrier(threads)
        found: list[list[Any]] = [[] for _ in range(threads)]
        errors: list[BaseException] = []

        def take(own: list[Any]) -> None:
            start.wait()
            try:
                own.extend(np.asarray(batch).tolist() for batch in iterator)
            except BaseException as error:  # noqa: BLE001 - shown by the test's own thread
                errors.append(error)

        takers = [threading.Thread(target=take, args=(own,)) for own in found]
        for taker in takers:
            taker.start()
        for taker in takers:
            taker.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors
    batches = sorted(batch for own in found for batch in own)
    assert batches == [Numbers(600).batch([first, first + 1]).tolist() for first in range(0, 600, 2)]


@pytest.mark.parametrize("busy", [True, False])
def test_closing_while_another_thread_waits_in_next_lets_it_go(
    front: Front, gate: Gate, busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay._crew._PATIENCE_S", 0.2)

    class Stuck(Numbers):
        def __getitem__(self, index: int) -> Any:
            stuck.open()
            gate.wait()
            return super().__getitem__(index)

    stuck = Gate()
    loader = front.DataLoader(Stuck(4), num_workers=1)
    iterator = iter(loader)
    pids = pids_of(iterator)
    ends: list[Any] = []

    def wait() -> None:
        try:
            ends.append(next(iterator))
        except StopIteration as error:
            ends.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    stuck.wait()
    if not busy:
        gate.open()
    loader.close()
    waiter.join()
    assert len(ends) == 1
    assert not [pid for pid in pids if exists(pid)]
    with pytest.raises(StopIteration):
        next(iterator)
    stuck.close()


# -- Forks


def test_a_forked_child_that_uses_its_parents_iterator_is_told_so(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(20), num_workers=2))
    found = [next(iterator)]

    def use() -> None:
        with pytest.raises(ForkedChildError, match="forked child"):
            next(iterator)

    assert in_child(use) == 0
    found.extend(iterator)
    Numbers(20).assert_epoch(found, 1)


def test_a_child_forked_while_a_thread_waits_in_next_is_told_so_too(front: Front, gate: Gate) -> None:
    class Stuck(Numbers):
        def __getitem__(self, index: int) -> Any:
            stuck.open()
            gate.wait()
            return super().__getitem__(index)

    stuck = Gate()
    iterator = iter(front.DataLoader(Stuck(4), num_workers=1))
    found: list[Any] = []
    waiter = threading.Thread(target=lambda: found.extend(iterator))
    waiter.start()
    stuck.wait()

    def use() -> None:
        with pytest.raises(ForkedChildError):
            next(iterator)
        journey_of(iterator).close()

    assert in_child(use) == 0
    gate.open()
    waiter.join()
    Numbers(4).assert_epoch(found, 1)
    stuck.close()


@pytest.mark.parametrize("act", ["close", "drop", "exit"])
def test_what_a_forked_child_does_to_an_iterator_does_not_reach_its_parent(front: Front, act: str) -> None:
    held = [iter(front.DataLoader(Numbers(20), num_workers=2))]
    found = [next(held[0])]

    def use() -> None:
        if act == "close":
            journey_of(held[0]).close()
        elif act == "drop":
            held.clear()

    assert in_child(use) == 0
    found.extend(held[0])
    Numbers(20).assert_epoch(found, 1)


def test_a_forked_child_can_load_with_workers_of_its_own(front: Front) -> None:
    loader = front.DataLoader(Numbers(20), batch_size=3, num_workers=2)
    iterator = iter(loader)
    next(iterator)
    assert in_child(lambda: Numbers(20).assert_epoch(list(loader), 3)) == 0


def _load_in_a_process(module: str) -> None:
    dataset = Numbers(20)
    dataset.assert_epoch(list(importlib.import_module(module).DataLoader(dataset, batch_size=3, num_workers=2)), 3)


@pytest.mark.parametrize("method", START_METHODS)
def test_a_process_of_multiprocessing_can_load(method: str) -> None:
    process = multiprocessing.get_context(method).Process(target=_load_in_a_process, args=("forebay",))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_a_worker_may_start_programs_and_processes_of_its_own(front: Front) -> None:
    class Running(Numbers):
        def __getitem__(self, index: int) -> Any:
            done = subprocess.run(["/bin/sh", "-c", f"exit {index}"], check=False)
            return np.array([done.returncode, in_child(lambda: None)])

    assert flat(front.DataLoader(Running(4), num_workers=2)) == [[0, 0], [1, 0], [2, 0], [3, 0]]


def test_ctrl_c_reaches_programs_that_a_worker_starts(front: Front) -> None:
    class Asking(Numbers):
        def __getitem__(self, index: int) -> Any:
            code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            return done.stdout.strip()

    assert list(front.DataLoader(Asking(1), num_workers=1)) == [["True"]]


# -- How many, and what is left


def test_after_an_epoch_there_is_no_child_and_no_zombie(front: Front) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    iterator = iter(front.DataLoader(Numbers(20), num_workers=3))
    pids = set(pids_of(iterator))
    assert {child.pid for child in psutil.Process().children(recursive=True)} - before == pids
    list(iterator)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_workers_of_a_finished_epoch_exited_with_0(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(20), num_workers=3))
    list(iterator)
    assert [process.exitcode for process in journey_of(iterator).processes] == [0, 0, 0]


def test_eight_workers_share_the_work(front: Front) -> None:
    with front.DataLoader(WhoAmI(64, front.get_worker_info), batch_size=2, num_workers=8) as loader:
        batches = list(loader)
    assert [batch[0, 1].item() for batch in batches] == list(range(8)) * 4
    assert [batch[:, 0].tolist() for batch in batches] == [[index, index + 1] for index in range(0, 64, 2)]


@pytest.mark.parametrize("busy", ["sleeping", "in native code"])
def test_close_ends_workers_that_are_in_the_middle_of_a_batch(
    front: Front, busy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How long a busy worker may go on is a matter of taste; that it ends is the law.
    monkeypatch.setattr("forebay._crew._PATIENCE_S", 0.2)
    started = Gate()

    class Stuck(Numbers):
        def __getitem__(self, index: int) -> Any:
            started.open()
            if busy == "sleeping":
                time.sleep(1_000_000)
            ctypes.PyDLL(None).pause()

    with front.DataLoader(Stuck(10), num_workers=2) as loader:
        pids = pids_of(iter(loader))
        iterator = iter(loader)
        pids += pids_of(iterator)
        started.wait()
    assert not [pid for pid in pids if exists(pid)]
    started.close()


def test_dropping_an_iterator_whose_workers_are_busy_waits_for_no_epoch(front: Front, gate: Gate) -> None:
    class Stuck(Numbers):
        def __getitem__(self, index: int) -> Any:
            if index > 1:
                gate.wait()
            return super().__getitem__(index)

    iterator = iter(front.DataLoader(Stuck(1000), num_workers=1))
    pid = pids_of(iterator)[0]
    next(iterator)
    gate.open()
    del iterator
    assert not exists(pid)


def test_many_loaders_at_once_work(front: Front) -> None:
    loaders = [front.DataLoader(Numbers(6), num_workers=1) for _ in range(6)]
    iterators = [iter(loader) for loader in loaders]
    pids = [pid for iterator in iterators for pid in pids_of(iterator)]
    assert all(is_running(pid) for pid in pids)
    for batches in zip(*iterators, strict=True):
        assert len({repr(np.asarray(batch).tolist()) for batch in batches}) == 1
    eventually(lambda: not [pid for pid in pids if exists(pid)])


def test_a_low_limit_of_descriptors_is_an_error_that_leaves_nothing_behind(tmp_path: Path) -> None:
    text = """
        import resource, forebay
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            try:
                list(DataLoader(range(4), num_workers=8))
            except (OSError, RuntimeError) as error:
                print(type(error).__name__, error)
        import gc; gc.collect()
        print(len(os.listdir("/proc/self/fd")) - before)
        print([batch.tolist() for batch in DataLoader(range(2), num_workers=1)])
    """
    with Program(tmp_path, text) as program:
        code, stdout, stderr = program.end()
    assert (code, stderr) == (0, "")
    *errors, left, works = stdout.splitlines()
    assert len(errors) == 3
    assert all(re.search("Too many open files|descriptors", error) for error in errors)
    assert (left, works) == ("0", "[[0], [1]]")
