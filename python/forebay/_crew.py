"""The worker processes of one iterator: started by `multiprocessing` as configured, watched by the engine."""

import contextlib
import gc
import pickle
import signal
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from forebay._engine import Engine
from forebay._worker import Assignment, TravellingSeat, work
from forebay.errors import WorkerDied

__all__ = ["Crew"]

_PATIENCE_S = 5.0
"""How long a worker may take to finish what it is doing before it is terminated, as in torch."""

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
        arguments: tuple[Any, ...] = (TravellingSeat(seat), assignment)
        make: Any = context  # every context has a Process, but the type of contexts does not say so
        process: BaseProcess = make.Process(target=work, args=arguments, daemon=True)
        try:
            process.start()
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            error.add_note(
                "[forebay] The dataset, collate_fn and worker_init_fn are pickled to start a worker with start method "
                f"{_start_method(context)!r}. Define them at the top level of a module (no lambdas, no local classes), "
                "or use multiprocessing_context='fork'."
            )
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
        process = self.processes[worker]
        process.join(_PATIENCE_S)
        code, pid = process.exitcode, _pid(process)
        if not batches:
            task = "between batches"
        else:
            task = f"while it made batch {batches[0]}" + (
                "" if indices is None else f" of indices {_abridged(indices)}"
            )
        text = (
            f"DataLoader worker (pid(s) {pid}) exited unexpectedly: worker {worker} {_end(code)} {task}. {_cause(code)}"
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


def _cause(code: int | None) -> str:
    if code == 1:
        return "Likely cause: an exception outside of the dataset's own methods; its traceback is printed above."
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            cause = _LIKELY_CAUSES.get(signal.Signals(-code))
            if cause is not None:
                return f"Likely cause: {cause}. "
        return ""
    return (
        "Likely cause: the dataset, or a library it uses, called sys.exit or os._exit. With num_workers=0 the same "
        "code runs in this process, where it can be seen."
    )


def _abridged(indices: object) -> str:
    text = repr(indices)
    return text if len(text) <= 200 else f"{text[:200]}..."
