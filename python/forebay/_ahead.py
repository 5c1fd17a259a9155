"""Batches that are taken from the engine before the program asks for them, so that something can be done with them."""

from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from forebay._engine import Engine
from forebay.errors import WaitTimedOut, WorkerEnded

__all__ = ["Ahead", "Delivery"]

Delivery: TypeAlias = tuple[int, int, bytes | None]
"""The step of a batch, the worker that made it, and what its dataset told with it."""


class Ahead:
    """Batches that were taken before they were asked for, and what came in the place of some.

    Args:
        most: how many.
        prepare: called with each batch as soon as it is taken.
        await_ready: called with what `prepare` returned before that is delivered, again if it was interrupted.
    """

    def __init__(self, most: int, prepare: Callable[[Any], Any], await_ready: Callable[[Any], object]) -> None:
        self._most = most
        self._prepare = prepare
        self.await_ready = await_ready
        self._taken: deque[tuple[Any, Exception | None, Delivery]] = deque()
        self._delivery: Delivery | None = None

    def clear(self) -> None:
        """Drops what was taken."""
        self._taken.clear()

    def fill(self, engine: Engine) -> None:
        """Takes what has arrived: the batch that is asked for, and up to `most` after it. Does not wait."""
        while self._most and len(self._taken) <= self._most:
            try:
                self._taken.append((self._prepare(engine.next(0)), None, engine.last()))
            except (StopIteration, WaitTimedOut, WorkerEnded):
                return  # whoever has to wait is told again
            except Exception as outcome:  # noqa: BLE001 - unpickling a batch may raise anything; it is raised in its place
                self._taken.append((None, outcome, engine.last()))

    def next(self, engine: Engine, timeout: float | None) -> Any:
        """The next batch, taken before or now; or raises what came in its place."""
        self._delivery = None
        if not self._taken:
            return self._prepare(engine.next(timeout))
        batch, outcome, self._delivery = self._taken.popleft()
        if outcome is not None:
            raise outcome
        return batch

    def last(self, engine: Engine) -> Delivery:
        """What `next` gave last: its step, its worker, and what the worker told with it."""
        return self._delivery or engine.last()
