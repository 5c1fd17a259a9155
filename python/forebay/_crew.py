"""The worker processes of one iterator: started by `multiprocessing` as configured, watched by the engine."""

import contextlib
import gc
import multiprocessing
import pickle
import signal
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from forebay import _culprit, _descriptors
from forebay._engine import Engine
from forebay._report import Report, WorkerTraceback
from forebay._worker import Assignment, TravellingSeat, work
from forebay.errors import WorkerDied

__all__ = ["Crew"]

_PATIENCE_S = 5.0
"""How long a worker may take to finish what it is doing before it is terminated, as in torch."""

_TO_START_ONE = 4
"""Descriptors that `multiprocessing` takes to fork; where it gets only some of them, it does not give them back."""

_LIKELY_CAUSES = {
    signal.SIGKILL: "the system ran out of memory and killed it, or somebody sent kill -9",
    signal.SIGSEGV: "native code (a decoder, an extension) crashed",
    signal.SIGBUS: "a memory-mapped file was truncated while it was read, or the disk under it failed",
    signal.SIGFPE: "native code divided by zero",
    signal.SIGILL: "native code was built for another processor",
    signal.SIGABRT: "native code gave up (look for its message above)",
    signal.SIGTERM: "somebody terminated it",
}


class Crew:
    """Worker processes, started when made.

    Args:
        context: the start method, as `multiprocessing.get_context` gives it.
        engine: whose tickets they take.
        assignment: what every worker is told, but for its number.
    """

    def __init__(self, context: BaseContext, engine: Engine, assignment: Assignment) -> None:
        self.processes: list[BaseProcess] = []
        self._start_method = _start_method(context)
        try:
            with _interrupts_later(context), _garbage_left_alone():
                for worker_id in range(assignment.num_workers):
                    self._start(context, engine, replace(assignment, worker_id=worker_id))
            engine.attach([_pid(process) for process in self.processes])
        except BaseException:
            self._terminate(self.processes)
            raise

    def _start(self, context: BaseContext, engine: Engine, assignment: Assignment) -> None:
        seat = engine.seat(assignment.worker_id)
        arguments: tuple[Any, ...] = (TravellingSeat(seat, stream=assignment.stream), assignment)
        make: Any = context  # every context has a Process, but the type of contexts does not say so
        process: BaseProcess = make.Process(target=work, args=arguments, daemon=True)
        try:
            _descriptors.make_sure_of(_TO_START_ONE)
            process.start()
        except Exception as error:
            if multiprocessing.current_process().daemon:
                error.add_note(
                    "[forebay] this process is a daemonic child of multiprocessing, as a loader's worker is, and may "
                    "start no workers: use num_workers=0 in it"
                )
            elif _start_method(context) != "fork":
                _name_culprit(error, context, assignment)
            raise
        finally:
            seat.close()
        self.processes.append(process)

    def stop(self, engine: Engine) -> None:
        """Lets the workers return; terminates those that do not within a few seconds."""
        engine.stop()
        deadline = time.monotonic() + _PATIENCE_S
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        self._terminate([process for process in self.processes if process.is_alive()])

    def terminate(self) -> None:
        """Ends the workers, whatever they are doing."""
        self._terminate(self.processes)

    @staticmethod
    def _terminate(processes: Sequence[BaseProcess]) -> None:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(_PATIENCE_S)
            if process.is_alive():
                process.kill()
                process.join(_PATIENCE_S)

    def died(self, worker: int, batches: list[int], indices: object) -> WorkerDied:
        """The error that tells how `worker` died and over which batch (`batches[0]`, made of `indices`)."""
        task = f"while it made batch {batches[0]}" if batches else "between batches"
        if batches and indices is not None:
            task += f" of indices {_abridged(indices)}"
        return self._died(worker, batches, task, lambda code: _cause(code, self._start_method))

    def gave_up(self, worker: int, batch: int, report: Report) -> WorkerDied:
        """The error that tells what ended `worker`, by its own account."""
        task = f"while it made batch {batch} {report.task}"
        error = self._died(
            worker,
            [batch],
            task,
            lambda _: (
                f"Cause: {report.end}; see the worker's traceback above. It ends only "
                "the worker: raise an exception to tell the program."
            ),
        )
        error.__cause__ = WorkerTraceback(report.text)
        return error

    def _died(self, worker: int, batches: list[int], task: str, cause: Callable[[int | None], str]) -> WorkerDied:
        process = self.processes[worker]
        process.join(_PATIENCE_S)
        code, pid = process.exitcode, _pid(process)
        text = (
            f"DataLoader worker (pid(s) {pid}) exited unexpectedly: worker {worker} {_end(code)} {task}. {cause(code)}"
        )
        return WorkerDied(text, worker, pid, code, batches)


@contextlib.contextmanager
def _interrupts_later(context: BaseContext) -> Generator[None]:
    """Blocks Ctrl-C here, and in processes started meanwhile until they are ready for it.

    So there are no half-started workers, and no tracebacks of theirs.
    """
    if _start_method(context) == "forkserver":
        yield  # its children are the server's, which must not inherit what is meant for ours
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _garbage_left_alone() -> Generator[None]:
    """Keeps a forked worker's collector from touching the trainer's objects: it would copy their pages."""
    if gc.get_freeze_count() > 0:
        yield  # the program does this itself
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _name_culprit(error: Exception, context: BaseContext, assignment: Assignment) -> None:
    """Notes on an error of starting a worker what could not be sent to it, if that was the reason."""
    names = ("dataset", "collate_fn", "worker_init_fn")
    culprit = _culprit.in_luggage({name: getattr(assignment, name) for name in names})
    if culprit is None and not isinstance(error, pickle.PicklingError):
        return
    error.add_note(
        f"[forebay] {culprit or 'the dataset, collate_fn or worker_init_fn holds something'}, which cannot be pickled; "
        f"start method {_start_method(context)!r} pickles dataset, collate_fn and worker_init_fn to start a worker. "
        "Define functions and classes at the top level of a module, make locks and open files in worker_init_fn, or "
        "use multiprocessing_context='fork'."
    )


def _start_method(context: BaseContext) -> str:
    """The start method's name."""
    return str(context.get_start_method())


def _pid(process: BaseProcess) -> int:
    assert process.pid is not None, "a started process has a number"
    return process.pid


def _end(code: int | None) -> str:
    if code is None:
        return "ended"
    if code >= 0:
        return f"exited with code {code}"
    name = str(-code)
    with contextlib.suppress(ValueError):
        name = f"{signal.Signals(-code).name} ({signal.strsignal(-code)})"
    return f"is killed by signal: {name}"


def _cause(code: int | None, start_method: str) -> str:
    if code == 1:
        text = "Likely cause: an exception outside of the dataset's own methods; its traceback is printed above."
        if start_method != "fork":
            text += (
                f" Start method {start_method!r} imports the main module anew in every worker: what it does as a "
                "program belongs under if __name__ == '__main__'."
            )
        return text
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            cause = _LIKELY_CAUSES.get(signal.Signals(-code))
            if cause is not None:
                return f"Likely cause: {cause}."
        return "Likely cause: somebody, or a library, sent it that signal."
    return (
        "Likely cause: the dataset, or a library it uses, called sys.exit or os._exit. With num_workers=0 the same "
        "code runs in this process, where it can be seen."
    )


def _abridged(indices: object) -> str:
    text = repr(indices)
    return text if len(text) <= 200 else f"{text[:200]}..."
