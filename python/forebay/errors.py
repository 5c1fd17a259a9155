"""What can go wrong, as exceptions.

Every one is a `ForebayError`, and also what PyTorch's loader raises in its place, so `except RuntimeError` goes on
working.
"""

__all__ = [
    "ConfigError",
    "EngineError",
    "EpochCutShortWarning",
    "EqualGeneratorsWarning",
    "FallbackWarning",
    "ForebayError",
    "ForebayWarning",
    "ForkedChildError",
    "LoaderTimeout",
    "MemoryBudgetWarning",
    "SharedMemoryError",
    "StateError",
    "StateWarning",
    "UnpicklableError",
    "WorkerDied",
    "WorkerFailed",
]


class ForebayError(Exception):
    """The base of all errors of Forebay."""


class ConfigError(ForebayError, ValueError):
    """An option has a value that cannot work."""


class EngineError(ForebayError, RuntimeError):
    """The engine or the operating system failed."""


class SharedMemoryError(ForebayError, RuntimeError):
    """There is not enough shared memory for a batch. The text has the numbers and what to change."""


class ForkedChildError(ForebayError, RuntimeError):
    """An iterator was used in a child process that was forked from the one that made it."""


class WorkerDied(ForebayError, RuntimeError):
    """A worker process ended although its work was not done.

    Attributes:
        worker: its number.
        pid: its process number.
        exitcode: as `multiprocessing.Process.exitcode`; negative for a signal.
        batches: the batches of this epoch that it had been sent and had not finished, by number.
    """

    def __init__(self, text: str, worker: int, pid: int, exitcode: int | None, batches: list[int]) -> None:
        super().__init__(text)
        self.worker = worker
        self.pid = pid
        self.exitcode = exitcode
        self.batches = batches

    def __reduce__(self) -> tuple[object, ...]:
        return WorkerDied, (str(self), self.worker, self.pid, self.exitcode, self.batches)


class WorkerFailed(ForebayError, RuntimeError):
    """A worker's exception that cannot be raised here itself (it cannot be pickled). The text has its traceback."""


class UnpicklableError(ForebayError, TypeError):
    """A worker made a batch that cannot be sent, because something in it cannot be pickled.

    Attributes:
        culprit: in the worker, the object that cannot be pickled, where it is known.
    """

    def __init__(self, text: str, culprit: object = None) -> None:
        super().__init__(text)
        self.culprit = culprit

    def __reduce__(self) -> tuple[object, ...]:
        return UnpicklableError, (str(self),)


class LoaderTimeout(ForebayError, TimeoutError, RuntimeError):
    """A batch did not come within `timeout` seconds."""


class StateError(ForebayError, ValueError):
    """A loader's state cannot be loaded: it is damaged, of another version, or of another loader."""


class ForebayWarning(UserWarning):
    """The base of all warnings of Forebay."""


class MemoryBudgetWarning(ForebayWarning):
    """Batches that the program keeps have used the memory budget up: further ones are copied."""


class EpochCutShortWarning(ForebayWarning):
    """The dataset or collate_fn raised `StopIteration`, which ends a loop over the loader as if all were read."""


class EqualGeneratorsWarning(ForebayWarning):
    """A dataset holds random generators that give the same numbers in all workers."""


class StateWarning(ForebayWarning):
    """A loader resumes, but not as quickly or not as exactly as it could."""


class FallbackWarning(ForebayWarning):
    """Something is not served by Forebay's engine yet, and goes the ordinary way."""


class BatchFailed(Exception):
    def __init__(self, report: bytes, step: int, worker: int) -> None:
        super().__init__(report, step, worker)
        self.report = report
        self.step = step
        self.worker = worker


class WorkerEnded(Exception):
    def __init__(self, worker: int, in_flight: list[int]) -> None:
        super().__init__(worker, in_flight)
        self.worker = worker
        self.in_flight = in_flight


class WaitTimedOut(Exception):
    pass


class StreamEnded(Exception):
    pass
