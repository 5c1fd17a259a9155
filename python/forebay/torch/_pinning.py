"""Pinning: batches are copied to page-locked memory, which a device can read while the program goes on.

The copy is torch's own (`tensor.pin_memory()`), not the slot itself made known to the driver. Torch's allocator of
pinned memory knows which copies to the device are under way and gives memory to the next batch only after them. A slot
is free when its last tensor dies, which with `tensor.to(device, non_blocking=True)` is before the device has read it.
"""

import queue
import threading
import weakref
from typing import Any, TypeAlias

import torch
from torch._utils import ExceptionWrapper
from torch.utils.data._utils import pin_memory as torch_pinning

from forebay.errors import LoaderTimeout

__all__ = ["MOST_AHEAD", "Pinned", "Pinner"]

MOST_AHEAD = 2
"""Batches that are pinned before they are asked for: one while the program uses another, and one in reserve."""

_CHECK_S = 5.0
"""How often whoever waits looks whether the thread still lives."""


class Pinned:
    """A batch that is being pinned."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        # No `Event`: Ctrl-C in its Python code can leave its lock locked, for the thread and for whoever waits next.
        self._done = False
        self._pending = threading.Lock()
        self._pending.acquire()

    def pin(self, device: str, index: int) -> None:
        """Pins it. Called by the thread."""
        wrapper: Any = ExceptionWrapper
        try:
            self._batch = torch_pinning.pin_memory(self._batch, device)  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - a user's own pin_memory may raise anything; it is raised in the batch's place
            self._batch = wrapper(where=f"in pin memory thread for device {index}")
        self._done = True
        self._pending.release()

    def wait(self, timeout_s: float) -> bool:
        """Whether it is done, at the latest when the time is over. For one who waits at a time."""
        if not self._done:
            self._pending.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX))
        return self._done

    def result(self) -> Any:
        """The pinned batch, or what was raised in its place."""
        if isinstance(self._batch, ExceptionWrapper):
            self._batch.reraise()  # type: ignore[no-untyped-call]
        return self._batch


_Orders: TypeAlias = "queue.SimpleQueue[Pinned | None]"


class Pinner:
    """The thread that pins, and does nothing else: it knows no sampler, no worker and no engine.

    Args:
        device: the accelerator's type.
        timeout_s: how long a batch may take; 0 for ever.
    """

    def __init__(self, device: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._orders: _Orders = queue.SimpleQueue()
        index = torch.accelerator.current_device_index()
        self.thread = threading.Thread(
            target=_pin_all, args=(self._orders, device, index), name="pt_data_pin", daemon=True
        )
        self.thread.start()
        # At the interpreter's end, too: a daemon that comes back from native code then would abort the program.
        self.close = weakref.finalize(self, _end, self._orders, self.thread)

    def start(self, batch: Any) -> Pinned:
        """Has a batch pinned."""
        pinned = Pinned(batch)
        self._orders.put(pinned)
        return pinned

    def await_end(self, pinned: Pinned) -> None:
        """Returns when a batch is pinned. May be called again if it was interrupted.

        Raises:
            LoaderTimeout: it takes too long.
            RuntimeError: the thread has ended.
        """
        while not pinned.wait(self._timeout_s or _CHECK_S):
            if self._timeout_s:
                raise LoaderTimeout(
                    f"DataLoader timed out after {self._timeout_s} seconds; its batch is still being pinned. Nothing "
                    "is lost: the next call goes on waiting. If batches may take so long, raise timeout"
                )
            if not self.thread.is_alive():
                raise RuntimeError("Pin memory thread exited unexpectedly")


def _pin_all(orders: _Orders, device: str, index: int) -> None:
    torch.set_num_threads(1)  # of this thread: the copy shall not take all cores
    torch.multiprocessing._set_thread_name("pt_data_pin")
    torch.accelerator.set_device_index(index)
    while True:
        order = orders.get()
        if order is None:
            return
        order.pin(device, index)
        del order  # not kept until the next one


def _end(orders: _Orders, thread: threading.Thread) -> None:
    orders.put(None)
    if thread is not threading.current_thread():
        thread.join()
